"""The worker's processes as its asyncio side sees them: runs that start, take signals and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from nats_worker.exits import Ending, ExitReport
from nats_worker.frames import MAX_EVENT_BYTES, pack, pack_request, unpack, unpack_report
from nats_worker.processes import kill_tree, send_signal
from nats_worker.verdict import signal_name

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["PoolBroken", "ProcessPool", "Run"]

log = logging.getLogger(__name__)

# A fork server that cannot live dies within seconds, one that ran out of memory hours apart.
DEATHS_ALLOWED = 5
DEATHS_WINDOW_SECONDS = 60.0
# More than the fork server takes for its own farewell; then it hangs and is killed.
CLOSE_SECONDS = 10.0


class PoolBroken(Exception):
    """The fork server dies again and again; its output, on stderr, says why."""


class Run:
    """One workload in a process of its own.

    Attributes:
        dispatch_id: the caller's name for it.
        supervisor_pid: the process that supervises it, 0 until it was forked.
        task_pid: the task process, 0 until the API server has accepted the start.
    """

    def __init__(self, dispatch_id: str) -> None:
        self.dispatch_id = dispatch_id
        self.supervisor_pid = 0
        self.task_pid = 0
        self.report: ExitReport | None = None
        self._early_signal = 0
        self._started = asyncio.Event()
        self._exited = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the supervisor is gone, or free for others, and the report final."""
        return self._exited.is_set()

    async def started(self) -> None:
        """Wait until the API server has accepted the start; for ever if it never does."""
        await self._started.wait()

    async def exited(self) -> ExitReport:
        """Wait until the run is over and return how the workload ended."""
        await self._exited.wait()
        return self._final()

    def signal(self, sig: int) -> None:
        """Signal the task's process group, or the supervisor as long as no task has started.

        A supervisor with a task lives on to report the task's state and to upload its log.
        Airflow 3.4 ignores SIGTERM until the task has started; SIGKILL always works.
        """
        if self.is_over:
            return
        if not self.supervisor_pid:
            self._early_signal = sig
        elif not self.task_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.supervisor_pid, sig)
        elif is_in_session(self.task_pid, self.supervisor_pid):
            send_signal(self.task_pid, sig)

    def fork(self, supervisor_pid: int) -> None:
        self.supervisor_pid = supervisor_pid
        if self._early_signal:
            self.signal(self._early_signal)

    def start(self, task_pid: int) -> None:
        self.task_pid = task_pid
        self._started.set()

    def end(self, info: str) -> None:
        """Settle the run; `info` counts only if the supervisor left no report."""
        died = ExitReport(
            ending=Ending.DIED, started=self._started.is_set(), pid=self.task_pid, info=info
        )
        self.report = self.report or died
        self._exited.set()

    def _final(self) -> ExitReport:
        if self.report is None:
            raise RuntimeError("the run is not over")
        return self.report


def is_in_session(pid: int, session: int) -> bool:
    """Return whether a pid is still what it was: a supervisor's session is its own pid."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


class ProcessPool:
    """Starts workloads through a fork server, and the fork server anew when it dies.

    An async context manager: on exit every process is gone, within about ten seconds.

    Args:
        team: whose configuration the workloads' supervisors read.
        delivery_seconds: how long a supervisor goes on delivering a task's state to an API server
            that is away; the default is the life of Airflow's execution token.
        workloads_per_supervisor: how many workloads a supervisor runs at most, one after the other.
        serves_logs: whether to serve this host's task logs to the UI, once it asks, by one process
            more.
    """

    def __init__(
        self,
        *,
        team: str | None = None,
        delivery_seconds: float = 600.0,
        workloads_per_supervisor: int = 50,
        serves_logs: bool = False,
    ) -> None:
        self.team = team
        self.delivery_seconds = delivery_seconds
        self.workloads_per_supervisor = workloads_per_supervisor
        self.serves_logs = serves_logs
        self.runs: dict[str, Run] = {}
        self.server: ForkServerHandle | None = None
        self.preloaded = asyncio.Event()
        self._broken = asyncio.Event()
        self._reason = ""
        self._deaths: deque[float] = deque(maxlen=DEATHS_ALLOWED)
        self._is_closing = False
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.server = await ForkServerHandle.launch(self)
        self._keeper = asyncio.create_task(self._keep(self.server), name="process pool")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        """Wait for the day that no fork server lives any more.

        Raises:
            PoolBroken: it has come; the worker should exit.
        """
        await self._broken.wait()
        self._require_sound()

    async def start(self, dispatch_id: str, body: dict[str, Any]) -> Run:
        """Start a workload; returns before its process exists.

        Raises:
            PoolBroken: there is no fork server any more.
            ValueError: a run of this dispatch id is not over.
        """
        await self.ready()
        if dispatch_id in self.runs:
            raise ValueError(f"dispatch {dispatch_id} runs already")
        server = self._require_server()
        run = self.runs[dispatch_id] = Run(dispatch_id)
        # No await from here on: a caller that is cancelled must not leave a run behind.
        server.send(
            {
                "op": "run",
                "id": dispatch_id,
                "body": pack(body),
                "team": self.team,
                "delivery_seconds": self.delivery_seconds,
                "workloads_per_supervisor": self.workloads_per_supervisor,
            }
        )
        return run

    def cleanup_bundles(self) -> None:
        """Have a process of its own remove stale Dag bundle versions; its log says what it did."""
        if self.server is not None and self.preloaded.is_set():
            self.server.send({"op": "cleanup_bundles"})

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
            self._bury_runs(f"the worker's fork server {end}")
            if self._is_closing:
                return
            log.error("the fork server %s and took its workloads along; launching another", end)
            if self._has_died_too_often():
                span = f"{DEATHS_ALLOWED} times within {DEATHS_WINDOW_SECONDS:.0f} s"
                self._break(f"the fork server died {span}; this worker's stderr says why")
                return
            try:
                self.server = server = await ForkServerHandle.launch(self)
            except OSError as exc:
                self._break(f"no fork server can be started: {exc}")
                return
            if self._is_closing:
                # The exit of the context has closed the one before.
                server.close()

    def _break(self, reason: str) -> None:
        self._reason = reason
        self._broken.set()

    def _has_died_too_often(self) -> bool:
        self._deaths.append(time.monotonic())
        span = self._deaths[-1] - self._deaths[0]
        return len(self._deaths) == DEATHS_ALLOWED and span < DEATHS_WINDOW_SECONDS

    def _bury_runs(self, info: str) -> None:
        """End every run; the kernel has killed the supervisors, but not their tasks."""
        for run in self.runs.values():
            for pid in (run.task_pid, run.supervisor_pid):
                if pid and is_in_session(pid, run.supervisor_pid):
                    kill_tree(pid)
            run.end(info)
        self.runs.clear()

    def on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self.preloaded.set()
            if self.serves_logs and self.server is not None:
                self.server.send({"op": "serve_logs"})
            return
        run = self.runs.get(event["id"])
        if run is None:
            return
        match event["event"]:
            case "forked":
                run.fork(event["pid"])
            case "started":
                run.start(event["pid"])
            case "finished":
                run.report = unpack_report(event["report"])
            case "exited":
                del self.runs[run.dispatch_id]
                run.end(f"the supervisor {describe(os.waitstatus_to_exitcode(event['status']))}")


class ForkServerHandle:
    """One fork server process and the sockets to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        events: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pool: ProcessPool,
    ) -> None:
        self.process = process
        self.events = events
        self.reader = reader
        self.writer = writer
        self.pool = pool
        self.deadline: asyncio.TimerHandle | None = None

    @classmethod
    async def launch(cls, pool: ProcessPool) -> ForkServerHandle:
        process, requests, events = spawn()
        reader, writer = await asyncio.open_connection(sock=requests)
        self = cls(process, events, reader, writer, pool)
        asyncio.get_running_loop().add_reader(events, self.read_events)
        return self

    def send(self, request: dict[str, Any]) -> None:
        # If it is dead, `ended` is about to say so and to end the run that was asked for.
        self.writer.write(pack_request(request))

    def read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while packet := self.events.recv(MAX_EVENT_BYTES):
                self.pool.on_event(unpack(packet))

    def close(self) -> None:
        """Ask the fork server to kill everything and exit; if it hangs, it is killed."""
        self.writer.close()
        if not self.pool.preloaded.is_set():
            # It imports Airflow, which takes seconds, and has forked nothing yet.
            self.process.kill()
        loop = asyncio.get_running_loop()
        self.deadline = loop.call_later(CLOSE_SECONDS, self.process.kill)

    async def ended(self) -> str:
        """Wait for the process's end, read its last events and return how it ended."""
        # It alone holds the other end of this stream.
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        exit_code = await asyncio.to_thread(self.process.wait)
        self.read_events()
        asyncio.get_running_loop().remove_reader(self.events)
        self.events.close()
        self.writer.close()
        if self.deadline is not None:
            self.deadline.cancel()
        return describe(exit_code)


def spawn() -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
    """Start a fork server; return it with our ends of its request and event sockets."""
    requests, served_requests = socket.socketpair()
    events, served_events = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    events.setblocking(False)
    with served_requests, served_events:
        inherited = served_requests.fileno(), served_events.fileno()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, module and numbers
            [sys.executable, "-P", "-m", "nats_worker.forkserver", *map(str, inherited)],
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
        )
    return process, requests, events


def describe(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal_name(-exit_code)}"
    return f"exited with status {exit_code}"
