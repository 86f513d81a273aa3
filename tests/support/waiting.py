"""Waiting by condition: the tests' replacement for every sleep."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["block_until", "wait_until"]

PAUSE = 0.01


async def wait_until(
    predicate: Callable[[], Any], timeout: float = 10.0, description: str = "a condition"
) -> Any:
    """Return the predicate's first true result; it may be a coroutine function.

    Raises:
        TimeoutError: it stayed false; names what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = predicate()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{description}: not within {timeout:g} s")
        await asyncio.sleep(PAUSE)


def block_until(
    predicate: Callable[[], Any], timeout: float = 10.0, description: str = "a condition"
) -> Any:
    """Do the same where there is no event loop."""
    deadline = time.monotonic() + timeout
    while not (result := predicate()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{description}: not within {timeout:g} s")
        time.sleep(PAUSE)
    return result
