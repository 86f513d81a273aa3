"""Says why no worker has ended a probe in time, with what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.fleet.queues import until_in_words
from nats_executor.fleet.workers import serving, worker_state
from nats_executor.text import number_of, presentable
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import as_argument, as_text, remedy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.fleet.presences import Seen
    from nats_executor.settings import Settings

__all__ = ["UnendedProbe", "in_probe_words", "nothing_known"]

NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class UnendedProbe:
    """A probe without an end.

    Attributes:
        seconds: how long it was waited for.
        claimant: the worker that has claimed it, '' if none has.
        was_there: whether its message was in the queue until it was taken back.
        paused_until: of its consumer, 0 while it is not paused.
        workers: those whose records name its queue.
        version: of this executor.
    """

    lane: Lane
    seconds: float
    claimant: str
    was_there: bool
    paused_until: float
    workers: Sequence[Seen]
    version: str


def nothing_known(queue: str, known: Sequence[str]) -> str:
    """Return why no probe is sent to a queue that has neither a consumer nor a worker."""
    there = as_text([presentable(name) for name in known[:NAMED_AT_MOST]]) or "none"
    return (
        f"queue {queue!r} never had a task, and no worker serves it (queues with tasks: {there}); "
        f"check its name, or run: {remedy(Lane(queue), has_workers=False)}"
    )


def in_probe_words(silence: UnendedProbe, settings: Settings) -> str:
    """Return the first cause that fits, with its remedy."""
    queue, within = silence.lane.queue, f"within {silence.seconds:g} s"
    here = serving(list(silence.workers), silence.lane, settings)
    if silence.claimant:
        name = presentable(silence.claimant)
        return f"worker {name} has claimed it, and not ended it {within}: look into its log"
    if not silence.was_there:
        return taken_by_others(silence)
    if silence.paused_until:
        resume = f"airflow nats queues resume {as_argument(as_text([queue]))}"
        until = until_in_words(silence.paused_until)
        return f"queue {queue!r} is paused {until}; run: {resume}"
    if not here:
        return unserved(silence, settings)
    return left_there(here, queue, within)


def left_there(here: Sequence[Seen], queue: str, within: str) -> str:
    """Say why none of the workers that serve it has taken it."""
    paused = [seen for seen in here if seen.presence.paused]
    if len(paused) == len(here):
        why = presentable(paused[0].presence.paused)
        return f"{in_names(here)} of queue {queue!r} took nothing {within}: {why}"
    used = sum(seen.presence.running for seen in here)
    slots = sum(seen.presence.concurrency for seen in here)
    if used >= slots:
        return (
            f"{in_names(here)} of queue {queue!r} had no free slot {within} ({used} of {slots} in "
            "use): wait for tasks to end, or start another worker"
        )
    return f"{in_names(here)} of queue {queue!r} did not take it {within}; run: airflow nats check"


def taken_by_others(silence: UnendedProbe) -> str:
    """Say that a worker has acked it without a claim, as those of an earlier release do."""
    others = [s for s in silence.workers if s.presence.version != silence.version]
    versions = ", ".join(sorted({presentable(s.presence.version) for s in others})) or "unknown"
    who = in_names(others) if others else "a worker"
    return f"{who} took it and knows no probes (release {versions}); update the workers"


def unserved(silence: UnendedProbe, settings: Settings) -> str:
    queue = silence.lane.queue
    states = sorted(
        f"{presentable(seen.presence.name)} is {worker_state(seen, settings)}"
        for seen in silence.workers
    )
    lowest = serving(list(silence.workers), Lane(queue), settings)
    why = "" if lowest or not states else f" ({', '.join(states[:NAMED_AT_MOST])})"
    advice = remedy(silence.lane, has_workers=bool(lowest))
    run = "" if lowest else "run: "
    return f"no worker takes workloads of {silence.lane}{why}; {run}{advice}"


def in_names(workers: Sequence[Seen]) -> str:
    """Name a few workers, or count many."""
    names = sorted({presentable(seen.presence.name) for seen in workers})
    if len(names) > NAMED_AT_MOST:
        return f"the {number_of(len(names), 'worker')}"
    return f"worker{'s' if len(names) > 1 else ''} {', '.join(names)}"
