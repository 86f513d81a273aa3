"""An observer of a delivery is told of its steps in their order; there may be none."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from nats_executor.wire.messages import State
from nats_worker import worker as worker_module
from nats_worker.delivery.observer import Observer, unobserved
from nats_worker.health import health
from nats_worker.health.endpoint import endpoint
from nats_worker.worker import Worker
from tests.support.worker_stage import WorkerStage, worker_stage_fixture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats_executor.broker.port import Delivery

__all__ = ["worker_stage_fixture"]

pytestmark = pytest.mark.anyio


class Notebook(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def claimed(self, *, is_first: bool) -> None:
        self.lines.append("claimed first" if is_first else "claimed")

    def started(self) -> None:
        self.lines.append("started")

    def exited(self) -> None:
        self.lines.append("exited")

    def confirmed(self, seconds: float) -> None:
        assert seconds >= 0
        self.lines.append("confirmed")

    def reported(self, state: State) -> None:
        self.lines.append(f"reported {state}")

    def buried(self) -> None:
        self.lines.append("buried")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """Have each delivery observed by the same notebook."""
    made = Notebook()

    @contextlib.asynccontextmanager
    async def observing(*_: object) -> AsyncIterator[Callable[[str, Delivery], Observer]]:
        yield lambda *_: made

    monkeypatch.setattr(worker_module, "endpoint", observing)
    return made


async def test_each_step_of_a_delivery_is_told(
    worker_stage: WorkerStage, notebook: Notebook
) -> None:
    await worker_stage.start()
    worker_stage.send()
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    run.finish()
    await worker_stage.done()

    assert notebook.lines == [
        "confirmed", "claimed first", "started", "confirmed", "exited", "confirmed",
        "reported success",
    ]  # fmt: skip


async def test_a_later_claim_is_not_the_first(
    worker_stage: WorkerStage, notebook: Notebook
) -> None:
    worker_stage.says(State.RELEASED, attempt=1)
    await worker_stage.start()
    worker_stage.send()
    (await worker_stage.pool.run()).finish()
    await worker_stage.done()

    assert notebook.lines[:2] == ["confirmed", "claimed"]


async def test_a_report_in_a_dead_workers_place_is_told(
    worker_stage: WorkerStage, notebook: Notebook
) -> None:
    worker_stage.says(State.RUNNING)
    await worker_stage.start()
    worker_stage.send()
    await worker_stage.done()

    assert notebook.lines == ["confirmed", "reported failed"]


async def test_a_burial_is_told(worker_stage: WorkerStage, notebook: Notebook) -> None:
    await worker_stage.start()
    worker_stage.put(b"no message")
    await worker_stage.done()

    assert notebook.lines[-2:] == ["reported failed", "buried"]


async def test_without_a_port_no_delivery_is_observed(worker_stage: WorkerStage) -> None:
    worker = Worker(worker_stage.settings, worker_stage.launch().state.plan)
    async with endpoint(worker.state, health.Health(worker.state)) as observer:
        assert observer is unobserved
