"""Runs asyncio code beside the synchronous scheduler, in one daemon thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from nats_executor.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Bridge"]

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# The connection is closed within this time or left to the end of the process.
STOP_SECONDS = 5.0


class Bridge:
    """An event loop in a thread of its own.

    The loop must not be used in a forked child: there its thread does not exist.
    """

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Prepare to run `main` until `stop`; nothing starts yet."""
        self._main = main
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="nats-executor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._main(), name="nats-executor")
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            log.debug("the connection to NATS was closed")
        except Exception:
            log.exception("the NATS side of the executor ended; restart the scheduler")
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Result], *, timeout: float) -> Result:
        """Run a coroutine in the loop and wait for its result, at most `timeout` seconds.

        Raises:
            BrokerUnavailable: the time is over, or the loop has ended.
        """
        future = self._submit(coroutine)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise BrokerUnavailable(f"NATS did not answer within {timeout:g} s") from None
        except concurrent.futures.CancelledError:
            raise BrokerUnavailable("the connection to NATS is being closed") from None

    def post(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the loop and do not wait; it handles its own errors."""
        try:
            self._submit(coroutine)
        except BrokerUnavailable as exc:
            log.debug("not done: %s", exc)

    def _submit(self, coroutine: Coroutine[Any, Any, Result]) -> concurrent.futures.Future[Result]:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as exc:  # the loop is closed
            coroutine.close()
            raise BrokerUnavailable("the NATS side of the executor has ended") from exc

    def stop(self) -> None:
        """Cancel `main` and wait until its connection is closed."""
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(STOP_SECONDS)
