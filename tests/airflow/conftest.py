"""One real Airflow for each database: its components as processes, a nats-server, a worker."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.airflow.deployed import Airflow
from tests.airflow.environment import FAULTS
from tests.airflow.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = ("calling", "flow", "cleared", "late")
# These are over, or wait for their test, before anything is hurt.
EARLY = ("marked", "deferring", "rescheduling")
LATER = (
    "api_away", "backlog", "database_away", "left_behind", "locked", "lonely", "many_2", "many_3",
    "wiped",
)  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """The one Airflow of all tests on PostgreSQL; those that kill, lock and wipe leave it whole.

    Starting one takes half a minute, hence one for all. What needs no fault is triggered at once.
    """
    home = tmp_path_factory.mktemp("hurt")
    dags = (*QUIET, "orphans", *EARLY, *LATER)
    with Airflow(home, database=postgres.url, dags=dags, settings=FAULTS) as airflow:
        for dag_id in (*QUIET, *EARLY):
            airflow.trigger(dag_id)
        yield airflow
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def hurt(shared: Airflow) -> Iterator[Airflow]:
    yield shared
    shared.mend()


@pytest.fixture(
    scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
)
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Everything runs, and every Dag but `orphans` is triggered: they take their time together."""
    if request.param == "postgres":
        yield request.getfixturevalue("shared")
        return
    home = tmp_path_factory.mktemp("sqlite")
    database = f"sqlite:///{home}/airflow.db?timeout=30"
    with ExitStack() as stack:
        deployed = stack.enter_context(Airflow(home, database=database, dags=(*QUIET, "orphans")))
        for dag_id in QUIET:
            deployed.trigger(dag_id)
        yield deployed
    shutil.rmtree(home, ignore_errors=True)
