"""A connection that a server resets while something is still unsent."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.contract.stage import RealStage

pytestmark = pytest.mark.anyio

# More than the buffers of a socket on loopback take from a server that does not read.
PUBLISHES, SIZE = 60, 500_000


def readers() -> list[asyncio.Task[Any]]:
    """The tasks in which nats-py waits for a subscription's messages."""
    return [task for task in asyncio.all_tasks() if "_wait_for_msgs" in repr(task.get_coro())]


def unsent(stage: RealStage) -> int:
    """How many bytes nats-py holds back; it has no name for that."""
    return int(stage.broker._link._client._pending_data_size)  # type: ignore[attr-defined]


async def test_nothing_of_it_stays_behind(
    real_stage: RealStage, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py's own closing ends at the error, before it has ended the subscriptions."""
    stage = real_stage
    before = len(readers())
    assert before
    stage.server.pause()
    subject = stage.names.task("default", "d1")
    sending = [
        asyncio.create_task(stage.broker.publish(subject, bytes(SIZE))) for _ in range(PUBLISHES)
    ]
    await wait_until(lambda: unsent(stage) > 0, 10, "something that stays unsent")

    await stage.stop_server(hard=True)
    await stage.start_server()
    await asyncio.gather(*sending, return_exceptions=True)

    assert len(readers()) == before
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert "destroyed" not in caplog.text
