"""How a stream gets the number of copies that it should have, from a server that is slow to say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nats_executor.errors import BrokerUnavailable
from nats_executor.topology.setup import COPY_ATTEMPTS, apply, ensure_copies
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for

STREAM: dict[str, Any] = {"name": "S", "subjects": ["s.>"]}


def broker_with(copies: int) -> FakeBroker:
    broker = FakeBroker()
    asyncio.run(broker.create_stream(STREAM))
    broker.server.stream("S").config["num_replicas"] = copies
    return broker


def copies_after(broker: FakeBroker, wanted: int) -> int:
    asyncio.run(ensure_copies(broker, STREAM | {"num_replicas": wanted}))
    copies: int = broker.server.stream("S").config["num_replicas"]
    return copies


@pytest.mark.parametrize(("there", "wanted"), [(1, 3), (3, 1), (3, 5), (5, 3)])
def test_there_are_as_many_as_wanted(there: int, wanted: int) -> None:
    assert copies_after(broker_with(there), wanted) == wanted


def test_nothing_is_changed_where_the_number_is_right() -> None:
    broker = broker_with(3)
    broker.fail_next("update_stream", COPY_ATTEMPTS)

    assert copies_after(broker, 3) == 3


def test_a_stream_that_is_gone_has_no_copies() -> None:
    asyncio.run(ensure_copies(FakeBroker(), STREAM | {"num_replicas": 3}))


@pytest.mark.parametrize("method", ["stream_config", "update_stream"])
def test_a_server_may_give_no_answer_five_times(method: str) -> None:
    broker = broker_with(1)
    broker.fail_next(method, 5)

    assert copies_after(broker, 3) == 3


def test_after_the_sixth_time_the_last_failure_is_told() -> None:
    broker = broker_with(1)
    broker.fail_next("update_stream", 5)
    broker.fail_next("update_stream", 1, BrokerUnavailable("the sixth"))

    with pytest.raises(BrokerUnavailable, match="the sixth"):
        copies_after(broker, 3)


def test_setup_brings_every_stream_to_the_number() -> None:
    broker, settings = FakeBroker(), settings_for("nats://127.0.0.1:4222")
    asyncio.run(apply(broker, settings, []))
    streams = broker.server.streams.values()
    for stream in streams:
        stream.config["num_replicas"] = 3

    asyncio.run(apply(broker, settings, []))

    assert {stream.config["num_replicas"] for stream in streams} == {1}
