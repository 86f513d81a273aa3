"""Raises Ctrl-C and stop signals where they can be handled, and holds them where they cannot."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from types import FrameType

__all__ = ["Interrupted", "interrupts_held", "interrupts_raised", "run_until_interrupted"]

WorkResult = TypeVar("WorkResult")

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A person or a program wants this process to stop.

    It is no error, so no `except Exception` may catch it.

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


def run_until_interrupted(work: Coroutine[Any, Any, WorkResult]) -> WorkResult:
    """Run a coroutine as `asyncio.run` does; an interrupt cancels it.

    Raised in the midst of another callback it would be logged there, or kept.

    Raises:
        Interrupted: there was an interrupt; everything has been left in order.
    """
    interrupts: list[int] = []

    async def main() -> WorkResult | None:
        with interrupts_cancelling(interrupts):
            try:
                return await work
            except asyncio.CancelledError:
                if not interrupts:
                    raise
        return None

    result = asyncio.run(main())
    if interrupts:
        raise Interrupted(interrupts[0])
    return result  # type: ignore[return-value] # None only after an interrupt


@contextmanager
def interrupts_cancelling(interrupts: list[int]) -> Iterator[None]:
    """Cancel the current task for an interrupt, and note it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt(number: int) -> None:
        interrupts.append(number)
        if task is not None:
            task.cancel()

    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number in INTERRUPTS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield
    finally:
        with interrupts_held():
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
