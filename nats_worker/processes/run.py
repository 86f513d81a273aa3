"""Follows one workload in a process of its own, for the worker's asyncio side."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time

from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.linux import is_in_session, kill_tree, send_signal

__all__ = ["Run"]

NUMBERS = itertools.count(1)


class Run:
    """One workload in a process of its own.

    Attributes:
        id: the pool's own name for it; what is late of an earlier run of the workload is not its.
        dispatch_id: the caller's name for it.
        supervisor_pid: the process that supervises it, 0 until it was forked.
        task_pid: the task process, 0 until the API server has accepted the start.
        has_asked: the API server may have been asked to accept the start, so only its answer tells
            whether another worker may have the workload.
    """

    def __init__(self, dispatch_id: str) -> None:
        self.id = f"{dispatch_id}.{next(NUMBERS)}"
        self.dispatch_id = dispatch_id
        self.begun_at = time.monotonic()
        self.supervisor_pid = 0
        self.task_pid = 0
        self.report: ExitReport | None = None
        self._last_signal = 0
        self._asked = asyncio.Event()
        self._started = asyncio.Event()
        self._exited = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the supervisor is gone, or free for others, and the report final."""
        return self._exited.is_set()

    @property
    def has_asked(self) -> bool:
        return self._asked.is_set()

    async def asked(self) -> None:
        """Wait until the API server may have been asked for the start, or the run is over."""
        await self._asked.wait()

    async def started(self) -> None:
        """Wait until the API server has accepted the start; for ever if it never does."""
        await self._started.wait()

    async def exited(self) -> ExitReport:
        """Wait until the run is over and return how the workload ended."""
        await self._exited.wait()
        return self._final()

    def signal(self, sig: int) -> None:
        """Signal the task's process group, or the supervisor as long as no task has started.

        A supervisor with a task lives on to report the task's state and to upload its log. One
        without gives its workload up at SIGTERM if the API server was not asked for the start yet;
        else it waits for the answer, and a task that was accepted gets the signal then. SIGKILL
        takes it with the task process that waits for the start.
        """
        if self.is_over:
            return
        self._last_signal = sig
        if not self.supervisor_pid:
            return
        if not self.task_pid and sig == signal.SIGKILL:
            kill_tree(self.supervisor_pid)
        elif not self.task_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.supervisor_pid, sig)
        elif is_in_session(self.task_pid, self.supervisor_pid):
            send_signal(self.task_pid, sig)

    def fork(self, supervisor_pid: int) -> None:
        self.supervisor_pid = supervisor_pid
        self._signal_again()

    def ask(self) -> None:
        self._asked.set()

    def start(self, task_pid: int) -> None:
        self.task_pid = task_pid
        self._asked.set()
        self._started.set()
        self._signal_again()

    def _signal_again(self) -> None:
        if self._last_signal:
            self.signal(self._last_signal)

    def end(self, info: str) -> None:
        """Settle the run; `info` counts only if the supervisor left no report."""
        died = ExitReport(
            ending=Ending.DIED, started=self._started.is_set(), pid=self.task_pid, info=info
        )
        self.report = self.report or died
        self._asked.set()
        self._exited.set()

    def _final(self) -> ExitReport:
        if self.report is None:
            raise RuntimeError("the run is not over")
        return self.report
