"""Runs asyncio code beside the synchronous scheduler, in one daemon thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from nats_executor.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Bridge"]

log = logging.getLogger(__name__)

Value = TypeVar("Value")

# The connection is closed within this time or left to the end of the process.
STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0
# Longer than the closing of a connection in good order takes.
RECANCEL_SECONDS = 1.5


class Bridge:
    """An event loop in a thread of its own.

    The loop must not be used in a forked child: there its thread does not exist.
    """

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Prepare to run `main`, again should it end, until `stop`; nothing starts yet."""
        self._main = main
        # Its loop is made here, so that `stop` and calls have one however early they come.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="nats-executor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        with self._runner:  # at its end it cancels whatever else still runs
            try:
                self._runner.run(self._keep_running())
            except asyncio.CancelledError:
                log.debug("the connection to NATS was closed")

    async def _keep_running(self) -> None:
        self._task = asyncio.current_task()
        # An error that is raised during a cancellation hides it, hence the flag.
        while not self._is_stopping:
            try:
                await self._main()
            except Exception:
                log.exception("the NATS side of the executor failed; next: starting it again")
            await asyncio.sleep(RESTART_SECONDS)

    def call(self, coroutine: Coroutine[Any, Any, Value], *, timeout: float) -> Value:
        """Run a coroutine in the loop and wait for its result, at most `timeout` seconds.

        Raises:
            BrokerError: as the coroutine raised it; `BrokerUnavailable` also when the time is over,
                the loop has ended, or the coroutine has a defect.
        """
        future = self._submit(coroutine)
        try:
            return future.result(timeout)
        except BrokerError:
            raise
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise BrokerUnavailable(f"NATS did not answer within {timeout:g} s") from None
        except concurrent.futures.CancelledError:
            raise BrokerUnavailable("the connection to NATS is being closed") from None
        except Exception as exc:
            # A defect here, or in what a server answers, must not end the scheduler.
            log.exception("a call to NATS failed; next: as if NATS were away")
            raise BrokerUnavailable(f"{type(exc).__name__}: {exc}") from exc

    def post(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the loop and do not wait; it handles its own errors."""
        try:
            self._submit(coroutine)
        except BrokerUnavailable as exc:
            log.debug("not done: %s", exc)

    def _submit(self, coroutine: Coroutine[Any, Any, Value]) -> concurrent.futures.Future[Value]:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as exc:  # the loop is closed
            coroutine.close()
            raise BrokerUnavailable("the NATS side of the executor has ended") from exc

    def stop(self) -> None:
        """Cancel `main` and wait until its connection is closed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(STOP_SECONDS)

    def _cancel(self) -> None:
        self._is_stopping = True
        if self._task is not None:  # or it has not begun, and will not
            self._task.cancel()
        self._loop.call_later(RECANCEL_SECONDS, self._insist)

    def _insist(self) -> None:
        # nats-py and Python 3.11's `wait_for` may lose a cancellation, and a task group passes one
        # on to its tasks only once. So each task of the loop is cancelled again, not `main` alone.
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_later(RECANCEL_SECONDS, self._insist)
