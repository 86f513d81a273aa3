"""A worker counts each thing that happens, and gives the numbers to those who ask."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import Kind, State, Workload
from nats_worker.health import health
from nats_worker.processes.exit_report import Ending
from tests.support.nats_server import free_port
from tests.support.probing import samples
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, token, worker_stage_fixture

if TYPE_CHECKING:
    from nats_worker.worker import Worker

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio

PREFIX = "airflow_nats_worker_"


@pytest.fixture
def port(worker_stage: WorkerStage) -> int:
    """Have the workers of a test be measured."""
    chosen = free_port()
    worker_stage.settings = replace(
        worker_stage.settings, health_port=chosen, health_address="127.0.0.1"
    )
    worker_stage.pool.preloaded.set()
    return chosen


async def count(port: int, name: str, *labels: str) -> float:
    return (await samples(port))[PREFIX + name, labels]


async def test_counts_begin_with_zero(worker_stage: WorkerStage, port: int) -> None:
    """Otherwise the first of each would be invisible to a rate."""
    await worker_stage.start(queues=("default", "heavy"))

    found = await samples(port)

    for queue in ("default", "heavy"):
        for name in ("deliveries_total", "redeliveries_total", "dead_letters_total"):
            assert found[PREFIX + name, (queue,)] == 0
        for state in ("success", "failed", "dropped"):
            assert found[f"{PREFIX}workloads_finished_total", (queue, state)] == 0
        for state in ("released", "expired"):
            assert found[f"{PREFIX}workloads_returned_total", (queue, state)] == 0


async def test_a_workload_is_measured_from_its_delivery_to_its_report(
    worker_stage: WorkerStage, port: int
) -> None:
    await worker_stage.start()
    worker_stage.server.now = time.time() - 100
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    assert await count(port, "workloads_finished_total", "default", "success") == 0
    run.finish()
    await worker_stage.done()

    found = await samples(port)

    def value(name: str, *labels: str) -> float:
        return found[PREFIX + name, labels]

    assert value("deliveries_total", "default") == 1
    assert value("redeliveries_total", "default") == 0
    assert value("workloads_finished_total", "default", "success") == 1
    assert value("pickup_seconds_count") == 1
    assert value("run_seconds_count", "default") == 1
    assert value("queue_wait_seconds_count", "default") == 1
    assert 100 <= value("queue_wait_seconds_sum", "default") < 200
    assert value("report_seconds_count") == 3  # claimed, running, success


async def test_a_probe_is_no_workload(worker_stage: WorkerStage, port: int) -> None:
    worker = await worker_stage.start()
    worker_stage.says(State.DROPPED, dispatch_id="probe-1", kind=Kind.PROBE, key=[])
    worker_stage.send(
        Workload(
            dispatch_id="probe-1", queue="default", kind=Kind.PROBE, body={}, key=[], sender="s"
        )
    )
    await wait_until(lambda: worker_stage.pool.probes, 5, "its process")
    run = worker_stage.pool.probes[0]
    worker_stage.pool.runs[run.id] = run

    assert await count(port, "workloads_running") == 0
    assert await count(port, "slots_in_use") == 1
    run.begin()
    run.finish()
    del worker_stage.pool.runs[run.id]
    await worker_stage.done("probe-1")
    await worker_stage.idle(worker)

    assert await count(port, "deliveries_total", "default") == 0
    assert await count(port, "workloads_finished_total", "default", "success") == 0
    assert await count(port, "report_seconds_count") == 0


@pytest.mark.parametrize(
    ("ending", "facts", "state"),
    [
        (Ending.FINISHED, {"exit_code": 1}, "failed"),
        (Ending.STALE, {"previous_state": "success"}, "dropped"),
    ],
)
async def test_what_is_over_is_counted_as_reported(
    worker_stage: WorkerStage, port: int, ending: Ending, facts: dict[str, object], state: str
) -> None:
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish(ending, **facts)
    await worker_stage.done()

    assert await count(port, "workloads_finished_total", "default", state) == 1
    assert await count(port, "workloads_finished_total", "default", "success") == 0


async def test_what_goes_back_is_not_counted_as_over(worker_stage: WorkerStage, port: int) -> None:
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish(Ending.UNREACHABLE, info="refused")
    await worker_stage.reported(State.RELEASED)
    worker_stage.send(dispatch_id="d2", body={"token": token(-5), "ti": {"id": "d2"}})
    await worker_stage.reported(State.EXPIRED, "d2")

    await worker_stage.counted("nak", 2)
    found = await samples(port)

    for state in ("released", "expired"):
        assert found[f"{PREFIX}workloads_returned_total", ("default", state)] == 1
    for state in ("success", "failed", "dropped"):
        assert found[f"{PREFIX}workloads_finished_total", ("default", state)] == 0


async def test_the_failure_of_a_dead_workers_task_is_counted_where_it_is_reported(
    worker_stage: WorkerStage, port: int
) -> None:
    await worker_stage.start()
    worker_stage.says(State.RUNNING)
    worker_stage.send()
    await worker_stage.done()

    assert await count(port, "workloads_finished_total", "default", "failed") == 1


async def test_a_delivery_of_what_is_here_already_is_a_redelivery(
    worker_stage: WorkerStage, port: int
) -> None:
    worker = await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    worker_stage.server.advance(worker_stage.settings.ack_wait_seconds + 1)

    async def is_counted() -> bool:
        return await count(port, "redeliveries_total", "default") == 1

    await wait_until(is_counted, 5, "the redelivery to be counted")
    assert await count(port, "deliveries_total", "default") == 2
    run.finish()
    await worker_stage.done()
    await worker_stage.idle(worker)
    assert await count(port, "workloads_finished_total", "default", "success") == 1


async def test_a_dead_letter_is_counted_once_it_is_set_aside(
    worker_stage: WorkerStage, port: int
) -> None:
    await worker_stage.start()
    worker_stage.put(b"no message")
    await worker_stage.done()

    assert len(worker_stage.dead_letters()) == 1
    assert await count(port, "dead_letters_total", "default") == 1
    assert await count(port, "workloads_finished_total", "default", "failed") == 1


async def test_the_gauges_show_the_worker_of_this_moment(
    worker_stage: WorkerStage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TICK_SECONDS", 0.01)
    worker = await worker_stage.start(queues=("default", "heavy"), concurrency=3)
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)

    found = await samples(port)

    expected = {
        "live": 1, "ready": 1, "connected": 1, "draining": 0, "paused": 0, "slots": 3,
        "slots_in_use": 1, "queues": 2, "reconnects_total": 0,
    }  # fmt: skip
    assert {name: found[PREFIX + name, ()] for name in expected} == expected
    assert found[f"{PREFIX}info", ("me", "1")] == 1
    assert 0 < found[f"{PREFIX}memory_used_ratio", ()] < 1
    assert {key[1] for key in found if key[0] == f"{PREFIX}pull_silence_seconds"} == {
        ("default",),
        ("heavy",),
    }
    run.finish()
    await worker_stage.done()
    await reconnect(worker_stage, worker)

    async def is_counted() -> bool:
        return await count(port, "reconnects_total") == 1

    await wait_until(is_counted, 5, "the reconnect to be counted")


async def test_zygotes_are_counted(worker_stage: WorkerStage, port: int) -> None:
    worker = await worker_stage.start()
    before = await samples(port)
    assert worker.health.pool is not None
    for ready, built, starts, refused in (
        (0, 0, 0, ["clock", "log"]),
        (1, 1, 0, []),
        (1, 0, 1, []),
    ):
        counts = {"ready": ready, "built": built, "starts": starts, "refused": refused}
        worker.health.pool.on_event({"event": "zygotes", "id": ""} | counts)

    found = await samples(port)

    expected = {
        ("zygotes", ()): 1,
        ("zygote_starts_total", ()): 1,
        ("zygote_refusals_total", ("clock",)): 1,
        ("zygote_refusals_total", ("log",)): 1,
        ("zygote_refusals_total", ("thread",)): 0,
    }
    assert {key: found[PREFIX + key[0], key[1]] for key in expected} == expected
    assert all(before[PREFIX + key[0], key[1]] == 0 for key in expected)


async def reconnect(worker_stage: WorkerStage, worker: Worker) -> None:
    """Break a worker's connection, long enough for it to be seen."""
    link = worker_stage.link_of(worker)
    link.disconnect()
    await wait_until(lambda: not worker.health.is_connected, 5, "the connection to end")
    worker_stage.server.monotonic = time.monotonic
    link.reconnect()
