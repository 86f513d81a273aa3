"""Compares the workers that there are with those that `check` is told to expect. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.errors import ConfigError
from nats_executor.fleet.workers import serving, takes_workloads
from nats_executor.operations.survey import check_row
from nats_executor.text import number_of, presentable
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import in_text, remedy

if TYPE_CHECKING:
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.settings import Settings

__all__ = ["demand_rows", "demands_in", "with_demands"]


@dataclass(frozen=True, slots=True)
class Demands:
    """The workers that have to be there.

    Attributes:
        queues: each of them needs so many workers, or one; without any, all workers count.
    """

    queues: tuple[str, ...] = ()
    min_workers: int | None = None


def demands_in(queues: str | None, min_workers: int | None) -> Demands:
    """Read what a command line demands.

    Raises:
        ConfigError: it names no queue, as the empty variable of a script does.
    """
    names = tuple(in_text(queues or ""))
    if queues is not None and not names:
        raise ConfigError(f"--queues {queues!r}: name a queue, or leave --queues out")
    return Demands(names, min_workers)


def demand_rows(demands: Demands, workers: list[Seen], settings: Settings) -> list[Row]:
    """One row for each demand, whether it is met."""
    least = demands.min_workers or 1
    if demands.queues:
        return [queue_row(queue, least, workers, settings) for queue in demands.queues]
    if demands.min_workers is None:
        return []
    here = {s.presence.worker for s in workers if takes_workloads(s, settings)}
    status = "ok" if len(here) >= least else "too few"
    return [check_row("workers", status, f"{len(here)} of at least {number_of(least, 'worker')}")]


def queue_row(queue: str, least: int, workers: list[Seen], settings: Settings) -> Row:
    here = serving(workers, Lane(queue), settings)
    names = ", ".join(sorted(presentable(seen.presence.name) for seen in here))
    if len({seen.presence.worker for seen in here}) >= least:
        return check_row(f"queue {queue}", "ok", f"served by {names}")
    advice = remedy(Lane(queue), has_workers=False)
    if not here:
        return check_row(f"queue {queue}", "unserved", f"no worker; run: {advice}")
    details = f"served by {names} alone, of at least {number_of(least, 'worker')}; run: {advice}"
    return check_row(f"queue {queue}", "too few", details)


def with_demands(rows: list[Row], demanded: list[Row]) -> list[Row]:
    """Return both, of one thing the row that says more: a finding, and of two `ok` the first."""
    bad = {row["check"] for row in demanded if row["status"] != "ok"}
    kept = [row for row in rows if row["check"] not in bad or row["status"] != "ok"]
    known = {(row["check"], row["status"]) for row in kept}
    told = {row["check"] for row in kept}
    return kept + [
        row
        for row in demanded
        if (row["check"], row["status"]) not in known
        and (row["status"] != "ok" or row["check"] not in told)
    ]
