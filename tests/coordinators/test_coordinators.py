"""Tasks in other languages, routed by queue to Airflow's coordinators, on real workers."""

from __future__ import annotations

import importlib.util
import json
import shutil
import uuid
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.coordinators.executable.coordinator import ExecutableCoordinator

from nats_executor.topology import setup
from nats_executor.wire.messages import State
from nats_executor.wire.names import Verb
from tests.coordinators.bundles import pack_node, pack_program
from tests.faults.stage import FaultStage, open_stage
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import is_alive, make_home, task_body
from tests.support.require import require
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.wire.messages import Report
    from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

NODE = "airflow.sdk.coordinators.node"
HAS_NODE = importlib.util.find_spec(NODE) is not None
EXECUTABLE = "airflow.sdk.coordinators.executable"
QUEUES = [
    "program",
    pytest.param("node", marks=pytest.mark.skipif(not HAS_NODE, reason="Airflow 3.4 has it")),
]


@pytest.fixture(scope="module")
def api() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, api: ExecutionApi) -> Iterator[Path]:
    """Airflow with a coordinator for each of two queues, and one that finds nothing for a third."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "marks").mkdir()
    environment = make_home(home, api, home / "marks")
    bundle, empty = home / "bundle", home / "empty"
    empty.mkdir()
    pack_program(bundle)
    # Far above Airflow's ten seconds, for a machine that is busy with other tests.
    patience = {"task_startup_timeout": 60}
    has_roots = hasattr(ExecutableCoordinator, "executables_root")  # until Airflow 3.3
    coordinators = {
        "program": {
            "classpath": f"{EXECUTABLE}.ExecutableCoordinator",
            "kwargs": patience | ({"executables_root": [str(bundle)]} if has_roots else {}),
        },
        "absent": {
            "classpath": f"{EXECUTABLE}.ExecutableCoordinator",
            "kwargs": {"executables_root": [str(empty)]}
            if has_roots
            else {"task_handler_bundle_name": "empty"},
        },
    }
    if HAS_NODE:
        pack_node(bundle)
        coordinators["node"] = {"classpath": f"{NODE}.NodeCoordinator", "kwargs": patience}
    option = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    bundles = json.loads(environment[option])
    bundles.append(bundles[0] | {"name": "empty", "kwargs": {"path": str(empty)}})
    environment |= {
        option: json.dumps(bundles),
        "AIRFLOW__SDK__COORDINATORS": json.dumps(coordinators),
        "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": json.dumps({name: name for name in coordinators}),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield home


@pytest.fixture(scope="module")
async def stage(
    nats_server: NatsServer,
    home: Path,
    api: ExecutionApi,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FaultStage]:
    output = tmp_path_factory.mktemp("output")
    prefix = f"foreign{uuid.uuid4().hex[:8]}"
    async with open_stage(nats_server.url, prefix, api, home / "marks", output) as stage:
        queues = ["program", "node", "absent"]
        await setup.apply(stage.post.broker, stage.settings, queues)
        await stage.start("-q", ",".join(queues), kill_seconds=1, max_attempts=2)
        yield stage


async def send(stage: FaultStage, queue: str, task: str, **changes: object) -> str:
    if queue == "node":
        require(shutil.which("node") is not None, "no node on the PATH")
    dispatch_id = str(uuid.uuid4())
    body = task_body(task, dispatch_id) | changes
    body["ti"]["queue"] = queue
    await stage.post.send(body, dispatch_id, queue)
    return dispatch_id


async def ended(stage: FaultStage, queue: str, task: str) -> Report:
    final = (State.SUCCESS, State.FAILED, State.DROPPED)
    return await stage.post.reported(task, *final, queue=queue)


def words(home: Path, task: str) -> list[str]:
    """What stands in a task's log, as Airflow's UI shows it."""
    lines = (home / "logs" / f"{task}.log").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("queue", QUEUES)
async def test_a_task_of_another_language_succeeds(
    stage: FaultStage, home: Path, queue: str
) -> None:
    task = await send(stage, queue, "succeed")

    assert (await ended(stage, queue, task)).state is State.SUCCESS

    assert State.RUNNING in stage.states(task)
    assert stage.final_states(task) == ["success"]
    assert any(line.startswith("hello from ") for line in words(home, task))


@pytest.mark.parametrize("queue", QUEUES)
async def test_a_revocation_ends_its_process_and_what_that_started(
    stage: FaultStage, home: Path, queue: str
) -> None:
    """One that ignores SIGTERM; what it leaves is killed with it."""
    task = await send(stage, queue, "sleep")
    running = await stage.post.reported(task, State.RUNNING, queue=queue)

    def child() -> str:
        return next((w.split()[1] for w in words(home, task) if w.startswith("child ")), "")

    pids = [running.pid, int(await wait_until(child, 60, "its child"))]
    stop = stage.settings.names.control(running.worker, Verb.STOP)

    assert await stage.post.broker.request(stop, task.encode(), timeout=30) == b"stopping"

    assert (await ended(stage, queue, task)).info == "the scheduler took it back"
    await wait_until(lambda: not any(map(is_alive, pids)), 60, "their end")
    await wait_until(lambda: "deaf" in words(home, task), 60, "SIGTERM in its log")


async def test_a_worker_without_the_program_hands_the_task_to_another(stage: FaultStage) -> None:
    """Nothing has started, so no try is spent; if no worker can start it, it fails and says why."""
    task = await send(stage, "absent", "succeed")

    report = await ended(stage, "absent", task)

    assert report.state is State.FAILED
    assert "it was claimed 2 times and never started" in report.info
    assert "cannot find executable bundle containing dag_id='outcomes'" in report.info
    assert stage.starts(task) == 0


@pytest.mark.skipif(not HAS_NODE, reason="Airflow 3.4 has native Dags in other languages")
async def test_a_native_dag_that_is_not_there_fails_at_once(stage: FaultStage, home: Path) -> None:
    """Airflow itself has told the API server, with the reason; the worker says the same."""
    task = await send(stage, "node", "succeed", dag_rel_path="gone.min.mjs")

    assert (await ended(stage, "node", task)).state is State.FAILED

    assert stage.final_states(task) == ["failed"]
    assert "Cannot launch the task's runtime" in words(home, task)
