"""Starts child processes, watches them, and stops all of them together."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Self

from nats_executor.local.interrupts import interrupts_held
from nats_executor.local.process import LocalError, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Components"]

CONDITION_SECONDS = 0.1


class Components:
    """Child processes that live and die together; leaving the context stops them all at once.

    Args:
        needs: other processes that these cannot work without; they are watched and not stopped.
    """

    def __init__(self, *, needs: Iterable[Process] = ()) -> None:
        self.needs = needs
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Process]:
        return itertools.chain(self.needs, self.processes)

    def start(self, processes: Iterable[Process]) -> None:
        """Start processes, all at once."""
        for process in processes:
            self.processes.append(process)
            process.start()

    def run(self, *processes: Process, seconds: float) -> None:
        """Run processes that end by themselves, at the same time.

        Raises:
            LocalError: one of them fails or takes too long.
        """
        self.start(processes)
        for process in processes:
            code = process.wait_for_end(seconds)
            self.processes.remove(process)
            if code != 0:
                raise process.failure()

    def require_alive(self) -> None:
        """Raise `LocalError` for the first process that has ended."""
        for process in self:
            if process.exit_code is not None:
                raise process.failure()

    def wait_until(self, is_so: Callable[[], bool], *, seconds: float, description: str) -> None:
        """Wait for a condition.

        Raises:
            LocalError: a process has died, or the condition did not come true in time.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            self.require_alive()
            if time.monotonic() > deadline:
                raise LocalError(f"{description}: not within {seconds:g} s")
            time.sleep(CONDITION_SECONDS)

    def stop(self) -> None:
        """Stop everything that runs and wait until it is gone."""
        with interrupts_held():
            for process in self.processes:
                process.ask_to_stop()
            for process in self.processes:
                process.wait()
            self.processes.clear()
