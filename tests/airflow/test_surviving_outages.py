"""The broker, the database and the API server go away under running Dags, and come back."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.airflow.deployed import Airflow
    from tests.airflow.postgres import PostgresServer

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_broker_without_its_data_costs_no_try(hurt: Airflow) -> None:
    """What runs is reported; what waited is published again, not after 600 s."""
    hurt.add_worker("narrow-1", queues="narrow", concurrency=1)
    hurt.trigger("wiped")
    hurt.wait_for_hold("blocks", "runs_wide")
    hurt.wait(lambda: hurt.backlog("narrow") == 3, "three workloads to wait")

    hurt.broker.kill()
    hurt.broker.wipe_storage()
    hurt.broker.start()

    hurt.release("runs_wide")
    hurt.wait(lambda: hurt.backlog("narrow") == 3, "what waited to be published again")
    hurt.release("blocks")
    hurt.finish("wiped", seconds=200)
    hurt.require_first_tries("wiped")
    for name in ("blocks", "runs_wide", "behind-0", "behind-1", "behind-2"):
        assert hurt.lines(name) == ["ran"], name


def test_a_database_that_goes_away_fails_no_task(hurt: Airflow, postgres: PostgresServer) -> None:
    """Airflow's own components may exit then; whatever supervises them starts them again."""
    hurt.trigger("database_away")
    _, ending = hurt.wait_for_hold("database-through", "database-ends")
    scheduler = hurt.component("scheduler")

    postgres.stop(signal.SIGQUIT)
    hurt.release("database-ends")
    hurt.wait_for_death(ending, check=lambda: None)
    hurt.wait(
        lambda: "OperationalError" in scheduler.log.read_text(errors="replace"),
        "the scheduler to notice",
        check=lambda: None,
    )
    postgres.start()

    hurt.add_worker("database-1", queues="database-later")
    hurt.release("database-through")
    hurt.finish("database_away", check=hurt.tend)
    hurt.require_first_tries("database_away")
    for name in ("through", "ends", "starts"):
        assert hurt.lines(f"database-{name}") == ["ran"], name
    hurt.wait(hurt.is_whole, "the components to be healthy again", check=hurt.tend)


def test_an_api_server_that_is_killed_costs_no_try(hurt: Airflow) -> None:
    """One task starts while it is away, one runs through, one ends."""
    hurt.trigger("api_away")
    _, ending = hurt.wait_for_hold("api-through", "api-ends")
    hurt.wait(lambda: hurt.backlog("api-later") == 1, "one workload to wait")

    hurt.kill("api-server")
    hurt.release("api-ends")
    hurt.wait_for_death(ending)
    hurt.add_worker("api-1", queues="api-later")
    hurt.wait(
        lambda: "no API server" in hurt.log_of("api-1"), "the worker to hand it back", seconds=90
    )
    waiting = hurt.task("api_away", "starts_meanwhile")
    hurt.start_component("api-server")

    hurt.release("api-through")
    hurt.finish("api_away")
    hurt.require_first_tries("api_away")
    assert waiting["state"] == "queued"
    for name in ("through", "ends", "starts"):
        assert hurt.lines(f"api-{name}") == ["ran"], name
