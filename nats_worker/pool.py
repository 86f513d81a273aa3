"""The worker's processes as its asyncio side sees them: runs that start, take signals and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from nats_worker.exits import Ending, ExitReport
from nats_worker.frames import MAX_EVENT_BYTES, pack, pack_request, unpack, unpack_report
from nats_worker.processes import send_signal

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
        self._started = asyncio.Event()
        self._exited = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the supervisor is gone and the report final."""
        return self._exited.is_set()

    async def started(self) -> None:
        """Wait until the API server has accepted the start; for ever if it never does."""
        await self._started.wait()

    async def exited(self) -> ExitReport:
        """Wait until the supervisor is gone and return how the workload ended."""
        await self._exited.wait()
        return self._final()

    def signal(self, sig: int) -> None:
        """Signal the task's process group, or the supervisor as long as no task has started.

        A supervisor with a task lives on to report the task's state and to upload its log.
        """
        if self.is_over or not self.supervisor_pid:
            return
        if not self.task_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.supervisor_pid, sig)
        elif is_in_session(self.task_pid, self.supervisor_pid):
            send_signal(self.task_pid, sig)

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
    """

    def __init__(self, *, team: str | None = None, delivery_seconds: float = 600.0) -> None:
        self.team = team
        self.delivery_seconds = delivery_seconds
        self.runs: dict[str, Run] = {}
        self.server: ForkServerHandle | None = None
        self._ready = asyncio.Event()
        self._broken = asyncio.Event()
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
        ready, broken = (asyncio.create_task(e.wait()) for e in (self._ready, self._broken))
        try:
            await asyncio.wait({ready, broken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            broken.cancel()
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
        request = {
            "op": "run",
            "id": dispatch_id,
            "body": pack(body),
            "team": self.team,
            "delivery_seconds": self.delivery_seconds,
        }
        await server.send(request)
        return run

    def cleanup_bundles(self) -> None:
        """Have a process of its own remove stale Dag bundle versions; its log says what it did."""
        if self.server is not None and self._ready.is_set():
            self.server.writer.write(pack_request({"op": "cleanup_bundles"}))

    def _require_sound(self) -> None:
        if self._broken.is_set():
            raise PoolBroken(
                f"the fork server died {DEATHS_ALLOWED} times within "
                f"{DEATHS_WINDOW_SECONDS:.0f} s; its messages are in this worker's stderr"
            )

    def _require_server(self) -> ForkServerHandle:
        if self.server is None or self._is_closing:
            raise PoolBroken("the process pool is closed")
        return self.server

    async def _keep(self, server: ForkServerHandle) -> None:
        """Watch the fork server, settle its runs when it ends and launch the next one."""
        while True:
            end = await server.ended()
            self._ready.clear()
            self._bury_runs(f"the worker's fork server {end}")
            if self._is_closing:
                return
            log.error("the fork server %s and took its workloads along; launching another", end)
            if self._has_died_too_often():
                self._broken.set()
                return
            self.server = server = await ForkServerHandle.launch(self)

    def _has_died_too_often(self) -> bool:
        self._deaths.append(time.monotonic())
        span = self._deaths[-1] - self._deaths[0]
        return len(self._deaths) == DEATHS_ALLOWED and span < DEATHS_WINDOW_SECONDS

    def _bury_runs(self, info: str) -> None:
        """End every run; the kernel has killed the supervisors, but not their tasks."""
        for run in list(self.runs.values()):
            run.signal(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                if run.supervisor_pid and is_in_session(run.supervisor_pid, run.supervisor_pid):
                    os.kill(run.supervisor_pid, signal.SIGKILL)
            run.end(info)
        self.runs.clear()

    def on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self._ready.set()
            return
        run = self.runs.get(event["id"])
        if run is None:
            return
        match event["event"]:
            case "forked":
                run.supervisor_pid = event["pid"]
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

    async def send(self, request: dict[str, Any]) -> None:
        self.writer.write(pack_request(request))
        # Its death is noticed elsewhere, and ends the run that was asked for.
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    def read_events(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while packet := self.events.recv(MAX_EVENT_BYTES):
                self.pool.on_event(unpack(packet))

    def close(self) -> None:
        """Ask the fork server to kill everything and exit; if it hangs, it is killed."""
        self.writer.close()
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
            [sys.executable, "-m", "nats_worker.forkserver", *map(str, inherited)],
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
        )
    return process, requests, events


def describe(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"exited with status {exit_code}"
