"""A workload that kills every worker that takes it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from nats_executor.wire.messages import Kind, State, Workload, as_map, decode
from tests.remedies.lines import LINES
from tests.support.process_stage import task_body
from tests.support.strange_messages import nested
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from nats_executor.broker.link import Received
    from tests.faults.stage import FaultStage

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]

MAX_ATTEMPTS = 3


async def dead_letter(stage: FaultStage, task: str) -> Received:
    """Return the dead letter of a task with its headers."""
    names, broker = stage.settings.names, stage.post.broker
    subject = names.dead_letter("default", task)
    await wait_until(lambda: broker.last(names.dead_letters_stream, subject), 30, "the dead letter")
    return await stage.ask(f"$JS.API.DIRECT.GET.{names.dead_letters_stream}.{subject}")


@pytest.mark.parametrize("weighs", [False, True], ids=["plain", "pool_slots_as_weight"])
async def test_a_message_nested_too_deep_is_a_dead_letter(
    stage: FaultStage, *, weighs: bool
) -> None:
    """With weights it ended every worker that pulled it; without them it came again for ever."""
    worker = await stage.start("-c", "2", pool_slots_as_weight=weighs)
    names, broker = stage.settings.names, stage.post.broker
    poison = {part: str(uuid.uuid4()) for part in ("key", "body")}
    for part, dispatch_id in poison.items():
        workload = Workload(
            dispatch_id=dispatch_id, queue="default", kind=Kind.TASK, body={}, key=[], sender="evil"
        )  # fmt: skip
        value = nested(1000) if part == "key" else {"ti": nested(500)}
        body = msgpack.packb(as_map(workload) | {part: []}).replace(
            msgpack.packb(part) + b"\x90", msgpack.packb(part) + packed(value)
        )
        await broker.publish(names.task("default", dispatch_id), body)
    healthy = await stage.send("succeed")

    for dispatch_id in poison.values():
        report = await stage.failed(dispatch_id)
        assert report.info == LINES["dead letter"]
        letter = await dead_letter(stage, dispatch_id)
        assert (letter.headers or {})["Airflow-Reason"] == "nested deeper than 100 levels"
        await wait_until(lambda d=dispatch_id: stage.post.is_acked(d), 10, "it to be gone")  # type: ignore[misc]
    await stage.succeeded(healthy)
    assert worker.process.poll() is None
    await stage.works()


def packed(value: Any) -> bytes:
    """Write what msgpack's own limits would not let out."""
    if isinstance(value, dict):
        inner = b"".join(msgpack.packb(k) + packed(v) for k, v in value.items())
        return bytes([0x80 + len(value)]) + inner
    depth = 0
    while value:
        depth, [value] = depth + 1, value
    return b"\x91" * depth + b"\x90"


async def test_a_workload_that_kills_its_worker_every_time(stage: FaultStage, traps: Path) -> None:
    """It is set aside with its history after `max_attempts`; the queue behind it flows."""
    poison = str(uuid.uuid4())
    for number in range(MAX_ATTEMPTS):
        (traps / f"{poison}.claimed.{number}").touch()
    workers = [
        stage.launch_trapped("-c", "1", name=f"w{number}", max_attempts=MAX_ATTEMPTS)
        for number in range(1, MAX_ATTEMPTS + 2)
    ]
    for worker in workers:
        await worker.said("is ready")

    await stage.post.send(task_body("succeed", poison), poison)
    healthy = await stage.send("succeed")
    report = await stage.failed(poison)

    [survivor] = [worker for worker in workers if worker.process.poll() is None]
    victims = [worker.name for worker in workers if worker is not survivor]
    assert f"it was claimed {MAX_ATTEMPTS} times and never started" in report.info
    assert report.worker_name == survivor.name
    assert stage.starts(poison) == 0
    letter = await dead_letter(stage, poison)
    assert decode(Workload, letter.data).dispatch_id == poison
    reason = (letter.headers or {})["Airflow-Reason"]
    assert f"it was claimed {MAX_ATTEMPTS} times" in reason
    assert all(name in reason for name in victims), reason
    assert stage.states(poison).count(State.CLAIMED) == MAX_ATTEMPTS

    await stage.succeeded(healthy)
    await stage.works()
