"""One real Airflow for each database: its components as processes, an embedded server, a worker."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.airflow.deployed import Airflow
from tests.airflow.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(
    scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
)
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Everything runs, and every Dag but `orphans` is triggered: they take their time together."""
    home = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        if request.param == "postgres":
            database = stack.enter_context(postgres())
        else:
            database = f"sqlite:///{home}/airflow.db?timeout=30"
        deployed = stack.enter_context(Airflow(home, database=database))
        for dag_id in ("flow", "cleared", "late"):
            deployed.trigger(dag_id)
        yield deployed
    shutil.rmtree(home, ignore_errors=True)
