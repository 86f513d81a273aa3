"""Leases: renewed while they last, one for each dispatch, ended by who holds them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from nats_executor.errors import BrokerUnavailable
from nats_worker.delivery.leases import Leases
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import Delivery

pytestmark = pytest.mark.anyio


class Renewable:
    """A delivery that counts its renewals, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.renewals = 0
        self.failures = failures
        self.handled: list[float | str] = []

    async def in_progress(self) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")
        self.renewals += 1

    async def ack(self) -> None:
        self.handled.append("ack")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        self.handled.append(delay_seconds)


def delivery(failures: int = 0) -> tuple[Delivery, Renewable]:
    made = Renewable(failures)
    return cast("Delivery", made), made


@pytest.fixture
async def leases() -> AsyncIterator[Leases]:
    leases = Leases(0.03)
    renewing = asyncio.create_task(leases.renew_forever())
    yield leases
    assert not renewing.done()
    renewing.cancel()


async def test_what_is_held_is_renewed(leases: Leases) -> None:
    first, renewed = delivery()
    lease = leases.hold("d1", first)
    await wait_until(lambda: renewed.renewals > 2, 5, "renewals")

    leases.drop(lease)
    renewed.renewals = 0
    second, control = delivery()
    leases.hold("d2", second)
    await wait_until(lambda: control.renewals > 2, 5, "renewals of another one")

    assert renewed.renewals == 0
    assert "d1" not in leases
    assert len(leases) == 1


async def test_a_lease_is_renewed_again_when_the_broker_is_back(leases: Leases) -> None:
    made, renewed = delivery(failures=3)
    leases.hold("d1", made)

    await wait_until(lambda: renewed.renewals, 5, "a renewal")


async def test_the_newest_delivery_is_renewed_and_acked(leases: Leases) -> None:
    old, renewed_before = delivery()
    new, renewed = delivery()
    lease = leases.hold("d1", old)
    leases.replace("d1", new)
    await wait_until(lambda: renewed.renewals, 5, "a renewal")

    await lease.nak(2.0)
    await lease.ack()

    assert renewed.handled == [2.0, "ack"]
    assert renewed_before.handled == []


async def test_a_lease_is_ended_by_its_holder_only() -> None:
    """A workload that went back to the queue may be here again before it is quite let go."""
    leases = Leases(30)
    before = leases.hold("d1", delivery()[0])
    now = leases.hold("d1", delivery()[0])

    leases.drop(before)
    assert "d1" in leases

    leases.drop(now)
    assert "d1" not in leases


async def test_a_lease_has_two_renewals_to_spare() -> None:
    assert Leases(30.0)._interval == 10.0


async def test_an_ack_goes_when_its_message_may_leave_the_stream() -> None:
    gate = asyncio.Event()
    made, renewed = delivery()

    async def pass_gate() -> None:
        await gate.wait()

    lease = Leases(30.0, pass_gate).hold("d1", made)
    acking = asyncio.create_task(lease.ack())
    await lease.nak(1.0)
    assert renewed.handled == [1.0]

    gate.set()
    await acking

    assert renewed.handled == [1.0, "ack"]


async def test_a_message_is_acked_only_once_the_next_workload_was_asked_for() -> None:
    """Else the server counts all that wait; a message that goes back need not wait."""
    one, seen = delivery()

    async def ask() -> None:
        seen.handled.append("asked")

    lease = Leases(30.0, ask).hold("d1", one)
    await lease.ack()
    await lease.nak(2.0)

    assert seen.handled == ["asked", "ack", 2.0]
