"""The shipped deployment loses a NATS server, a scheduler and a worker, and none of its tasks."""

from __future__ import annotations

import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.report import table
from tests.containers.deployment import NODES, Deployment, docker
from tests.containers.trial import FINAL, TOTAL, rows, violations
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.docker,
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]

DAG = "trial"
STREAM = "AIRFLOW_TASKS"
RUN_SECONDS = 600


@pytest.fixture(name="marks", scope="module")
def marks_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Open to the containers' user."""
    marks = tmp_path_factory.mktemp("marks")
    marks.chmod(0o777)
    for parent in marks.parents[:2]:
        parent.chmod(0o755)
    return marks


@pytest.fixture(name="deployment", scope="module")
def deployment_fixture(marks: Path) -> Iterator[Deployment]:
    scale = {"scheduler": 2, "worker": 2, "worker-heavy": 1}
    with Deployment(f"trial{secrets.token_hex(4)}", marks, scale) as deployment:
        yield deployment


class Trial:
    """A run of the Dag, and what was done to the deployment meanwhile."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.run_id = deployment.start_run(DAG)
        self.began = time.monotonic()
        self.faults: list[dict[str, Any]] = []

    def instances(self) -> list[dict[str, Any]]:
        return self.deployment.task_instances(DAG, self.run_id)

    def ended(self) -> int:
        return sum(ti["state"] in FINAL for ti in self.instances())

    def wait_for(self, count: int) -> None:
        block_until(lambda: self.ended() >= count, RUN_SECONDS, f"{count} tasks to end")

    def kill(self, what: str, container: str, is_over: Callable[[], object]) -> None:
        """Kill a container, and write down when the deployment was over it."""
        before = self.ended()
        at = time.monotonic()
        docker("kill", container)
        block_until(is_over, RUN_SECONDS, f"the others to go on without the {what}")
        self.faults.append(
            {
                "killed": what,
                "at_second": round(at - self.began),
                "tasks_ended": before,
                "over_it_after_seconds": round(time.monotonic() - at),
            }
        )

    def running_on(self, container: str) -> int:
        """How many tasks Airflow takes to run in a container, whose host name is its short id."""
        host = container[:12]
        return sum(ti["state"] == "running" and ti["hostname"] == host for ti in self.instances())


def test_every_task_ends_as_it_should_whatever_is_killed(
    deployment: Deployment, marks: Path
) -> None:
    try:
        trial = carry_out(deployment)
    except BaseException:
        deployment.show_logs()
        raise

    instances = trial.instances()
    sys.stdout.write(f"\n{table(trial.faults)}\n\n{table(rows(instances))}\n")
    found = violations(instances, written(marks))
    if found:
        deployment.show_logs()
    assert found == []


def carry_out(deployment: Deployment) -> Trial:
    """Run the Dag, and kill the leader of the stream, a scheduler and a worker on the way."""
    trial = Trial(deployment)

    trial.wait_for(TOTAL // 10)
    leader = block_until(lambda: deployment.stream_leader(STREAM), 60, "a leader")
    [server] = deployment.containers(leader)
    others = [name for name in NODES if name != leader]

    def is_led() -> bool:
        return deployment.stream_leader(STREAM, others) in others

    trial.kill("NATS server that led the stream", server, is_led)

    before = trial.ended()
    scheduler = deployment.containers("scheduler")[0]
    trial.kill("scheduler", scheduler, lambda: trial.ended() > before)

    trial.wait_for(TOTAL // 2)
    worker = deployment.containers("worker")[0]
    block_until(lambda: trial.running_on(worker), RUN_SECONDS, "a task on the worker")
    trial.kill("worker of queue default", worker, lambda: not trial.running_on(worker))

    trial.wait_for(TOTAL)
    return trial


def test_a_stopped_worker_ends_its_task_and_the_log_outlives_it(deployment: Deployment) -> None:
    """The engine's stop is a drain; what is read afterwards comes from NATS."""
    run_id = deployment.start_run("patient")

    def running() -> dict[str, Any] | None:
        found = deployment.task_instances("patient", run_id)
        return next((ti for ti in found if ti["state"] == "running"), None)

    host = block_until(running, RUN_SECONDS, "the task")["hostname"]
    docker("stop", "--time=90", host, timeout=120)

    assert docker("inspect", "--format", "{{.State.ExitCode}}", host).strip() == "0"
    docker("rm", host)
    [ti] = deployment.task_instances("patient", run_id)
    assert (ti["state"], ti["try_number"]) == ("success", 1)
    assert "patience pays" in deployment.log_of("patient", run_id, "wait")


def written(marks: Path) -> list[str]:
    return [line for path in marks.iterdir() for line in path.read_text().splitlines()]
