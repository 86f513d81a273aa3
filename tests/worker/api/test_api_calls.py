"""Each call to the API server against each way in which its answer may fail to come.

A real supervisor, a real task and a stand-in that carries a request out and withholds the answer,
or answers late, or is a proxy.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import Answer
from tests.support.waiting import wait_until
from tests.worker.conftest import (
    Stage,
    callback_body,
    connection_test_body,
    is_alive,
    task_body,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_worker.processes.exit_report import ExitReport
    from tests.support.execution_api import ExecutionApi

pytestmark = pytest.mark.anyio

# Airflow's time-out in these tests, in seconds, and an answer that comes after it.
TIMEOUT = 1
LATE = 1.5
GOOD = Answer(200)
PROXY = "<html>Bad Gateway</html>"
FAULTS = {
    "not carried out and unanswered": Answer(0),
    "carried out and unanswered": Answer(0, is_carried_out=True),
    "carried out, and a proxy says that it was not": Answer(502, html=PROXY, is_carried_out=True),
    "refused by a proxy": Answer(503, html=PROXY),
    "carried out too late": Answer(200, after=LATE),
}


@pytest.fixture(scope="module")
async def hasty(airflow_home: Path, api: ExecutionApi, marks: Path) -> AsyncIterator[Stage]:  # noqa: ARG001
    """A stage on which Airflow waits for a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", str(TIMEOUT))
        patch.setenv("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "5")
        patch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
        async with ProcessPool(delivery_seconds=60.0, reach_seconds=1.0) as pool:
            await pool.ready()
            yield Stage(pool, api, marks)


async def carried_out(
    stage: Stage, task: str, about: str, action: str, fault: Answer
) -> ExitReport:
    """Run a task whose call fails twice this way; return how it ended."""
    ti_id = stage.new_id()
    stage.api.script(about or ti_id, action, fault, fault, GOOD)
    run = await stage.start(task, ti_id)
    if task == "sleep":
        await wait_until(
            lambda: len(stage.api.bodies(ti_id, action)) > 2, 60, f"{action} to be asked again"
        )
        run.signal(signal.SIGTERM)
    report = await run.exited()
    assert len({body["pid"] for body in stage.api.bodies(ti_id, "run")}) == 1
    return report


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize(
    ("task", "about", "action"),
    [
        ("succeed", "", "run"),
        ("succeed", "", "rtif"),
        ("give", "outcomes", "return_value"),
        ("sleep", "", "heartbeat"),
        ("succeed", "", "state"),
    ],
)
async def test_a_task_ends_well_although_answers_fail(
    hasty: Stage, task: str, about: str, action: str, fault: Answer
) -> None:
    report = await carried_out(hasty, task, about, action, fault)

    assert (report.ending, report.exit_code, report.started) == (Ending.FINISHED, 0, True)


@pytest.mark.parametrize("action", ["run", "rtif", "state"])
async def test_a_slow_server_gets_the_time_that_it_needs(hasty: Stage, action: str) -> None:
    """A request that is repeated with the same time-out would fail each time."""
    ti_id = hasty.new_id()
    hasty.api.script(ti_id, action, Answer(200, after=LATE))

    report = await (await hasty.start("succeed", ti_id)).exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, 0)
    assert len({body["pid"] for body in hasty.api.bodies(ti_id, "run")}) == 1


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_callback_is_started_once(hasty: Stage, fault: Answer) -> None:
    """Airflow 3.4's exchanges its token; another request after that is told so."""
    body = callback_body("os.getcwd")
    callback = body["callback"]["id"]
    hasty.api.script(callback, "run", fault, fault, GOOD)

    report = await (await hasty.pool.start(hasty.new_id(), body)).exited()

    is_token_lost = AIRFLOW_V_3_4_PLUS and fault.is_carried_out
    ending = Ending.EXCHANGED if is_token_lost else Ending.FINISHED
    assert (report.ending, report.started) == (ending, True)
    assert bool(hasty.api.bodies(callback, "run")) == AIRFLOW_V_3_4_PLUS  # 3.3's need no start


@pytest.mark.parametrize("action", ["connection", "self"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_connection_test_reports_although_answers_fail(
    hasty: Stage, action: str, fault: Answer
) -> None:
    test_id = hasty.new_id()
    hasty.api.script(test_id, action, fault, fault, GOOD)

    report = await (await hasty.pool.start(hasty.new_id(), connection_test_body(test_id))).exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, 0)
    assert {body["state"] for body in hasty.api.bodies(test_id, "self")} == {"failed"}


# Who has answered

WRONG_ADDRESS = {
    "no such route": Answer(404, "Not Found"),
    "a route without this method": Answer(405, "Method Not Allowed"),
    "a proxy without this host": Answer(404, html="<html>Not Found</html>"),
    "a proxy that wants a login": Answer(403, html="<html>Forbidden</html>"),
    "a redirect": Answer(302, html=""),
}


@pytest.mark.parametrize("answer", WRONG_ADDRESS.values(), ids=WRONG_ADDRESS.keys())
async def test_a_start_that_something_else_answers(hasty: Stage, answer: Answer) -> None:
    ti_id = hasty.new_id()
    hasty.api.script(ti_id, "run", answer)

    report = await (await hasty.start("succeed", ti_id)).exited()

    assert (report.ending, report.started) == (Ending.WRONG_ADDRESS, False)
    option = "[core] execution_api_server_url"
    assert report.info.endswith(f", the API server at {hasty.api.url} ({option})")
    assert len(hasty.api.bodies(ti_id, "run")) == 1


async def test_what_a_proxy_says_between_two_answers_is_no_word_of_the_server(
    hasty: Stage,
) -> None:
    """It may have been accepted: so "not found" of a server that starts is not the end of it."""
    ti_id = hasty.new_id()
    lost, proxy = Answer(0, is_carried_out=True), Answer(404, html="<html>Not Found</html>")
    hasty.api.script(ti_id, "run", lost, proxy, Answer(404, "Not Found"), GOOD)

    report = await (await hasty.start("succeed", ti_id)).exited()

    assert (report.ending, report.started) == (Ending.FINISHED, True)


async def test_a_proxys_not_found_ends_no_task(hasty: Stage) -> None:
    """At a heartbeat, and when its state is delivered."""
    ti_id = hasty.new_id()
    hasty.api.script(ti_id, "heartbeat", Answer(404, "Not Found"), GOOD)
    hasty.api.script(ti_id, "state", Answer(404, html="<html>Not Found</html>"), GOOD)
    run, _ = await hasty.start_sleeper(ti_id=ti_id)

    await wait_until(lambda: len(hasty.api.bodies(ti_id, "heartbeat")) > 1, 60, "two heartbeats")
    assert not run.is_over
    run.signal(signal.SIGTERM)
    report = await run.exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, 0)
    assert [body["state"] for body in hasty.api.bodies(ti_id, "state")] == ["success"] * 2


# What stops the asking


async def test_what_nobody_could_send_goes_back(hasty: Stage) -> None:
    """Only a connection that was never made proves that nothing was accepted."""
    ti_id = hasty.new_id()
    hasty.api.go_away()
    try:
        report = await (await hasty.start("succeed", ti_id)).exited()
    finally:
        hasty.api.come_back()

    assert (report.ending, report.started) == (Ending.UNREACHABLE, False)
    assert hasty.api.bodies(ti_id, "run") == []


async def test_a_stop_before_the_question_gives_the_workload_up(hasty: Stage) -> None:
    hasty.api.go_away()
    try:
        run = await hasty.start("succeed")
        await wait_until(lambda: run.supervisor_pid, 60, "its supervisor")
        run.signal(signal.SIGTERM)
        report = await run.exited()
    finally:
        hasty.api.come_back()

    assert not report.started
    # The last one where the signal came before the supervisor had got ready for it.
    assert report.ending in {Ending.GIVEN_UP, Ending.UNREACHABLE, Ending.DIED}


async def test_a_stop_after_the_question_waits_for_the_answer(hasty: Stage) -> None:
    """The task that was accepted gets the signal then; its end is told like any other."""
    ti_id = hasty.new_id()
    hasty.api.script(ti_id, "run", Answer(0, is_carried_out=True), Answer(200, after=LATE), GOOD)
    run = await hasty.start("sleep", ti_id)
    await wait_until(lambda: hasty.api.bodies(ti_id, "run"), 60, "/run to be asked")

    run.signal(signal.SIGTERM)
    report = await run.exited()

    assert (report.ending, report.started) == (Ending.FINISHED, True)
    assert [body["state"] for body in hasty.api.bodies(ti_id, "state")] != []


async def test_a_start_that_comes_too_late_is_never_asked_for(hasty: Stage) -> None:
    """The worker that has given it up may have handed it to another one by then."""
    ti_id = hasty.new_id()
    body = callback_body("os.getcwd")  # forks a supervisor that is free then
    await (await hasty.pool.start(hasty.new_id(), body)).exited()

    run = await hasty.pool.start(hasty.new_id(), task_body("succeed", ti_id), start_seconds=0.0)
    over = await hasty.pool.give_up(run)

    assert over
    assert (await run.exited()).ending is Ending.HUNG
    await (await hasty.start("succeed")).exited()
    assert hasty.api.bodies(ti_id, "run") == []


async def test_what_was_given_up_before_its_time_is_never_asked_for(hasty: Stage) -> None:
    """As a revocation does; the fork server that hung goes on, and forks a process for it."""
    ti_id = hasty.new_id()
    async with ProcessPool() as pool:
        await pool.ready()
        assert pool.server
        os.kill(pool.server.process.pid, signal.SIGSTOP)
        run = await pool.start(hasty.new_id(), task_body("succeed", ti_id))
        assert await pool.give_up(run)

        os.kill(pool.server.process.pid, signal.SIGCONT)
        later = await pool.start(hasty.new_id(), task_body("succeed", hasty.new_id()))
        assert (await later.exited()).ending is Ending.FINISHED

    assert hasty.api.bodies(ti_id, "run") == []


async def test_a_supervisor_that_hangs_is_ended_and_says_where(
    hasty: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a log folder that does not answer, as one over a network may."""
    ti_id = hasty.new_id()
    log = hasty.marks.parent / f"{ti_id}.log"
    os.mkfifo(log)
    async with ProcessPool() as pool:
        run = await pool.start(ti_id, task_body("succeed", ti_id) | {"log_path": str(log)})
        await wait_until(lambda: run.supervisor_pid, 60, "its supervisor")
        await wait_until(lambda: is_blocked(run.supervisor_pid), 60, "it to hang")
        assert pool.longest_start() > 0

        assert await pool.give_up(run)
        assert pool.longest_start() == 0

    report = await run.exited()
    assert (report.ending, report.started) == (Ending.HUNG, False)
    assert str(run.supervisor_pid) in report.info
    assert "_configure_logging" in "".join(capfd.readouterr())
    assert hasty.api.bodies(ti_id, "run") == []
    assert not is_alive(run.supervisor_pid)


def is_blocked(pid: int) -> bool:
    """Whether a process waits for a reader of the file that it opens."""
    return Path(f"/proc/{pid}/wchan").read_text() in {"fifo_open", "wait_for_partner"}
