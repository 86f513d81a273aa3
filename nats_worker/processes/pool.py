"""Starts runs, signals and ends them: the worker's processes as its asyncio side sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.handle import ForkServerHandle
from nats_worker.processes.linux import (
    DUMP_SIGNAL,
    KILLED_SECONDS,
    end_trees,
    exit_in_words,
    is_in_session,
    kill_tree,
    state_of,
)
from nats_worker.processes.protocol import (
    Event,
    Op,
    pack,
    unpack_report,
)
from nats_worker.processes.run import Run
from nats_worker.processes.zygotes import ZygoteCounts

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["PoolBroken", "ProcessPool", "Warmth"]

log = logging.getLogger(__name__)

# A fork server that cannot live dies within seconds, one that ran out of memory hours apart.
DEATHS_ALLOWED = 5
DEATHS_WINDOW_SECONDS = 60.0
# To write a traceback, and for what it had told before to be read.
DUMP_SECONDS = 1.0


class PoolBroken(Exception):
    """The fork server dies again and again; its output, on stderr, says why."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """The work that a worker does once before tasks come, in place of each task.

    Attributes:
        dag_zygotes: whether tasks may start from processes that have parsed their Dag file: off,
            auto or on.
        preload_modules: what the fork server imports for all tasks, besides what it knows itself.
    """

    dag_zygotes: str = "off"
    preload_modules: Sequence[str] = ()


COLD = Warmth()


class ProcessPool:
    """Starts workloads through a fork server, and another fork server when one dies.

    An async context manager: on exit every process is gone, within about ten seconds.

    Args:
        team: whose configuration the workloads' supervisors read.
        delivery_seconds: how long a supervisor goes on delivering a task's state to an API server
            that is away; the default is the life of Airflow's execution token. Only tests give
            another one.
        reach_seconds: how long a supervisor tries to reach an API server for a task's start; then
            another worker may try. Only tests give another time.
        workloads_per_supervisor: how many workloads a supervisor runs at most, one after the other.
        serves_logs: whether to serve this host's task logs to the UI, once it asks, by one process
            more.
        shown_as: the name that Airflow's UI shows as the host of a task, '' for the host's own.
        uploads: where supervisors have task logs stored; without it they do it themselves.
        warmth: what is done before tasks come.

    Attributes:
        zygotes: how many such processes there are, and what became of starts.
    """

    def __init__(
        self,
        *,
        team: str | None = None,
        delivery_seconds: float = 600.0,
        reach_seconds: float = 20.0,
        workloads_per_supervisor: int = 50,
        serves_logs: bool = False,
        shown_as: str = "",
        uploads: socket.socket | None = None,
        warmth: Warmth = COLD,
    ) -> None:
        self.team = team
        self.delivery_seconds = delivery_seconds
        self.reach_seconds = reach_seconds
        self.workloads_per_supervisor = workloads_per_supervisor
        self.serves_logs = serves_logs
        self.shown_as = shown_as
        self.uploads = uploads
        self.warmth = warmth
        self.zygotes = ZygoteCounts()
        self.runs: dict[str, Run] = {}
        self.server: ForkServerHandle | None = None
        self.preloaded = asyncio.Event()
        self._broken = asyncio.Event()
        self._reason = ""
        self._deaths: deque[float] = deque(maxlen=DEATHS_ALLOWED)
        self._is_closing = False
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.server = await self._launch()
        self._keeper = asyncio.create_task(self._keep(self.server), name="process pool")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        if self.server is not None:
            self.server.close()
        if self._keeper is not None:
            await self._keeper

    async def ready(self) -> None:
        """Wait until Airflow is imported and workloads start at once.

        Raises:
            PoolBroken: it never will be.
        """
        if not self.preloaded.is_set():
            waits = [asyncio.create_task(e.wait()) for e in (self.preloaded, self._broken)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        self._require_sound()

    async def broken(self) -> None:
        """Wait until the fork server has died too often.

        Raises:
            PoolBroken: it has; the worker should exit.
        """
        await self._broken.wait()
        self._require_sound()

    async def start(
        self, dispatch_id: str, body: dict[str, Any], *, start_seconds: float = math.inf
    ) -> Run:
        """Start a workload; returns before its process exists.

        Args:
            start_seconds: how long its start may take until the API server is asked. After that it
                never will be.

        Raises:
            PoolBroken: there is no fork server any more.
            ValueError: a run of this dispatch id is not over.
        """
        await self.ready()
        if any(run.dispatch_id == dispatch_id for run in self.runs.values()):
            raise ValueError(f"dispatch {dispatch_id} runs already")
        server = self._require_server()
        run = Run(dispatch_id)
        self.runs[run.id] = run
        # No await from here on: a caller that is cancelled must not leave a run behind.
        server.send(
            {
                "op": Op.RUN,
                "id": run.id,
                "body": pack(body),
                "team": self.team,
                "delivery_seconds": self.delivery_seconds,
                "reach_seconds": self.reach_seconds,
                "shown_as": self.shown_as,
                "workloads_per_supervisor": self.workloads_per_supervisor,
                "dag_zygotes": self.warmth.dag_zygotes,
                "start_by": time.monotonic() + start_seconds,
            }
        )
        return run

    async def start_self_test(self, name: str) -> Run:
        """Start a test of what every start needs; its report has a finding a line.

        Raises:
            PoolBroken: there is no fork server any more.
        """
        return await self._start_beside(Op.SELF_TEST, name)

    async def start_probe(self, name: str) -> Run:
        """Start a process that does nothing; raises as `start_self_test` does."""
        return await self._start_beside(Op.PROBE, name)

    async def _start_beside(self, op: Op, name: str) -> Run:
        await self.ready()
        server = self._require_server()
        run = Run(name)
        run.ask()  # it is no start that could hang
        self.runs[run.id] = run
        server.send({"op": op, "id": run.id, "team": self.team})
        return run

    def longest_start(self) -> float:
        """Return the seconds for which a start has not come to the API server, 0 without one."""
        runs = list(self.runs.values())  # at once: another thread asks
        begun = [run.begun_at for run in runs if not run.has_asked]
        return time.monotonic() - min(begun) if begun else 0.0

    async def give_up(self, run: Run) -> bool:
        """End a run whose start hangs, say where, and return whether it is over now.

        It is not if the API server was asked meanwhile: then only the answer tells.
        """
        where = await dump(run.supervisor_pid or self._require_server().process.pid)
        if run.has_asked:  # or it is over
            return run.is_over
        if run.supervisor_pid:
            kill_tree(run.supervisor_pid)
        # Without waiting for its end: a process that hangs in the kernel does not die.
        self.runs.pop(run.id, None)
        what = "its supervisor" if run.supervisor_pid else "the fork server"
        run.report = ExitReport(ending=Ending.HUNG, info=f"{what} {where}")
        run.end("")
        return True

    def retire_zygotes(self) -> None:
        """Keep no parsed Dag file from now on; tasks that run go on."""
        self.warmth = replace(self.warmth, dag_zygotes="off")
        if self.server is not None and self.preloaded.is_set():
            self.server.send({"op": Op.RETIRE_ZYGOTES})

    def cleanup_bundles(self) -> None:
        """Have a process of its own remove stale Dag bundle versions; its log says what it did."""
        if self.server is not None and self.preloaded.is_set():
            self.server.send({"op": Op.CLEANUP_BUNDLES})

    def _require_sound(self) -> None:
        if self._broken.is_set():
            raise PoolBroken(self._reason)

    def _require_server(self) -> ForkServerHandle:
        if self.server is None or self._is_closing:
            raise PoolBroken("the process pool is closed")
        return self.server

    async def _keep(self, server: ForkServerHandle) -> None:
        """Watch the fork server, settle its runs when it ends and launch the next one."""
        while True:
            end = await server.ended()
            self.preloaded.clear()
            await self._bury_runs(f"the worker's fork server {end}")
            if self._is_closing:
                return
            log.error("the fork server %s and took its workloads along; launching another", end)
            if self._has_died_too_often():
                span = f"{DEATHS_ALLOWED} times within {DEATHS_WINDOW_SECONDS:.0f} s"
                self._break(f"the fork server died {span}; this worker's stderr says why")
                return
            try:
                self.server = server = await self._launch()
            except OSError as exc:
                self._break(f"no fork server can be started: {exc}")
                return
            if self._is_closing:
                # The exit of the context has closed the one before.
                server.close()

    async def _launch(self) -> ForkServerHandle:
        return await ForkServerHandle.launch(
            self.uploads,
            self.warmth.preload_modules,
            on_event=self.on_event,
            is_preloaded=self.preloaded.is_set,
        )

    def _break(self, reason: str) -> None:
        self._reason = reason
        self._broken.set()

    def _has_died_too_often(self) -> bool:
        self._deaths.append(time.monotonic())
        span = self._deaths[-1] - self._deaths[0]
        return len(self._deaths) == DEATHS_ALLOWED and span < DEATHS_WINDOW_SECONDS

    async def _bury_runs(self, info: str) -> None:
        """End every run; the kernel has killed the supervisors, but not their tasks.

        Not before these are gone: Airflow may have each start again at once, here or elsewhere.
        """
        runs = list(self.runs.values())
        left = {
            pid
            for run in runs
            for pid in (run.task_pid, run.supervisor_pid)
            if pid and is_in_session(pid, run.supervisor_pid)
        }
        await asyncio.to_thread(end_trees, left, KILLED_SECONDS)
        for run in runs:
            run.end(info)
        self.runs.clear()
        self.zygotes.ready = 0

    def on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == Event.READY:
            self.preloaded.set()
            if self.serves_logs and self.server is not None:
                self.server.send({"op": Op.SERVE_LOGS})
            return
        if event["event"] == Event.ZYGOTES:
            self.zygotes.note(event)
            return
        self.on_event_of_run(event)

    def on_event_of_run(self, event: dict[str, Any]) -> None:
        run = self.runs.get(event["id"])
        if run is None:
            if event["event"] == Event.FORKED and event["id"]:
                kill_tree(event["pid"])  # its start hung, and was given up meanwhile
            return
        match event["event"]:
            case Event.FORKED:
                run.fork(event["pid"])
            case Event.ASKED:
                run.ask()
            case Event.STARTED:
                run.start(event["pid"])
            case Event.FINISHED:
                run.report = unpack_report(event["report"])
            case Event.EXITED:
                del self.runs[run.id]
                run.end(
                    f"the supervisor {exit_in_words(os.waitstatus_to_exitcode(event['status']))}"
                )


async def dump(pid: int) -> str:
    """Have one of our processes write to stderr where it is, and return what the kernel says."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, DUMP_SIGNAL)
    await asyncio.sleep(DUMP_SECONDS)
    return f"(process {pid}) {state_of(pid)}"
