"""Many queues are dealt with beside each other: bounded, in order, whatever one of them meets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from nats_executor.errors import BrokerUnavailable, LimitReached, TopologyMismatch
from nats_executor.topology.setup import apply, inspect
from nats_executor.topology.several import QUEUES_AT_ONCE, Outcomes, for_several
from nats_executor.wire.names import Lane
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUES = [f"q{number:02}" for number in range(3 * QUEUES_AT_ONCE)]
SETTINGS = settings_for("nats://127.0.0.1:4222")


class Server:
    """Answers each queue after some turns of the loop, the later ones sooner."""

    def __init__(self, errors: dict[str, Exception] | None = None) -> None:
        self.errors = errors or {}
        self.begun: list[str] = []
        self.busy = 0
        self.most = 0

    async def act(self, queue: str) -> str:
        self.begun.append(queue)
        self.busy += 1
        self.most = max(self.most, self.busy)
        for _ in range(len(QUEUES) - len(self.begun) + 1):
            await asyncio.sleep(0)
        self.busy -= 1
        if queue in self.errors:
            raise self.errors[queue]
        return queue.upper()

    def outcomes(self, queues: Sequence[str] = QUEUES) -> Outcomes[str]:
        return asyncio.run(for_several(queues, self.act))


def test_as_many_as_allowed_at_a_time_and_the_results_in_order() -> None:
    server = Server()

    assert server.outcomes().required() == [queue.upper() for queue in QUEUES]
    assert server.most == QUEUES_AT_ONCE == 16  # measured: `make bench ARGS="--only queues_300_r3"`
    assert server.begun == QUEUES


@pytest.mark.parametrize("queues", [[], ["a"], ["a", "b"]])
def test_a_few_queues_are_begun_together(queues: list[str]) -> None:
    server = Server()

    assert list(server.outcomes(queues).done) == queues
    assert server.most == len(queues)


def test_a_queue_that_is_named_twice_is_one_queue() -> None:
    server = Server()

    assert server.outcomes(["b", "a", "b"]).required() == ["B", "A"]
    assert server.begun == ["b", "a"]


def test_a_queue_that_is_refused_holds_up_no_other_and_the_first_one_is_told() -> None:
    refusals = {QUEUES[30]: LimitReached("30"), QUEUES[2]: TopologyMismatch("2")}
    outcomes = Server(dict(refusals)).outcomes()

    assert list(outcomes.refused) == [QUEUES[2], QUEUES[30]]
    assert list(outcomes.done) == [queue for queue in QUEUES if queue not in refusals]
    with pytest.raises(TopologyMismatch, match="2"):
        outcomes.required()


def test_refusals_of_all_queues_end_nothing_early() -> None:
    server = Server({queue: LimitReached(queue) for queue in QUEUES})

    assert list(server.outcomes().refused) == QUEUES


def test_silence_is_waited_for_once_and_not_for_each_queue() -> None:
    server = Server({queue: BrokerUnavailable(queue) for queue in QUEUES})
    outcomes = server.outcomes()

    assert server.begun == QUEUES[:QUEUES_AT_ONCE]
    assert list(outcomes.refused) == QUEUES[:QUEUES_AT_ONCE]
    with pytest.raises(BrokerUnavailable, match=QUEUES[0]):
        outcomes.required()


def test_one_answer_that_never_comes_leaves_the_other_queues_their_turn() -> None:
    server = Server({QUEUES[0]: BrokerUnavailable("lost")})

    assert list(server.outcomes().done) == QUEUES[1:]


def test_setup_makes_the_other_queues_although_one_is_refused() -> None:
    broker = FakeBroker()
    broker.fail_next("create_consumer", 1, LimitReached("no more"))

    with pytest.raises(LimitReached, match="no more"):
        asyncio.run(apply(broker, SETTINGS, QUEUES))

    missing = asyncio.run(inspect(broker, SETTINGS, QUEUES))
    consumer = SETTINGS.lanes(QUEUES[0])
    assert [drift.where for drift in missing] == [f"consumer of {lane}" for lane in consumer]
    assert isinstance(consumer[0], Lane)


def test_a_difference_that_cannot_be_changed_changes_no_queue() -> None:
    broker = FakeBroker()
    asyncio.run(apply(broker, SETTINGS, QUEUES[-1:]))
    names = SETTINGS.names
    last = broker.server.consumer(names.tasks_stream, names.consumer(QUEUES[-1]))
    last.config["ack_policy"] = "none"

    with pytest.raises(TopologyMismatch):
        asyncio.run(apply(broker, SETTINGS, QUEUES))

    assert asyncio.run(inspect(broker, SETTINGS, QUEUES[:1]))
