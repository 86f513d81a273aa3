"""Chooses the Dag files that have a zygote.

A zygote is a process that has parsed one Dag file; supervisors of its tasks are forked from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from math import inf
from typing import Any

__all__ = [
    "PARDONED",
    "TEXTS",
    "Book",
    "DagFile",
    "DagZygotes",
    "Obstacle",
    "Way",
    "dag_file_of",
]

# A zygote costs one parse more than it saves for the first task, so it is built at the second one
# that comes within this time.
MEETING_SECONDS = 300.0
UNUSED_SECONDS = 300.0
OLDEST_SECONDS = 3600.0
MOST_SERVED = 1000
MOST_ZYGOTES = 8
# Of all zygotes, as a share of the memory that the worker may use.
LARGEST_SHARE = 0.25
# For a file that may have been mended; a version of a bundle never changes.
MENDING_SECONDS = 600.0
# For a file that was changed while it was parsed.
SETTLE_SECONDS = 10.0
# One that went stale earlier did not pay for its parse.
WORTHWHILE = 3
MOST_FILES = 1000
LONGEST_FILE_NAME = 4096


class DagZygotes(StrEnum):
    """The values of `[nats_executor] dag_zygotes`."""

    OFF = "off"
    AUTO = "auto"
    ON = "on"


class Way(Enum):
    """The ways in which a task may start."""

    PLAIN = "the task parses its Dag file"
    BUILD = "it does, and a zygote is built beside it"
    HAND_OVER = "its supervisor is forked from the zygote"


class Obstacle(StrEnum):
    """Why a Dag file has no zygote: a label of the metric. `TEXTS` has the words for people."""

    BROKEN = "broken"
    BUNDLE = "bundle"
    CHANGED = "changed"
    CLOCK = "clock"
    CONTEXT = "context"
    DESCRIPTOR = "descriptor"
    DIED = "died"
    ENVIRONMENT = "environment"
    FILES = "files"
    HOOK = "hook"
    LOG = "log"
    MEMORY = "memory"
    NETWORK = "network"
    PATCH = "patch"
    PROCESS = "process"
    RANDOM = "random"
    REQUEST = "request"
    SETTING = "setting"
    SIGNAL = "signal"
    THREAD = "thread"
    UNSUPPORTED = "unsupported"
    WRITE = "write"


# To whom `on` says that tasks may share what the clock said when their Dag file was parsed.
PARDONED = frozenset({Obstacle.CLOCK})


@dataclass(frozen=True, slots=True)
class DagFile:
    """One Dag file of one version of a bundle, as a team's workers see it."""

    bundle: str
    version: str | None
    path: str
    team: str | None = None

    def __str__(self) -> str:
        """Return it for a log line."""
        version = f" {self.version}" if self.version else ""
        return f"{self.path!r} of bundle {self.bundle!r}{version}"


def dag_file_of(body: dict[str, Any], team: str | None) -> DagFile | None:
    """Return the Dag file of a workload, None if it is no task or names more than one knows of."""
    match body:
        case {
            "type": "ExecuteTask",
            "dag_rel_path": str(path),
            "bundle_info": {"name": str(name), "version": (None | str()) as version, **others},
        } if not any(others.values()):
            names = (name, version or "", path)
            if path.endswith(".py") and all(len(text) <= LONGEST_FILE_NAME for text in names):
                return DagFile(name, version, path, team)
    return None


@dataclass(slots=True)
class Entry:
    """The facts about one Dag file. All moments are seconds of one clock.

    Attributes:
        met_at: when its last task came.
        refused_until: before that it goes the plain way.
        is_building: whether its zygote has not reported yet.
        born_at: when its zygote was ready, None without one.
        used_at: when the zygote last got a task.
        served: tasks that the zygote got.
        size: its own memory in bytes, without what it shares.
    """

    met_at: float = -inf
    refused_until: float = -inf
    is_building: bool = False
    born_at: float | None = None
    used_at: float = -inf
    served: int = 0
    size: int = 0


class Book:
    """Everything that is known of Dag files, the one that was met last at the end."""

    def __init__(self) -> None:
        self.entries: dict[DagFile, Entry] = {}

    def meet(self, file: DagFile, now: float) -> Way:
        """Say how a task of this file starts, and remember that it came."""
        entry = self.entries.pop(file, None) or Entry()
        self.entries[file] = entry
        self.forget_some()
        before, entry.met_at = entry.met_at, now
        if entry.born_at is not None:
            entry.served += 1
            entry.used_at = now
            return Way.HAND_OVER
        is_frequent = now - before <= MEETING_SECONDS
        # One after the other: they would take the processors from tasks.
        is_free = not any(other.is_building for other in self.entries.values())
        if is_frequent and is_free and now >= entry.refused_until:
            entry.is_building = True
            return Way.BUILD
        return Way.PLAIN

    def forget_some(self) -> None:
        for file, entry in list(self.entries.items()):
            if len(self.entries) <= MOST_FILES:
                return
            if not entry.is_building and entry.born_at is None:
                del self.entries[file]

    def built(self, file: DagFile, size: int, now: float) -> None:
        """Note that a zygote is ready."""
        entry = self.entries[file]
        entry.is_building = False
        entry.born_at = entry.used_at = now
        entry.served = 0
        entry.size = size

    def refuse(self, file: DagFile, reason: Obstacle, now: float) -> None:
        """Note that the file goes the plain way for now, or for good."""
        self.gone(file)
        own = {Obstacle.CHANGED: SETTLE_SECONDS, Obstacle.MEMORY: MENDING_SECONDS}
        lasting = inf if file.version else MENDING_SECONDS
        self.entries[file].refused_until = now + own.get(reason, lasting)

    def stale(self, file: DagFile, now: float) -> None:
        """Note that a file of the zygote has changed."""
        is_hasty = self.entries[file].served < WORTHWHILE
        self.gone(file)
        self.entries[file].refused_until = now + (MENDING_SECONDS if is_hasty else 0.0)

    def gone(self, file: DagFile) -> None:
        """Note that a zygote, or what was to be one, gets no more tasks."""
        entry = self.entries[file]
        entry.is_building = False
        entry.born_at = None
        entry.size = 0

    def surplus(self, now: float, *, limit: int, is_tight: bool) -> list[DagFile]:
        """Return the files whose zygotes have to go.

        Args:
            limit: the memory that the worker may use, in bytes; 0 if not known.
            is_tight: whether that is nearly full.
        """
        alive = {file: entry for file, entry in self.entries.items() if entry.born_at is not None}
        if is_tight:
            return list(alive)
        going = [file for file, entry in alive.items() if is_spent(entry, now)]
        staying = sorted(alive.keys() - set(going), key=lambda file: alive[file].used_at)
        most = LARGEST_SHARE * limit if limit else inf
        while staying and (
            len(staying) > MOST_ZYGOTES or sum(alive[file].size for file in staying) > most
        ):
            going.append(staying.pop(0))
        return going


def is_spent(entry: Entry, now: float) -> bool:
    """Return whether a zygote is idle, or has served enough: what it leaks ends with it."""
    born_at = now if entry.born_at is None else entry.born_at
    return (
        now - entry.used_at >= UNUSED_SECONDS
        or now - born_at >= OLDEST_SECONDS
        or entry.served >= MOST_SERVED
    )


TEXTS = {
    Obstacle.BROKEN: "its import fails",
    Obstacle.BUNDLE: "its bundle cannot be read without a task, or may change at a task's start",
    Obstacle.CHANGED: "one of its files has just changed",
    Obstacle.CLOCK: "it reads the clock while it is parsed",
    Obstacle.CONTEXT: "it reads the environment of the one task that it is parsed for",
    Obstacle.DESCRIPTOR: "it leaves a file, a socket or shared memory open",
    Obstacle.DIED: "its process died, or took too long",
    Obstacle.ENVIRONMENT: "it changes the environment",
    Obstacle.FILES: "it reads more files than can be watched",
    Obstacle.HOOK: "it changes how modules are imported, or hides one of Python's own",
    Obstacle.LOG: "it writes to the task's log, or changes how that is written",
    Obstacle.MEMORY: "its zygote would take too much memory",
    Obstacle.NETWORK: "it asks the network, or a database",
    Obstacle.PATCH: "it replaces functions of modules that were there before",
    Obstacle.PROCESS: "it starts a process",
    Obstacle.RANDOM: "it uses chance while it is parsed, or seeds it",
    Obstacle.REQUEST: "it asks for a Variable, a Connection or the like",
    Obstacle.SETTING: "it changes a setting of the process",
    Obstacle.SIGNAL: "it changes a signal handler",
    Obstacle.THREAD: "it starts a thread",
    Obstacle.UNSUPPORTED: "this Airflow, or its configuration, has no place for it",
    Obstacle.WRITE: "it writes or removes a file",
}
