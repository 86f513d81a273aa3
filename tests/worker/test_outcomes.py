"""Every row of the outcome table, with Airflow's real supervisor and real task processes."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.api.client import get_hostname

from nats_worker.delivery.verdict import Final, judge
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool
from tests.support.execution_api import Answer
from tests.support.waiting import wait_until
from tests.worker.conftest import callback_body, connection_test_body, is_alive

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.conftest import Stage

pytestmark = pytest.mark.anyio

SILENCE = Answer(0)


def invalid(state: str) -> Answer:
    return Answer(409, {"reason": "invalid_state", "message": "no", "previous_state": state})


# What Airflow shows


@pytest.mark.parametrize("name", ["etl-1", ""])
async def test_a_workers_name_is_shown_as_the_host(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also after the task has ended; a heartbeat from another host would end it."""
    monkeypatch.setattr(stage.pool, "shown_as", name)
    ti_id = stage.new_id()

    await stage.finish("succeed", ti_id)

    [start] = stage.api.bodies(ti_id, "run")
    assert start["hostname"] == (name or get_hostname())


# How a task process ends, once its start was accepted


@pytest.mark.parametrize(
    ("task", "may_retry", "exit_code", "states"),
    [
        ("succeed", False, 0, ["success"]),
        ("fail", False, 0, ["failed"]),
        ("fail", True, 0, ["up_for_retry"]),
        ("quit_itself", False, 7, ["failed"]),
        ("kill_itself", False, -9, ["failed"]),
        # With the handler that Airflow's Dag importer installs it would never end.
        ("fault", False, -11, ["failed"]),
        # Airflow leaves this one to the executor's event.
        ("kill_itself", True, -9, []),
    ],
)
async def test_a_task_that_ends(
    stage: Stage, task: str, may_retry: bool, exit_code: int, states: list[str]
) -> None:
    ti_id = stage.new_id()
    if may_retry:
        stage.api.may_retry.add(ti_id)
    run = await stage.start(task, ti_id)

    await wait_until(lambda: run.is_over, 60, "its end")
    report = await run.exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, exit_code)
    assert report.started
    assert report.pid == run.task_pid > 0
    assert [body["state"] for body in stage.api.bodies(ti_id, "state")] == states


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("kill_itself", "SIGKILL"),
        ("interrupt_itself", "SIGINT"),
        ("end_without_a_name", "signal 35"),
    ],
)
async def test_an_end_by_a_signal_is_told_once(stage: Stage, task: str, name: str) -> None:
    """As it is in Airflow's audit log."""
    run = await stage.start(task)

    verdict = judge(await run.exited(), predecessor="", generation=0)

    assert isinstance(verdict, Final)
    said, _, reason = verdict.info.partition("; ")
    assert said == f"the task process was ended by {name}"
    assert ("memory" in reason) == (name == "SIGKILL")
    assert "process was" not in reason


async def test_every_exit_is_noticed_at_once(stage: Stage) -> None:
    """Airflow's own supervisor misses one exit in three and sleeps for a heartbeat, here 100 s."""
    runs = [await stage.start("succeed") for _ in range(12)]

    reports = [await run.exited() for run in runs]

    assert {report.ending for report in reports} == {Ending.FINISHED}


async def test_an_accepted_start_is_a_heartbeat(stage: Stage) -> None:
    """Airflow's own supervisor sends one more at the task's first word."""
    ti_id = stage.new_id()

    await (await stage.start("succeed", ti_id)).exited()

    assert len(stage.api.bodies(ti_id, "run")) == 1
    assert stage.api.bodies(ti_id, "heartbeat") == []


async def test_a_heartbeat_that_is_refused_stops_the_task(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    async with ProcessPool() as pool:
        for status in (404, 409, 410):
            ti_id = stage.new_id()
            stage.api.script(ti_id, "heartbeat", Answer(status, {"reason": "not_running"}))
            run = await replace(stage, pool=pool).start("sleep", ti_id)

            report = await run.exited()

            assert (report.ending, report.started) == (Ending.STOPPED_BY_SERVER, True)
            assert not is_alive(report.pid)


# How a start is refused


@pytest.mark.parametrize(
    ("answer", "ending", "previous_state"),
    [
        (invalid("running"), Ending.ALREADY_RUNNING, ""),
        (invalid("success"), Ending.STALE, "success"),
        (Answer(404, {"reason": "not_found"}), Ending.STALE, ""),
        (Answer(401, "no token"), Ending.TOKEN_REFUSED, ""),
        (Answer(403, "expired"), Ending.TOKEN_REFUSED, ""),
        (Answer(422, "what?"), Ending.RAISED, ""),
    ],
)
async def test_a_start_that_is_refused(
    stage: Stage, answer: Answer, ending: Ending, previous_state: str
) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", answer)
    run = await stage.start("succeed", ti_id)

    report = await run.exited()

    assert (report.ending, report.previous_state) == (ending, previous_state)
    assert not report.started
    assert run.task_pid == 0
    assert not is_alive(report.pid)
    assert stage.api.bodies(ti_id, "state") == []


async def test_a_start_that_succeeds_at_the_second_try(stage: Stage) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "run", Answer(503), Answer(200))

    report = await (await stage.start("succeed", ti_id)).exited()

    assert (report.ending, report.started) == (Ending.FINISHED, True)


async def test_no_api_server_at_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The team's configuration names a port without a listener."""
    monkeypatch.setattr(stage.pool, "team", "ghosts")
    monkeypatch.setattr(stage.pool, "reach_seconds", 0.1)

    report = await (await stage.start("succeed")).exited()

    assert (report.ending, report.started) == (Ending.UNREACHABLE, False)
    address = "http://127.0.0.1:1/execution/ ([ghosts=core] execution_api_server_url)"
    assert report.info.endswith(f", the API server at {address}")


async def test_a_team_without_an_api_server_has_that_for_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.pool, "team", "red")
    ti_id = stage.new_id()

    report = await (await stage.start("succeed", ti_id)).exited()

    assert (report.ending, report.info) == (Ending.FINISHED, "")
    assert len(stage.api.bodies(ti_id, "run")) == 1


# How a state fails to arrive


@pytest.mark.parametrize("task", ["succeed", "kill_itself"])
async def test_a_state_is_delivered_when_the_api_server_is_back(stage: Stage, task: str) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "state", *[SILENCE] * 3, Answer(503), Answer(200))
    report = await (await stage.start(task, ti_id)).exited()

    assert report.ending == Ending.FINISHED
    assert len(stage.api.bodies(ti_id, "state")) == 5


@pytest.mark.parametrize("task", ["succeed", "fail", "kill_itself"])
@pytest.mark.parametrize("answer", [Answer(500), SILENCE, Answer(403, "expired")])
async def test_a_state_that_is_never_delivered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, task: str, answer: Answer
) -> None:
    monkeypatch.setattr(stage.pool, "delivery_seconds", 0.2)
    ti_id = stage.new_id()
    stage.api.script(ti_id, "state", answer)

    report = await (await stage.start(task, ti_id)).exited()

    assert (report.ending, report.started) == (Ending.UNDELIVERED, True)
    assert report.info


@pytest.mark.parametrize("task", ["succeed", "kill_itself"])
@pytest.mark.parametrize("status", [404, 409, 410])
async def test_a_state_that_somebody_else_has_set(stage: Stage, task: str, status: int) -> None:
    ti_id = stage.new_id()
    stage.api.script(ti_id, "state", Answer(status, {"reason": "invalid_state"}))

    report = await (await stage.start(task, ti_id)).exited()

    assert (report.ending, report.started) == (Ending.STOPPED_BY_SERVER, True)


# The other kinds of workload


async def test_a_callback_that_succeeds(stage: Stage) -> None:
    run = await stage.pool.start(stage.new_id(), callback_body("os.getcwd"))

    report = await run.exited()

    assert (report.ending, report.started) == (Ending.FINISHED, True)
    assert run.task_pid == report.pid > 0


async def test_a_callback_that_fails(stage: Stage) -> None:
    report = await (await stage.pool.start(stage.new_id(), callback_body("os.nothing"))).exited()

    assert (report.ending, report.started) == (Ending.RAISED, True)
    assert "Callback subprocess exited with code 1" in report.info


async def test_a_callback_is_stopped_with_what_it_started(stage: Stage) -> None:
    """Airflow leaves a callback in the supervisor's process group: a signal would end both."""
    body = callback_body("subprocess.run", args=["sleep", "1000"])
    run = await stage.pool.start(stage.new_id(), body)
    await run.started()

    run.signal(signal.SIGKILL)

    assert (await run.exited()).ending == Ending.RAISED
    assert not is_alive(run.task_pid)


async def test_a_connection_test_reports_by_itself(stage: Stage) -> None:
    test_id = stage.new_id()

    report = await (await stage.pool.start(stage.new_id(), connection_test_body(test_id))).exited()

    assert (report.ending, report.started) == (Ending.FINISHED, True)
    assert [body["state"] for body in stage.api.bodies(test_id, "self")] == ["failed"]


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (Answer(403, "expired"), Ending.TOKEN_REFUSED),
        (Answer(404, {"reason": "not_found"}), Ending.STALE),
        (SILENCE, Ending.UNREACHABLE),
    ],
)
async def test_a_connection_test_that_cannot_report(
    stage: Stage, answer: Answer, ending: Ending
) -> None:
    test_id = stage.new_id()
    stage.api.script(test_id, "connection", answer)
    stage.api.script(test_id, "self", answer)

    run = await stage.pool.start(stage.new_id(), connection_test_body(test_id))

    assert (await run.exited()).ending == ending


# What no Airflow understands


async def test_a_body_that_airflow_cannot_read(stage: Stage) -> None:
    """The report says what is wrong and quotes nothing, because a body holds a token."""
    run = await stage.start("succeed", bundle_info="a.secret.token")

    report = await run.exited()

    assert (report.ending, report.started) == (Ending.UNREADABLE, False)
    assert "bundle_info" in report.info
    assert "secret" not in report.info


async def test_what_a_task_killed_by_force_leaves_behind_is_killed(stage: Stage) -> None:
    run, child = await stage.start_sleeper("parent")

    run.signal(signal.SIGKILL)
    report = await run.exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, -9)
    await wait_until(lambda: not is_alive(child), description="the task's own child to be killed")


async def test_nothing_that_a_task_leaves_stays_defunct(stage: Stage) -> None:
    """The task itself looks, and then its supervisor is as it was before."""
    ids = [stage.new_id() for _ in range(2)]

    runs = [await stage.finish("orphans", ti_id) for ti_id in ids]

    for ti_id in ids:
        assert [body["state"] for body in stage.api.bodies(ti_id, "state")] == ["success"]
    assert runs[0].supervisor_pid == runs[1].supervisor_pid


async def test_the_exit_code_is_the_tasks_whatever_ends_beside_it(stage: Stage) -> None:
    runs = [await stage.start("quit_beside_orphans") for _ in range(4)]

    reports = [await run.exited() for run in runs]

    assert [(report.ending, report.exit_code) for report in reports] == [(Ending.FINISHED, 7)] * 4


# An Airflow that has changed

OTHER_AIRFLOW = """#!{python}
import sys
from airflow.sdk.execution_time.supervisor import ActivitySubprocess
del ActivitySubprocess.update_task_state_if_needed
ActivitySubprocess.update_task_state = lambda self: self.client.task_instances.finish(
    id=self.id, state="failed", when=__import__("datetime").datetime.now().astimezone(),
    rendered_map_index=None,
)
ActivitySubprocess.wait = lambda self: self._monitor_subprocess() or (
    self._exit_code and self.update_task_state() or self._exit_code
)
from nats_worker.processes.forkserver import main
main(*map(int, sys.argv[-2:]))
"""


async def test_an_airflow_that_has_changed_runs_without_our_watch(
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    python = tmp_path / "python"
    python.write_text(OTHER_AIRFLOW.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "1")
    cases = {
        ("succeed", "heartbeat", 200): (Ending.FINISHED, True),
        ("succeed", "run", 409): (Ending.STALE, False),
        ("succeed", "run", 503): (Ending.UNREACHABLE, False),
        ("quit_itself", "state", 409): (Ending.STOPPED_BY_SERVER, True),
        ("quit_itself", "state", 503): (Ending.UNDELIVERED, True),
    }
    async with ProcessPool() as pool:
        changed = replace(stage, pool=pool)
        for (task, action, status), expected in cases.items():
            ti_id = stage.new_id()
            stage.api.script(ti_id, action, Answer(status, {"reason": "invalid_state"}))
            report = await (await changed.start(task, ti_id)).exited()
            assert (report.ending, report.started) == expected

    said = "".join(capfd.readouterr())
    assert said.count("this Airflow has no ActivitySubprocess.update_task_state_if_needed") == 1
