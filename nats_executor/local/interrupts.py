"""Being told to stop, by Ctrl-C or a signal: raised where it can be handled, held where not."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Interrupted", "interrupts_held", "interrupts_raised"]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody wants this process to stop. No error, so no `except Exception` may catch it.

    asyncio keeps any exception for itself that meets one of its streams, except for this kind.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise `Interrupted` for Ctrl-C, SIGTERM and SIGHUP, so that every `with` is left in order."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Deliver interrupts only afterwards, so that neither a start nor a stop ends half-way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
