"""Imports Airflow once, then forks the supervisors that run workloads: the fork server.

Airflow's `supervise_task` forks and needs the main thread, so it may run neither in the worker's
asyncio process nor beside threads. This process has no threads, opens no connection, knows no
login for NATS and is started by exec, `python -Pm nats_worker.processes.forkserver REQUESTS EVENTS
[UPLOADS]` with the numbers of inherited sockets. `protocol.py` says what goes over the first two,
`uploads/uploader.py` what goes over the last.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from nats_worker.processes import self_test
from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.linux import (
    KILLED_SECONDS,
    adopt_orphans,
    children_of,
    die_with,
    dump_on_request,
    end_trees,
    kill_tree,
    prefer_as_oom_victim,
)
from nats_worker.processes.log_server import end_waiting, listen, serve
from nats_worker.processes.preloading import preload
from nats_worker.processes.protocol import (
    FREE,
    Event,
    Op,
    pack,
    pack_report,
    pack_request,
    receive_request,
)
from nats_worker.processes.zygotes import Zygotes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = []

# Not `__name__`: this module runs as `__main__`.
log = logging.getLogger("nats_worker.processes.forkserver")

# Seconds for a supervisor to report its task's end and to upload the log once the worker is gone.
EXIT_SECONDS = 5.0
# Time for the next of a row of short tasks; after it an idle worker has no process to spare.
FREE_SECONDS = 5.0
# A supervisor that is free takes a workload at once, or is no longer well.
HANDOVER_SECONDS = 1.0
POLL_SECONDS = 0.1


class ForkServer:
    """Forks supervisors on request and tells the main process how each of them ended."""

    def __init__(
        self,
        requests: socket.socket,
        events: socket.socket,
        uploads: socket.socket | None = None,
    ) -> None:
        self.requests = requests
        self.events = events
        self.uploads = uploads
        # By pid: the dispatch of each process, '' where it has none; how to reach supervisors; and
        # until when the free ones may wait, the one that has waited longest first.
        self.supervisors: dict[int, str] = {}
        self.channels: dict[int, socket.socket] = {}
        self.free: dict[int, float] = {}
        self.tolerated: set[int] = set()
        self.selector = selectors.DefaultSelector()
        self.wakeup, self.wakeup_writer = socket.socketpair()
        self.main = os.getppid()
        self.is_open = True
        # Readers of logs connect here. The log server answers them, once there is one.
        self.log_listener: socket.socket | None = None
        self.log_server = 0
        self.zygotes = Zygotes(self)

    def serve(self) -> None:
        """Fork and reap until the request stream ends, then leave no process behind."""
        self.watch_children()
        self.selector.register(self.requests, selectors.EVENT_READ, self.answer)
        self.tell({"event": Event.READY})
        while self.is_open:
            now = time.monotonic()
            waits = self.dismiss_free(now), self.zygotes.tidy(now)
            self.wait(min((wait for wait in waits if wait is not None), default=None))
        self.selector.unregister(self.requests)
        self.end_all()

    def watch_children(self) -> None:
        """Have SIGCHLD wake the selector up."""
        for end in (self.wakeup, self.wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self.wakeup_writer.fileno(), warn_on_full_buffer=False)
        # Without any handler Python would not write to the wakeup descriptor.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.reap)

    def wait(self, timeout: float | None) -> None:
        for key, _ in self.selector.select(timeout):
            key.data()

    def answer(self) -> None:
        request = receive_request(self.requests)
        if os.getppid() != self.main:
            # A workload that the main process sent before it died would only start to be killed.
            request = None
        match request:
            case None:
                self.is_open = False
            case {"op": Op.RUN}:
                if not self.zygotes.take_over(request):
                    self.run(request)
            case {"op": Op.RETIRE_ZYGOTES}:
                self.zygotes.retire_all()
            case {"op": Op.CLEANUP_BUNDLES}:
                self.fork("", cleanup_bundles)
            case {"op": Op.SELF_TEST}:
                self.fork(request["id"], lambda: self_test.run_self_test(request, self.send))
            case {"op": Op.PROBE}:
                self.fork(request["id"], lambda: do_nothing(request["id"], self.send))
            case {"op": Op.SERVE_LOGS}:
                self.open_log_listener()
            case _:
                log.error("unknown request %r; main process and fork server differ", request["op"])

    # Supervisors

    def run(self, request: dict[str, Any]) -> None:
        """Have a supervisor run a workload: the one that became free last, or a new one."""
        dispatch_id = request["id"]
        if time.monotonic() > request["start_by"]:
            return  # the main process has given it up
        while self.free:
            pid, _ = self.free.popitem()
            try:
                self.channels[pid].sendall(pack_request(request))
            except OSError:
                # It is gone, or was stopped; nothing of this workload has begun there.
                kill_tree(pid)
                continue
            self.supervisors[pid] = dispatch_id
            self.tell({"event": Event.FORKED, "id": dispatch_id, "pid": pid})
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            self.refuse(dispatch_id, exc)
            return
        with theirs:
            pid = self.fork(dispatch_id, lambda: self.supervise(request, ours, theirs))
        if not pid:
            ours.close()
            return
        ours.settimeout(HANDOVER_SECONDS)
        self.attach(pid, ours, lambda: self.hear(pid))

    def attach(self, pid: int, channel: socket.socket, hear: Callable[[], None]) -> None:
        """Listen to a child until its channel is dropped; no other child keeps that open."""
        self.channels[pid] = channel
        self.selector.register(channel, selectors.EVENT_READ, hear)

    def hear(self, pid: int) -> None:
        """Settle the workload of a supervisor that says it is free, or drop one that is gone."""
        if pid not in self.channels:
            return
        with contextlib.suppress(OSError):
            if self.channels[pid].recv(len(FREE)) and self.is_open:
                self.tell({"event": Event.EXITED, "id": self.supervisors[pid], "status": 0})
                self.supervisors[pid] = ""
                self.free[pid] = time.monotonic() + FREE_SECONDS
                return
        self.drop(pid)

    def dismiss_free(self, now: float) -> float | None:
        """Drop supervisors that were free for long; return the seconds to the next one."""
        for pid, until in list(self.free.items()):
            if until > now:
                return until - now
            self.drop(pid)
        return None

    def drop(self, pid: int) -> None:
        """Close the channel to a supervisor; one that is free exits."""
        self.free.pop(pid, None)
        channel = self.channels.pop(pid, None)
        if channel is not None:
            self.selector.unregister(channel)
            channel.close()

    def refuse(self, dispatch_id: str, exc: OSError) -> None:
        log.error("cannot fork; the workload goes back", exc_info=exc)
        report = ExitReport(ending=Ending.DIED, info=f"the worker could not fork: {exc}")
        self.send(pack_report(dispatch_id, report))
        self.tell({"event": Event.EXITED, "id": dispatch_id, "status": 0})

    # Logs

    def open_log_listener(self) -> None:
        from airflow.configuration import conf

        port = conf.getint("logging", "worker_log_server_port")
        try:
            self.log_listener = listen(port)
        except OSError as exc:
            log.warning("[logging] worker_log_server_port %d: %s; next: no logs served", port, exc)
        else:
            self.await_readers()

    def await_readers(self) -> None:
        """Have the next one who asks for a log start the server."""
        if self.log_listener:
            end_waiting(self.log_listener)
            self.selector.register(self.log_listener, selectors.EVENT_READ, self.start_log_server)

    def start_log_server(self) -> None:
        if self.log_listener is None:
            return
        self.selector.unregister(self.log_listener)
        with self.log_listener.dup() as listener:
            self.log_server = self.fork("", lambda: serve(listener))
        if not self.log_server:
            self.await_readers()

    # Processes

    def fork(self, dispatch_id: str, work: Callable[[], int]) -> int:
        """Have a child do some work, and return its pid, 0 if there is none."""
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            self.refuse(dispatch_id, exc)
            return 0
        if pid == 0:
            exit_code = 1
            try:
                exit_code = self.become_child(server, work)
            finally:
                # A child may never get back into the server's loop.
                os._exit(exit_code)
        self.supervisors[pid] = dispatch_id
        self.tell({"event": Event.FORKED, "id": dispatch_id, "pid": pid})
        return pid

    def become_child(self, server: int, work: Callable[[], int]) -> int:
        """Shed what belongs to the server, do the work and return the exit code."""
        try:
            os.setsid()
            die_with(server)
            signal.set_wakeup_fd(-1)
            for sig in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(sig, signal.SIG_DFL)
            self.selector.close()
            ends = [self.requests, self.wakeup, self.wakeup_writer, *self.channels.values()]
            if self.log_listener:
                ends.append(self.log_listener)
            for inherited in ends:
                inherited.close()
            # Orphans of a running workload stay with its supervisor, so that the server can tell
            # whose they were when they reach it.
            adopt_orphans()
            prefer_as_oom_victim()
            return work()
        except Exception:
            log.exception("a process of the worker ends with an error")
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def supervise(self, request: dict[str, Any], ours: socket.socket, theirs: socket.socket) -> int:
        """Run a workload, and others after it, in this child."""
        from nats_worker.processes.supervisor import Supervisor

        ours.close()
        # Task processes are forked from this one; they have no business with the worker's sockets.
        for private in filter(None, (self.events, theirs, self.uploads)):
            os.register_at_fork(after_in_child=private.close)
        return Supervisor(theirs, self.send).serve(request)

    def reap(self) -> None:
        """Collect what has ended, report supervisors, and clear up after those that were killed.

        A process that a workload left running on purpose may stay as long as the worker does, as
        with Airflow's other executors. After a violent end the processes left behind are killed.
        """
        with contextlib.suppress(BlockingIOError):
            while self.wakeup.recv(4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.clear_up(is_violent=pid not in self.tolerated and status != 0)
            self.tolerated.discard(pid)
            self.drop(pid)
            self.zygotes.ended(pid, status)
            dispatch_id = self.supervisors.pop(pid, "")
            if pid == self.log_server and self.is_open:
                log.error("the log server has ended; next: another when a log is asked for")
                self.await_readers()
            if dispatch_id:
                self.tell({"event": Event.EXITED, "id": dispatch_id, "status": status})

    def clear_up(self, *, is_violent: bool) -> None:
        if not is_violent:
            self.tolerated |= self.orphans()
            return
        # To their end, because a task may start again as soon as this one is told to be over. And
        # again, because what they leave comes here, too.
        ended: set[int] = set()
        while orphans := self.orphans() - ended:
            end_trees(orphans, KILLED_SECONDS)
            ended |= orphans

    def orphans(self) -> set[int]:
        """Return the children that came here because their own parent has ended."""
        return children_of(os.getpid()) - self.supervisors.keys() - self.tolerated

    def end_all(self) -> None:
        """Kill the tasks, let supervisors report that for a moment, then kill the rest."""
        deadline = time.monotonic() + EXIT_SECONDS
        if self.log_server in self.supervisors:
            kill_tree(self.log_server)
        for pid in [*self.free, *self.zygotes.by_pid]:
            self.drop(pid)  # a zygote ends all that is its own likewise
        while self.supervisors and time.monotonic() < deadline:
            # Again and again, because a supervisor may just be forking its task.
            for supervisor in self.supervisors.keys() - self.zygotes.by_pid.keys():
                os.kill(supervisor, signal.SIGTERM)  # to ask for no start any more
                for task in children_of(supervisor):
                    kill_tree(task)
            self.wait(POLL_SECONDS)
        while children := children_of(os.getpid()):
            for child in children:
                kill_tree(child)
            self.wait(POLL_SECONDS)

    def tell(self, event: dict[str, Any]) -> None:
        self.send(pack(event))

    def send(self, packet: bytes) -> None:
        # Without a main process no event is needed, but the API server still needs the report.
        with contextlib.suppress(OSError):
            self.events.send(packet)


def do_nothing(run_id: str, send: Callable[[bytes], None]) -> int:
    """Report the start and the end of a process, as a supervisor reports those of a task."""
    pid = os.getpid()
    send(pack({"event": Event.STARTED, "id": run_id, "pid": pid}))
    send(pack_report(run_id, ExitReport(ending=Ending.FINISHED, started=True, pid=pid)))
    return 0


def cleanup_bundles() -> int:
    """Remove the bundle versions that no task uses any more, as Airflow asks of every worker."""
    from airflow.dag_processing.bundles.base import BundleUsageTrackingManager

    BundleUsageTrackingManager().remove_stale_bundle_versions()
    return 0


def main(*inherited: int) -> None:
    """Serve on inherited sockets until the first one ends."""
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    sockets = [socket.socket(fileno=fd) for fd in inherited]
    for private in sockets:
        private.set_inheritable(False)
    adopt_orphans()
    dump_on_request()
    preload(*sockets[2:])
    ForkServer(*sockets).serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
