"""A process pool without processes: tests decide when a run starts and how it ends."""

from __future__ import annotations

import asyncio
import copy
import math
import signal
import time
from typing import Any, Self

from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.pool import ProcessPool
from nats_worker.processes.run import Run
from tests.support.waiting import wait_until

__all__ = ["FakePool", "FakeRun"]

PID = 77
# Of no process: the kernel gives none so large.
NO_PID = 2**30


class FakeRun(Run):
    """A run without a process.

    Attributes:
        body: Airflow's workload, as the pool got it.
        signals: what was sent to it.
        deadly: the signals that end it.
    """

    def __init__(self, dispatch_id: str, body: dict[str, Any]) -> None:
        super().__init__(dispatch_id)
        self.body = body
        self.signals: list[int] = []
        self.deadly: set[signal.Signals] = set()
        self.supervisor_pid = NO_PID

    def signal(self, sig: int) -> None:
        if self.is_over:
            return
        self.signals.append(sig)
        if sig in self.deadly:
            self.finish(Ending.FINISHED if self.task_pid else Ending.DIED, exit_code=-sig)

    def begin(self) -> None:
        """Have the API server accept the start."""
        self.start(PID)

    def finish(self, ending: Ending = Ending.FINISHED, **facts: Any) -> None:
        """End the process."""
        facts = {"started": bool(self.task_pid), "pid": self.task_pid} | facts
        self.report = ExitReport(ending=ending, **facts)
        self.end("")


class FakePool(ProcessPool):
    """Remembers every run that it was asked for.

    Attributes:
        requested: all runs, oldest first.
        own: those of one worker; each worker of a test has a branch of the test's pool.
        failures: what the next starts raise.
        gate: while it is clear, there is no fork server.
        is_hanging: starts go no further than to a process.
        cleanups: one entry for each time that bundles were to be cleaned up.
        findings: what self-tests find wrong, a line each; None for one that does not end.
        tests: all self-tests, oldest first.
        probes: all processes of probes, oldest first.
        is_quick: these end by themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested: list[FakeRun] = []
        self.own: list[FakeRun] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_hanging = False
        self.is_quick = False
        self.cleanups: list[float] = []
        self.findings: list[str | None] = []
        self.tests: list[FakeRun] = []
        self.probes: list[FakeRun] = []

    def branch(self) -> FakePool:
        """Return the pool of one more worker."""
        branch = copy.copy(self)
        branch.own = []
        return branch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave no run behind, as the real one does."""
        for run in self.own:
            if not run.is_over:
                run.end("the pool was closed")

    @property
    def living(self) -> list[FakeRun]:
        return [run for run in self.requested if not run.is_over]

    async def ready(self) -> None:
        await self.gate.wait()
        self._require_sound()

    async def start(
        self,
        dispatch_id: str,
        body: dict[str, Any],
        *,
        start_seconds: float = math.inf,  # noqa: ARG002 - the tests decide
    ) -> Run:
        await self.ready()
        if self.failures:
            raise self.failures.pop()
        if any(run.dispatch_id == dispatch_id and not run.is_over for run in self.own):
            raise ValueError(f"dispatch {dispatch_id} runs already")
        run = FakeRun(dispatch_id, body)
        if not self.is_hanging:
            run.ask()
        self.own.append(run)
        self.requested.append(run)
        return run

    async def start_self_test(self, name: str) -> FakeRun:
        await self.ready()
        test = FakeRun(name, {})
        test.deadly = {signal.SIGKILL}
        self.tests.append(test)
        if None not in self.findings:
            test.finish(info="\n".join(filter(None, self.findings)))
        return test

    async def start_probe(self, name: str) -> FakeRun:
        await self.ready()
        probe = FakeRun(name, {})
        self.probes.append(probe)
        if self.is_quick:
            probe.begin()
            probe.finish()
        return probe

    async def give_up(self, run: Run) -> bool:
        run.report = ExitReport(ending=Ending.HUNG, info="it hangs")
        run.end("")
        return True

    def break_down(self) -> None:
        """Lose the fork server for good, and every process with it."""
        for run in self.living:
            run.end("the fork server was killed by SIGKILL")
        self._broken.set()

    def cleanup_bundles(self) -> None:
        self.cleanups.append(time.monotonic())

    async def run(self, number: int = 0) -> FakeRun:
        """Wait for the start of a run and return it."""
        await wait_until(lambda: len(self.requested) > number, 5, f"run {number} to be asked for")
        return self.requested[number]
