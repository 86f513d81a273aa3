"""Streams that are almost full, and the queue that fills each."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from nats_executor.broker.port import StreamInfo, Usage
from nats_executor.errors import AccessDenied
from nats_executor.operations.survey import Survey, take_survey
from nats_executor.topology import setup
from nats_executor.topology.storage import (
    account_findings,
    busiest_queue,
    is_crowded,
    megabytes,
    stream_finding,
)
from nats_executor.wire.names import Lane, Names
from tests.support.fake_broker import FakeBroker, FakeServer
from tests.support.fixtures import settings_for

NAMES = Names()
INFO = StreamInfo(NAMES.results_stream, 9, 900_000, 9, 0.0, 0.0, max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("info", "is_full"),
    [
        (INFO, True),
        (replace(INFO, bytes=800_000), False),
        (replace(INFO, bytes=1, max_bytes=1), True),
        (replace(INFO, max_bytes=0), False),
        (replace(INFO, max_bytes=-1), False),
        (replace(INFO, name=NAMES.logs_stream), False),
    ],
)
def test_a_stream_is_worth_a_word_above_four_fifths_of_its_size(
    info: StreamInfo, is_full: bool
) -> None:
    """Except the bucket of logs, which is full as a rule, and drops the oldest."""
    assert is_crowded(info, NAMES) is is_full


def test_the_busiest_queue_goes_by_its_own_name_and_all_its_bands() -> None:
    messages = {NAMES.task("a", "1"): 2}
    messages |= {NAMES.task("gro\xdfe", str(n), band=n % 3): 1 for n in range(5)}

    told = busiest_queue(messages, ["a", "gro\xdfe"], NAMES)
    assert told == "queue gro\xdfe has 5 of 7 messages"
    assert busiest_queue({}, [], NAMES) == ""
    assert busiest_queue({"x": 1}, [], NAMES) == "queue  has 1 of 1 message"
    assert Lane("gro\xdfe", 1).token.endswith("--b1")


def test_a_full_stream_is_a_line_with_its_remedy() -> None:
    row = stream_finding(INFO, "queue a has 8 of 9 messages", NAMES)

    assert row["details"].startswith("0.9 MB of 1.0 MB are used (90%); queue a has 8 of 9 messages")
    assert "max_results_bytes" in row["details"]


def test_an_account_counts_every_replica() -> None:
    streams = [replace(INFO, replicas=3), replace(INFO, name="S", bytes=1)]

    assert account_findings(Usage(80, 100), streams) == []
    assert account_findings(Usage(10**9), streams) == []
    assert account_findings(Usage(10**9, 0), streams) == []
    assert account_findings(Usage(1, 1), streams) != []
    assert account_findings(None, streams) == []
    (row,) = account_findings(Usage(2_900_000, 3_000_000), streams)
    assert "2.9 MB of 3.0 MB are used (97%)" in row["details"]
    assert f"2.7 MB of that is stream {NAMES.results_stream}" in row["details"]
    (row,) = account_findings(
        Usage(9, 10), [replace(INFO, bytes=2, replicas=5, name="L"), *streams[1:]]
    )
    assert "is stream L;" in row["details"]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0.0 MB"), (149_999, "0.1 MB"), (150_001, "0.2 MB"), (10**12, "1000000.0 MB")],
)
def test_a_size_is_told_in_millions_of_bytes(number: int, shown: str) -> None:
    assert megabytes(number) == shown


async def survey_of(server: FakeServer, broker: FakeBroker) -> Survey:
    settings = settings_for("nats://127.0.0.1:4222")
    await setup.apply(server.broker(), settings, ["a"])
    return await take_survey(broker, settings)


def test_a_user_of_the_release_before_may_look_at_all_but_the_account() -> None:
    server = FakeServer()
    broker = server.broker()
    broker.fail_next("usage", error=AccessDenied("not allowed"))

    survey = asyncio.run(survey_of(server, broker))

    assert survey.usage is None
    assert survey.drifts == []
    assert asyncio.run(survey_of(server, server.broker())).usage == Usage(0)
