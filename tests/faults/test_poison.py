"""A workload that kills every worker that takes it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from nats_executor.messages import State, Workload, decode
from tests.support.waiting import wait_until
from tests.support.worker_ground import task_body

if TYPE_CHECKING:
    from pathlib import Path

    from nats_executor.link import Answer
    from tests.faults.ground import Ground

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]

MAX_ATTEMPTS = 3


async def dead_letter(ground: Ground, task: str) -> Answer:
    """Return the dead letter of a task with its headers."""
    names, broker = ground.settings.names, ground.post.broker
    subject = names.dead_letter("default", task)
    await wait_until(lambda: broker.last(names.dead_letters_stream, subject), 30, "the dead letter")
    return await ground.ask(f"$JS.API.DIRECT.GET.{names.dead_letters_stream}.{subject}")


async def test_a_workload_that_kills_its_worker_every_time(ground: Ground, traps: Path) -> None:
    """It is set aside with its history after `max_attempts`; the queue behind it flows."""
    poison = str(uuid.uuid4())
    for number in range(MAX_ATTEMPTS):
        (traps / f"{poison}.claimed.{number}").touch()
    workers = [
        ground.launch_trapped("-c", "1", name=f"w{number}", max_attempts=MAX_ATTEMPTS)
        for number in range(1, MAX_ATTEMPTS + 2)
    ]
    for worker in workers:
        await worker.said("is ready")

    await ground.post.send(task_body("succeed", poison), poison)
    healthy = await ground.send("succeed")
    report = await ground.failed(poison)

    [survivor] = [worker for worker in workers if worker.process.poll() is None]
    victims = [worker.name for worker in workers if worker is not survivor]
    assert f"it was claimed {MAX_ATTEMPTS} times and never started" in report.info
    assert report.worker_name == survivor.name
    assert ground.starts(poison) == 0
    letter = await dead_letter(ground, poison)
    assert decode(Workload, letter.data).dispatch_id == poison
    reason = (letter.headers or {})["Airflow-Reason"]
    assert f"it was claimed {MAX_ATTEMPTS} times" in reason
    assert all(name in reason for name in victims), reason
    assert ground.states(poison).count(State.CLAIMED) == MAX_ATTEMPTS

    await ground.succeeded(healthy)
    await ground.works()
