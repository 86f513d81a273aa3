"""`airflow nats ping`, from the command through a real server to a real worker and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor import NatsExecutor
from nats_executor.cli import commands
from nats_executor.operations import schedulers
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import make_home
from tests.support.waiting import block_until
from tests.support.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

STEPS = [
    "command to scheduler and back", "publish to ack", "queue wait", "claim to process",
    "process to report", "report to scheduler", "whole",
]  # fmt: skip


@pytest.fixture
def executor(console: Console, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsExecutor]:
    """The executor of scheduler 7, which Airflow takes for alive."""
    monkeypatch.setattr(schedulers, "living_schedulers", lambda: ["7"])
    console.configure(publish_timeout_seconds=20, connect_timeout_seconds=20)
    executor = NatsExecutor()
    executor.job_id = 7
    executor.start()
    try:
        yield executor
    finally:
        executor.end()


def pinged(console: Console, **args: Any) -> tuple[int, str]:
    given = {"queue": "default", "count": 1, "timeout": 20.0} | args
    return console.run(commands.ping, **given)


def heard(console: Console, **args: Any) -> tuple[int, str]:
    """Ping as soon as the executor hears questions."""

    def ping() -> tuple[int, str] | None:
        result = pinged(console, **args)
        return None if "hears it" in console.error else result

    result: tuple[int, str] = block_until(ping, 60, "the executor to hear questions")
    return result


def held(console: Console) -> list[tuple[int, int]]:
    """What each queue has waiting and in flight."""
    rows = json.loads(console.run(commands.queues_list, output="json")[1])
    return [(row["pending"], row["in_flight"]) for row in rows]


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("executor")
def test_a_probe_goes_all_the_way_to_a_process_and_back(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.run(commands.setup)
    with ExecutionApi() as api, monkeypatch.context() as patch:
        for name, value in make_home(tmp_path, api, tmp_path).items():
            patch.setenv(name, value)
        output = tmp_path / "output"
        output.mkdir()
        worker = WorkerProcess.launch(output, console.settings, "--skip-serve-logs")
        try:
            block_until(lambda: "is ready" in worker.text, 90, "the worker to be ready")
            code, printed = heard(console, count=3, output="json")
            failure = console.error
            block_until(lambda: held(console) == [(0, 0)], 30, "nothing to be left in the queue")
        finally:
            worker.clear_away()

    assert code == 0, failure
    assert failure == ("3 probes through queue 'default', sent by scheduler 7, run by worker w1\n")
    rows = json.loads(printed)
    assert [row["hop"] for row in rows] == STEPS
    by_hop = {row["hop"]: row for row in rows}
    assert 0 < by_hop["claim to process"]["least_ms"] <= by_hop["whole"]["most_ms"]
    whole = by_hop["whole"]
    assert whole["least_ms"] <= whole["median_ms"] <= whole["most_ms"]
    assert {request.action for request in api.received} <= {"ping"}


@pytest.mark.usefixtures("executor")
def test_without_a_worker_it_is_one_line_with_the_remedy(console: Console) -> None:
    console.run(commands.setup)

    assert heard(console, timeout=0.2) == (1, "")

    assert console.error.count("\n") == 1
    assert console.error.endswith("run: airflow nats worker -q default\n")
    code, printed = console.run(commands.queues_list, output="json")
    assert (code, json.loads(printed)[0]["pending"]) == (0, 0)


@pytest.mark.usefixtures("executor")
def test_a_paused_queue_says_how_to_resume_it(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w1", "default", bands=3)
    console.run(commands.queues_pause, paused_queues="default", reason="", duration=None)

    assert heard(console, timeout=0.2) == (1, "")

    assert console.error == (
        "error: queue 'default' is paused until it is resumed; "
        "run: airflow nats queues resume default\n"
    )


@pytest.mark.usefixtures("executor")
def test_full_slots_say_so(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w1", "default", bands=3, concurrency=2, running=2)

    assert heard(console, timeout=0.2) == (1, "")

    assert "worker w1 of queue 'default' had no free slot within 0.2 s (2 of 2" in console.error


def test_no_living_scheduler_is_said(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "living_schedulers", list)

    assert pinged(console) == (1, "")

    assert console.error == "error: no scheduler is alive; run: airflow scheduler\n"


def test_a_scheduler_that_hears_nothing_is_said(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "living_schedulers", lambda: ["8", "9"])

    assert pinged(console, queue=None) == (1, "")

    assert console.error.startswith("error: no executor of scheduler 8, 9 hears it: ")
    assert console.error.count("\n") == 1


def test_a_server_that_is_away_is_exit_code_2(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "living_schedulers", lambda: ["7"])
    console.configure(servers="nats://127.0.0.1:1", connect_timeout_seconds=1)

    assert pinged(console) == (2, "")
