"""Judges modules that a fork server is to import for all tasks, by a trial import of each.

`nats_worker/processes/trials.py` imports each in a process of its own. The worker's start and
`airflow nats doctor` tell the same of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PRELOADS", "Trial", "decode_trial", "encode_trial", "parted"]

PRELOADS = "[nats_executor] preload_modules"
# Behind a module's name: import it even if it starts a thread.
FORCED = "!"
BYTES_PER_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Trial:
    """The import of a module in a process of its own.

    Attributes:
        error: why it cannot be imported, '' if it can.
        threads: that it has started, by Python or not.
        processes: that it has started.
        descriptors: that it has left open, such as files and sockets.
        seconds: that the import took.
        bytes: of memory that it added.
    """

    module: str
    is_forced: bool = False
    error: str = ""
    threads: int = 0
    processes: int = 0
    descriptors: int = 0
    seconds: float = 0.0
    bytes: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether it starts what a fork does not take along, and no `!` says to import it so."""
        return not self.is_forced and bool(self.threads or self.processes)

    @property
    def is_accepted(self) -> bool:
        return not self.error and not self.is_refused

    @property
    def status(self) -> str:
        """Its status among the rows of `airflow nats doctor`."""
        return "ok" if self.is_accepted else "not preloaded"

    @property
    def text(self) -> str:
        """One line about it, with the remedy where one is needed."""
        if self.error:
            return (
                f"{PRELOADS}: {self.module} is not preloaded: {one_line(self.error)}; install or "
                "mend it on this machine, or remove it from the list"
            )
        begun = started(self.threads, self.processes)
        if self.is_refused:
            return (
                f"{PRELOADS}: {self.module} is not preloaded: its import starts {begun}, and tasks "
                f"are forks, which have none of that; remove it from the list, or write "
                f"{self.module}{FORCED} if it works in forks"
            )
        parts = [f"{self.seconds:.2f} s", f"{self.bytes / BYTES_PER_MEGABYTE:.0f} MB"]
        if self.descriptors:
            parts.append(f"{number_of(self.descriptors, 'open descriptor')} that tasks inherit")
        if begun:
            parts.append(f"starts {begun}")
        return f"{PRELOADS}: {self.module} is preloaded: {', '.join(parts)}"


def started(threads: int, processes: int) -> str:
    """Name what an import has started, '' for nothing."""
    counts = ((threads, "thread", "threads"), (processes, "process", "processes"))
    return " and ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n)


def parted(entries: Iterable[str]) -> list[tuple[str, bool]]:
    """Return module and whether it is forced, of each entry of the option."""
    return [(entry.removesuffix(FORCED), entry.endswith(FORCED)) for entry in entries]


def encode_trial(trial: Trial) -> str:
    """Return one line of JSON."""
    return json.dumps(asdict(trial))


def decode_trial(line: str) -> Trial:
    """Decode what `encode_trial` made, of the same release.

    Raises:
        DecodeError: it is something else.
    """
    try:
        return Trial(**json.loads(line))
    except (ValueError, TypeError) as exc:
        raise DecodeError(f"no trial: {exc}") from exc
