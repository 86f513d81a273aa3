"""The bounds of what a message may hold, each from both sides, and what a field starts with."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.messages import (
    Drain,
    Hold,
    Obeyed,
    Presence,
    Report,
    ShutDown,
    State,
    Workload,
    as_map,
    decode,
    token_expiry,
)

REPORT = Report(
    dispatch_id="d", queue="q", state=State.CLAIMED, kind="k", key=[], worker="w.1", worker_name="w"
)
PRESENCE = Presence(
    worker="w.1",
    name="w",
    host="h",
    pid=1,
    queues=[],
    concurrency=1,
    running=0,
    draining=False,
    started_at=0.0,
    at=0.0,
    version="1",
)
REQUIRED = ("dispatch_id", "queue", "state", "kind", "key", "worker", "worker_name")


def read(message: Any, **changes: Any) -> Any:
    return decode(type(message), msgpack.packb({**as_map(message), **changes}))


@pytest.mark.parametrize("name", ["attempt", "generation", "pid"])
@pytest.mark.parametrize("count", [0, 1, 9_007_199_254_740_991, 9_007_199_254_740_992])
def test_a_count_up_to_2_to_the_53_is_read(name: str, count: int) -> None:
    assert getattr(read(REPORT, **{name: count}), name) == count


@pytest.mark.parametrize("name", ["attempt", "generation", "pid"])
@pytest.mark.parametrize("count", [-1, 9_007_199_254_740_993, 2**63])
def test_any_other_count_is_refused(name: str, count: int) -> None:
    with pytest.raises(DecodeError, match=f"{count} is not between 0 and 9007199254740992"):
        read(REPORT, **{name: count})


@pytest.mark.parametrize("kind", [REPORT, PRESENCE])
def test_a_list_has_at_most_a_thousand_entries(kind: Report | Presence) -> None:
    name = "predecessors" if kind is REPORT else "lacks"

    assert len(getattr(read(kind, **{name: ["a"] * 1000}), name)) == 1000
    with pytest.raises(DecodeError, match="more than 1000 entries"):
        read(kind, **{name: ["a"] * 1001})
    with pytest.raises(DecodeError, match="not a list of texts"):
        read(kind, **{name: ["a", 1]})


def test_the_parts_of_a_key_may_be_anything() -> None:
    assert read(REPORT, key=["dag", 1, None]).key == ["dag", 1, None]


def token_of(length: int) -> str:
    """Make a token of a length, which ends at 12."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 12}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.".ljust(length, "s")


def test_the_expiry_of_a_token_is_read_up_to_64_kib() -> None:
    assert token_expiry(token_of(65_536)) == 12.0
    assert token_expiry(token_of(65_537)) is None


@pytest.mark.parametrize("spaces", range(4))
def test_a_payload_of_any_length_is_read(spaces: int) -> None:
    """Base64 comes in groups of four, whose filling a token leaves out."""
    raw = b'{"exp": 12}' + b" " * spaces
    payload = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    assert token_expiry(f"e30.{payload}.s") == 12.0


def test_a_loss_names_the_process_if_there_was_one() -> None:
    assert REPORT.loss == "worker w lost"
    assert read(REPORT, pid=7).loss == "worker w lost while it ran process 7"


def test_a_field_that_an_older_sender_left_out_has_its_meaning_of_then() -> None:
    assert {n: v for n, v in as_map(REPORT).items() if n not in REQUIRED} == {
        "v": 1,
        "sender": "",
        "attempt": 1,
        "predecessors": [],
        "generation": 0,
        "info": "",
        "pid": 0,
        "at": 0.0,
        "token": "",
        "hops": [],
    }
    assert (PRESENCE.bands, PRESENCE.paused, PRESENCE.lacks) == (1, "", [])
    assert (PRESENCE.drained_by, PRESENCE.drain_reason) == ("", "")
    assert (PRESENCE.airflow, PRESENCE.python) == ("", "")
    outcome = Obeyed(queues=[], concurrency=1, running=0)
    assert (outcome.is_changed, outcome.refusal) == (False, "")
    assert Hold(queue="q", by="ann", at=1.0, until=2.0).reason == ""
    order = ShutDown(by="ann")
    assert (order.reason, order.is_now) == ("", False)
    assert Drain(worker="w", by="ann", at=1.0).reason == ""
    workload = Workload(dispatch_id="d", queue="q", kind="k", body={}, key=[], sender="s")
    assert workload.sent_at == 0.0


def test_only_claimed_and_running_is_held() -> None:
    assert {state for state in State if state.is_held} == {State.CLAIMED, State.RUNNING}
