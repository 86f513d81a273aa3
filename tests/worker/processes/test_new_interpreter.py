"""Tasks that get an interpreter of their own: `[core] execute_tasks_new_python_interpreter`.

Airflow 3.4 starts one by exec. Airflow 3.3 has the setting and forks, as far as Linux goes.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.execution_time import supervisor

from nats_worker.processes.exit_report import Ending
from nats_worker.processes.interpreter import prepare_all
from nats_worker.processes.pool import ProcessPool
from tests.support.waiting import wait_until
from tests.worker.conftest import Stage, is_alive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

# By the name of Airflow's own question, so that a version that has it and no effect is noticed.
STARTS_INTERPRETERS = hasattr(supervisor, "_task_process_uses_exec")
FORKS = "[core] execute_tasks_new_python_interpreter has no effect: this Airflow forks every task"
# A new interpreter imports Airflow, on a machine that is busy with other tests.
PATIENCE = 120


@pytest.fixture
async def fresh(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A stage on which the setting is on."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER", "True")
    async with ProcessPool() as pool:
        await pool.ready()
        yield replace(stage, pool=pool)


def score(pid: int) -> str:
    """How soon the kernel ends a process when memory runs out."""
    return Path(f"/proc/{pid}/oom_score_adj").read_text()


async def test_a_task_has_an_interpreter_of_its_own_or_the_worker_says_that_it_has_none(
    capfd: pytest.CaptureFixture[str], fresh: Stage
) -> None:
    ti_id = fresh.new_id()

    report = await (await fresh.start("modules", ti_id)).exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, 0)
    imported = json.loads((fresh.marks / ti_id).read_text())
    is_forked = (
        "nats_worker.processes.forkserver" in imported
        or "nats_worker.processes.supervisor" in imported
    )
    assert is_forked is not STARTS_INTERPRETERS
    assert "".join(capfd.readouterr()).count(FORKS) == is_forked


async def test_it_is_stopped_and_killed_as_any_other(fresh: Stage, airflow_home: Path) -> None:
    """And its end, its log and its victim's score are those of any other."""
    gentle, stubborn = fresh.new_id(), fresh.new_id()
    runs = {task: await fresh.start(name, task) for name, task in
            (("talk", gentle), ("stubborn", stubborn))}  # fmt: skip
    for task in runs:
        await wait_until((fresh.marks / task).exists, PATIENCE, "the task to run")
    for run in runs.values():
        assert score(run.task_pid) == score(run.supervisor_pid)

    runs[gentle].signal(signal.SIGTERM)
    runs[stubborn].signal(signal.SIGKILL)

    for task, exit_code, state in ((gentle, 0, "success"), (stubborn, -9, "failed")):
        report = await runs[task].exited()
        assert (report.ending, report.exit_code) == (Ending.FINISHED, exit_code)
        assert [body["state"] for body in fresh.api.bodies(task, "state")] == [state]
        assert not is_alive(report.pid)
    assert "the last words" in (airflow_home / "logs" / f"{gentle}.log").read_text()


async def test_a_fault_in_it_ends_it(fresh: Stage) -> None:
    """With the handler that Airflow's Dag importer installs it would never end."""
    run = await fresh.start("fault")
    await wait_until(lambda: run.is_over, PATIENCE, "its end")

    report = await run.exited()

    assert (report.ending, report.exit_code) == (Ending.FINISHED, -signal.SIGSEGV)


def test_what_lies_in_the_working_directory_is_not_taken_for_a_library(tmp_path: Path) -> None:
    """`python -c` looks there first, also for what Airflow's first words import."""
    (tmp_path / "ctypes.py").write_text("print('not the library')\n")
    airflow = SimpleNamespace(
        _CHILD_EXEC_PRELUDE="import ctypes\n", _CHILD_EXEC_BOOTSTRAP="print('started')\n"
    )

    assert prepare_all(airflow)
    started = subprocess.run(
        [sys.executable, "-c", airflow._CHILD_EXEC_BOOTSTRAP],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert started.stdout.splitlines()[-1] == "started"
    assert "not the library" not in started.stdout
