"""Chooses workers by what was typed: names, patterns as of a shell, a queue. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import NotFound
from nats_executor.fleet.workers import worker_state
from nats_executor.text import presentable
from nats_executor.wire.queue_names import as_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from nats_executor.fleet.presences import Seen
    from nats_executor.settings import Settings

__all__ = ["ALL", "Which", "current", "meant"]


class Which(NamedTuple):
    """The names or patterns that were typed, none for all, and a queue."""

    texts: Sequence[str]
    queue: str | None = None


ALL = Which(["*"])


def meant(which: Which, names: Collection[str]) -> list[str]:
    """Return the names that were meant, each once, in their order.

    Args:
        names: those of the workers of the queue, if one was typed.

    Raises:
        NotFound: nothing was typed, or nothing there has that name or matches that pattern.
    """
    there = as_text(map(presentable, sorted(names))) or "none"
    of_queue = "" if which.queue is None else f" of queue {presentable(which.queue)!r}"
    if not which.texts:
        if which.queue is None:
            raise NotFound(f"say which workers, by name, pattern or --queue; there are: {there}")
        if not names:
            raise NotFound(f"no worker serves queue {presentable(which.queue)!r}")
        return sorted(names)
    found: set[str] = set()
    for text in which.texts:
        # A name may look like a pattern.
        matching = [text] if text in names else [n for n in names if fnmatchcase(n, text)]
        if not matching:
            what = f"no worker{of_queue} is named {presentable(text)!r} or matches it"
            raise NotFound(f"{what}; there are: {there}")
        found.update(matching)
    return sorted(found)


def current(
    workers: Iterable[Seen], settings: Settings, queue: str | None = None
) -> dict[str, list[Seen]]:
    """Return the workers by name, those of a queue if one is given; living ones hide lost ones."""
    by_name: dict[str, list[Seen]] = {}
    for seen in workers:
        if queue is None or queue in seen.presence.queues:
            by_name.setdefault(seen.presence.name, []).append(seen)
    for name, ones in by_name.items():
        living = [seen for seen in ones if worker_state(seen, settings) != "lost"]
        by_name[name] = living or ones
    return by_name
