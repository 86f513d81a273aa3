"""Reports and records fit into their streams, whatever is in them, and stay what they are."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nats_executor.wire.fitting import fitted_presence, fitted_report
from nats_executor.wire.messages import Presence, Report, State, decode, encode
from nats_executor.wire.sizes import HEADERS_BYTES, PRESENCE_BYTES, REPORT_BYTES

LONG = st.sampled_from(["", "x", "x" * 4000, "\N{PILE OF POO}" * 10_000, "x" * 70_000])


def report(**changes: Any) -> Report:
    facts: dict[str, Any] = {
        "dispatch_id": "d1", "queue": "q", "state": State.FAILED, "kind": "ExecuteTask",
        "key": ["dag", "task"], "worker": "w.1", "worker_name": "w",
    }  # fmt: skip
    return Report(**(facts | changes))


def presence(**changes: Any) -> Presence:
    facts: dict[str, Any] = {
        "worker": "w.1", "name": "w", "host": "h", "pid": 7, "queues": ["q"], "concurrency": 2,
        "running": 0, "draining": False, "started_at": 0.0, "at": 0.0, "version": "1",
    }  # fmt: skip
    return Presence(**(facts | changes))


def test_what_fits_is_sent_as_it_is() -> None:
    usual = report(info="exit code 1 " * 300, predecessors=["w"] * 10, token="t" * 2000)
    record = presence(queues=[f"queue-{number}" for number in range(1000)])

    assert fitted_report(usual) == encode(usual)
    assert fitted_presence(record) == encode(record)


@given(info=LONG, worker=LONG, name=LONG, kind=LONG, sender=LONG, part=LONG, before=LONG)
def test_a_report_fits_and_still_tells_what_became_of_which_dispatch(
    info: str, worker: str, name: str, kind: str, sender: str, part: str, before: str
) -> None:
    """As one that answers a forged report would."""
    large = report(
        info=info, worker=worker, worker_name=name, kind=kind, sender=sender, key=[part],
        predecessors=[before] * 10, token="t" * 2000, attempt=3, generation=2,
    )  # fmt: skip
    body = fitted_report(large)

    assert len(body) <= REPORT_BYTES - HEADERS_BYTES
    found = decode(Report, body)
    kept = ("dispatch_id", "queue", "state", "token", "attempt", "generation")
    assert [getattr(found, n) for n in kept] == [getattr(large, n) for n in kept]
    assert large.info.startswith(found.info)


@given(st.lists(LONG, max_size=30), LONG, LONG, LONG, LONG)
def test_a_record_fits_and_lists_as_many_queues_as_it_can(
    queues: list[str], host: str, paused: str, by: str, reason: str
) -> None:
    large = presence(queues=queues, host=host, paused=paused, drained_by=by, drain_reason=reason)
    body = fitted_presence(large)

    assert len(body) <= PRESENCE_BYTES - HEADERS_BYTES
    found = decode(Presence, body)
    assert found.queues == queues[: len(found.queues)]
    assert (found.worker, found.concurrency) == ("w.1", 2)
    if found.queues != queues:
        left_out = queues[len(found.queues)]
        assert len(body) + len(left_out.encode()) + 5 > PRESENCE_BYTES - HEADERS_BYTES - 5 * 30
