"""Sums the consumers of each queue up in one row, for commands and for metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nats_executor.errors import NotFound
from nats_executor.fleet.holds import hold_of
from nats_executor.fleet.workers import serving
from nats_executor.text import presentable
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import as_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from nats_executor.broker.port import ConsumerInfo
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.rates import Rate
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Hold

__all__ = ["UNTIL_RESUMED", "Row", "by_queue", "queue_rows", "unknown_queue", "until_in_words"]

Row = dict[str, Any]

# NATS pauses until a time. This one, 2200-01-01, stands for none.
UNTIL_RESUMED = 7258118400.0


def queue_rows(
    consumers: Iterable[ConsumerInfo],
    seen: list[Seen],
    settings: Settings,
    holds: Collection[Hold] = (),
    *,
    served: Iterable[str] = (),
    rates: Mapping[str, Rate] | None = None,
) -> list[Row]:
    """Return a row for each queue in the words of NATS's consumer info, its bands together.

    Args:
        served: also these; before its first task a queue has no consumer.
        rates: by queue, as far as they are known.
    """
    rows = []
    known: dict[str, list[ConsumerInfo]] = {queue: [] for queue in served}
    for queue, bands in sorted((known | by_queue(consumers)).items()):
        workers = serving(seen, Lane(queue), settings)
        hold, rate = hold_of(queue, bands, holds), (rates or {}).get(queue)
        rows.append(
            {
                "queue": queue,
                "pending": sum(band.pending for band in bands),
                "pending_by_band": [band.pending for band in bands]
                or [0] * len(settings.lanes(queue)),
                "in_flight": sum(band.in_flight for band in bands),
                "in_per_s": rate.sent if rate else None,
                "out_per_s": rate.taken if rate else None,
                "redelivered": sum(band.redelivered for band in bands),
                "workers": len(workers),
                "slots": sum(worker.presence.concurrency for worker in workers),
                "paused_until": moment(max((band.paused_until for band in bands), default=0.0)),
                "paused_by": hold.by if hold else None,
                "reason": hold.reason if hold else None,
            }
        )
    return rows


def moment(at: float) -> str | None:
    """Write epoch seconds as a time, None for none."""
    if at >= UNTIL_RESUMED:
        return "resumed"
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else None


def until_in_words(at: float) -> str:
    """Say how long a pause lasts."""
    return "until it is resumed" if at >= UNTIL_RESUMED else f"until {moment(at)}"


def unknown_queue(queue: str, known: Iterable[str]) -> NotFound:
    """Return the error about a name that no queue has, with the names that there are."""
    there = as_text(map(presentable, known)) or "none"
    return NotFound(f"no queue is named {presentable(queue)!r}; there are: {there}")


def by_queue(consumers: Iterable[ConsumerInfo]) -> dict[str, list[ConsumerInfo]]:
    """Group consumers by their queue, the lowest band first."""
    ordered = sorted(consumers, key=lambda c: (c.queue, c.band))
    return {queue: list(bands) for queue, bands in groupby(ordered, key=lambda c: c.queue)}
