"""Runs one workload under Airflow's own supervisor and says how it ended.

It must run in the main thread of a process without other threads: `supervise_task` forks, installs
signal handlers and changes the environment.

Airflow keeps what this project has to know (was the start accepted, did the state arrive) inside
its supervisor object, so subclasses of `ActivitySubprocess` and `CallbackSubprocess` take the
places of both. They rely on the names in `RELIED_ON`, found in Airflow 3.3.2 and 3.4.0b2. It lists
no name whose absence changes nothing but speed: `_last_heartbeat_attempt`, `new_process_group` of
`start`, and those of `kept_connections.py`. Where one of `RELIED_ON` is missing, Airflow's own
classes run as they are: slots are held a few seconds longer, an outage of the API server is not
waited out, and `started` is never announced.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import selectors
import signal
import time
from typing import TYPE_CHECKING, Any

from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor, ExecutorConf
from airflow.sdk.exceptions import TaskAlreadyRunningError
from airflow.sdk.execution_time import callback_supervisor, supervisor
from pydantic import TypeAdapter, ValidationError

from nats_executor.logs import ended
from nats_executor.pacing import pauses
from nats_worker.api.address import api_address
from nats_worker.api.asking import Asking, TooLate
from nats_worker.api.client import (
    HAS_CALLBACK_START,
    RELIED_ON_FOR_REQUESTS,
    answer_of,
    deliver,
    error_text,
    show_host_as,
    watch_requests,
)
from nats_worker.api.kept_connections import keep_connections
from nats_worker.processes.endings import ending_of
from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.linux import children_of, kill_tree
from nats_worker.processes.memory import oom_kills, sigkill_reason
from nats_worker.processes.otel import send_spans_from_tasks
from nats_worker.processes.protocol import unpack
from nats_worker.processes.reaping import Reaper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["lacks", "supervise"]

log = logging.getLogger(__name__)

WORKLOAD: TypeAdapter[Any] = TypeAdapter(workloads.ExecutorWorkload)
OF_BOTH = ("_check_subprocess_exit", "_register_pipe_readers", "pid", "selector", "wait")
RELIED_ON: dict[Any, tuple[str, ...]] = {
    supervisor: ("ActivitySubprocess", "SERVER_TERMINATED"),
    callback_supervisor: ("CallbackSubprocess",),
    supervisor.ActivitySubprocess: (
        *OF_BOTH,
        "_on_child_started",
        "_pending_terminal_state_msg",
        "_replay_pending_terminal_state_msg",
        "_send_terminal_state_msg",
        "_terminal_state",
        "final_state",
        "update_task_state_if_needed",
    ),
    callback_supervisor.CallbackSubprocess: (*OF_BOTH, "start"),
    **RELIED_ON_FOR_REQUESTS,
}
AFTER_START = frozenset({Ending.STOPPED_BY_SERVER, Ending.UNDELIVERED})
# Between two tries to deliver a state, in seconds: the first and the longest.
DELIVERY_PAUSES = 1.0, 30.0
# Airflow 3.3.0 starts no process in a group of its own; there the reaper alone gets what a stopped
# callback has left.
OWN_GROUP = {
    name: True
    for name in inspect.signature(supervisor.WatchedSubprocess.start).parameters
    if name == "new_process_group"
}


class Watch:
    """The facts that the subclasses learn about the workload that this process runs.

    There is one, like the subclasses: for tasks in other languages Airflow derives a class from the
    one that it finds first, and keeps it.
    """

    asking: Asking
    delivery_seconds: float
    on_start: Callable[[int], None]
    pid: int
    has_started: bool
    is_decided_elsewhere: bool
    failed_delivery: BaseException | None

    def begin(
        self, asking: Asking, *, delivery_seconds: float, on_start: Callable[[int], None]
    ) -> None:
        """Forget the workload before, if there was one."""
        self.asking = asking
        self.delivery_seconds = delivery_seconds
        self.on_start = on_start
        self.pid = 0
        self.has_started = False
        self.is_decided_elsewhere = False
        self.failed_delivery = None

    def start(self, pid: int) -> None:
        self.has_started = True
        self.on_start(pid)

    def delivery_pauses(self) -> Iterator[float]:
        """Yield growing pauses in seconds until the time for deliveries is over."""
        deadline = time.monotonic() + self.delivery_seconds
        for pause in pauses(*DELIVERY_PAUSES):
            if (left := deadline - time.monotonic()) <= 0:
                return
            yield min(pause, left)


WATCH = Watch()


def supervise(
    body: bytes,
    *,
    asking: Asking,
    team: str | None,
    delivery_seconds: float,
    shown_as: str,
    on_start: Callable[[int], None],
) -> ExitReport:
    """Run one workload to its end. Never raises.

    Args:
        body: msgpack of the workload as Airflow's executor got it.
        asking: what becomes of the request for its start; SIGTERM stops that until it is answered.
        team: whose configuration names the API server.
        delivery_seconds: how long to go on delivering a task's state to an API server that is away.
        shown_as: the name that Airflow's UI shows as the task's host, '' for the host's own.
        on_start: told the task process's pid once the API server has accepted the start.
    """
    watch = WATCH
    watch.begin(asking, delivery_seconds=delivery_seconds, on_start=on_start)
    kills = oom_kills()
    ended.of_team(team)
    try:
        signal.signal(signal.SIGTERM, asking.stop)
        workload = WORKLOAD.validate_python(unpack(body))
        watch_subprocesses()
        show_host_as(shown_as)
        send_spans_from_tasks()
        if lacks():
            asking.sending()  # nothing will tell when it is
        exit_code = run_workload(workload, team)
    except ValidationError as exc:
        # Its own text quotes the input, and that holds a token.
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error_details(exc)]
        text = f"this Airflow cannot read the workload: {'; '.join(problems)}"
        return ExitReport(ending=Ending.UNREADABLE, info=text)
    except TooLate:
        for process in children_of(os.getpid()):
            kill_tree(process)  # the task's, which waits for its start
        return ExitReport(ending=Ending.GIVEN_UP, pid=watch.pid)
    except BaseException as exc:
        if meaning(exc, watch) is None:
            log.exception("the supervisor of a workload raised")
        return failure(exc, watch, team)
    finally:
        asking.settled()  # a late signal has nothing left to stop
    return result(exit_code, watch, kills)


def error_details(exc: ValidationError) -> list[Any]:
    return list(exc.errors(include_url=False, include_context=False, include_input=False))


def run_workload(workload: Any, team: str | None) -> int:
    # A team's value comes first, then that for all, as with the API server's address.
    is_on_stdout = False
    for conf in (ExecutorConf(None), ExecutorConf(team)):
        is_on_stdout = conf.getboolean("logging", "task_logs_to_stdout", fallback=is_on_stdout)
    return BaseExecutor.run_workload(
        workload, server=api_address(team).url, subprocess_logs_to_stdout=is_on_stdout
    )


def result(exit_code: int, watch: Watch, kills: int | None) -> ExitReport:
    """Classify a workload whose supervisor returned; the code alone does not say enough."""
    report = functools.partial(
        ExitReport,
        exit_code=int(exit_code),  # psutil returns signals as an enum, which msgpack does not know
        started=watch.has_started or not watch.is_decided_elsewhere,
        pid=watch.pid,
    )
    if watch.is_decided_elsewhere:
        return report(ending=Ending.STOPPED_BY_SERVER)
    if watch.failed_delivery is not None:
        return report(ending=Ending.UNDELIVERED, info=error_text(watch.failed_delivery))
    if exit_code == -signal.SIGKILL:
        return report(ending=Ending.FINISHED, info=sigkill_reason(kills))
    return report(ending=Ending.FINISHED)


def failure(exc: BaseException, watch: Watch, team: str | None) -> ExitReport:
    """Classify a workload whose supervisor raised."""
    ending = meaning(exc, watch) or Ending.RAISED
    info = error_text(exc)
    if ending in {Ending.UNREACHABLE, Ending.WRONG_ADDRESS}:
        info = f"{info}, {api_address(team)}"
    detail = getattr(exc, "detail", None)
    previous_state = detail.get("previous_state") if isinstance(detail, dict) else None
    is_own_start = ending is Ending.EXCHANGED and watch.asking.has_lost_answer
    return ExitReport(
        ending=ending,
        started=watch.has_started or ending in AFTER_START or is_own_start,
        pid=watch.pid,
        previous_state=str(previous_state or ""),
        info=info,
    )


def meaning(exc: BaseException, watch: Watch) -> Ending | None:
    """Return what the API server's answer, or its silence, means; None if it was something else."""
    if isinstance(exc, TaskAlreadyRunningError):
        return Ending.ALREADY_RUNNING
    answer = answer_of(exc)
    if answer is None:
        return None
    return ending_of(
        answer, has_started=watch.has_started, has_lost_answer=watch.asking.has_lost_answer
    )


@functools.cache
def lacks() -> list[str]:
    """Return what this Airflow has no more of what the subclasses rely on; warns once."""
    missing = [
        f"{base.__name__}.{name}"
        for base, names in RELIED_ON.items()
        for name in names
        if not hasattr(base, name)
    ]
    if missing:
        log.warning("this Airflow has no %s; tasks run without our watch", ", ".join(missing))
    return missing


@functools.cache
def watch_subprocesses() -> None:
    """Have Airflow start our subclasses; it looks both names up when it runs a workload."""
    if lacks():
        return
    reaper = Reaper()
    supervisor.ActivitySubprocess = watched_task(  # type: ignore[misc]
        supervisor.ActivitySubprocess, WATCH, reaper
    )
    callback_supervisor.CallbackSubprocess = watched_callback(  # type: ignore[misc]
        callback_supervisor.CallbackSubprocess, WATCH, reaper
    )
    watch_requests(lambda: WATCH.asking)
    keep_connections(supervisor, callback_supervisor)


def notice_exit(process: Any) -> None:
    """Wake Airflow's supervisor up when its child exits.

    Airflow waits for the child's sockets only. If the last one closes a moment before the child
    can be reaped, nothing wakes it for `[workers] min_heartbeat_interval`, five seconds by default.
    """
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # Before Linux 5.3, and in some sandboxes: everything works, only slower.
        return
    # Airflow's convention: a handler that returns False has on_close called, then close().
    handler = (lambda _: False, process.selector.unregister)
    watched = os.fdopen(pidfd, "rb", buffering=0)
    process.selector.register(watched, selectors.EVENT_READ, handler)


def watched(base: Any, watch: Watch, reaper: Reaper) -> Any:
    """Return a subclass of Airflow's `WatchedSubprocess` whose exit is noticed and cleared up."""

    class Watched(base):  # type: ignore[misc]
        def _register_pipe_readers(self, *args: Any, **kwargs: Any) -> None:
            super()._register_pipe_readers(*args, **kwargs)
            watch.pid = self.pid
            notice_exit(self)
            reaper.attach(self.selector)

        def _check_subprocess_exit(self, *args: Any, **kwargs: Any) -> int | None:
            exit_code: int | None = super()._check_subprocess_exit(*args, **kwargs)
            if exit_code is not None and exit_code < 0:
                # Orphans come to this process. They hold the task's output open, and Airflow
                # would wait a minute for its end.
                for orphan in children_of(os.getpid()):
                    kill_tree(orphan)
            return exit_code

        def wait(self) -> int:
            try:
                return int(super().wait())
            finally:
                reaper.take()
                reaper.detach()

    return Watched


def watched_task(base: Any, watch: Watch, reaper: Reaper) -> Any:
    """Return a subclass of Airflow's `ActivitySubprocess` that tells the watch what it does."""

    class WatchedTask(watched(base, watch, reaper)):  # type: ignore[misc]
        def _on_child_started(self, **kwargs: Any) -> None:
            super()._on_child_started(**kwargs)
            # With the start the API server has noted a heartbeat; Airflow would send one more now.
            # An Airflow that names this otherwise does, and nothing else depends on it.
            self._last_heartbeat_attempt = time.monotonic()
            # Airflow 3.4 returns here although the start was refused, if the task was cleared.
            if self._terminal_state != supervisor.SERVER_TERMINATED:
                watch.start(self.pid)

        def _replay_pending_terminal_state_msg(self) -> None:
            # Airflow logs a failure and forgets it; raised, it is tried again below.
            self._send_terminal_state_msg(self._pending_terminal_state_msg)

        def update_task_state_if_needed(self) -> None:
            failure = deliver(super().update_task_state_if_needed, watch.delivery_pauses())
            answer = answer_of(failure) if failure else None
            if answer is not None and answer.is_decided_elsewhere:
                watch.is_decided_elsewhere = True
            else:
                watch.failed_delivery = failure
            if self.final_state == supervisor.SERVER_TERMINATED:
                watch.is_decided_elsewhere = True

    return WatchedTask


def watched_callback(base: Any, watch: Watch, reaper: Reaper) -> Any:
    """Return a subclass of Airflow's `CallbackSubprocess` that tells the watch what it does."""

    class WatchedCallback(watched(base, watch, reaper)):  # type: ignore[misc]
        @classmethod
        def start(cls, **kwargs: Any) -> Any:
            # A group of its own, as tasks have, so that stopping reaches what it started.
            try:
                process = super().start(**kwargs, **OWN_GROUP)
            except BaseException:
                watch.has_started = HAS_CALLBACK_START  # its start was granted, which happens once
                raise
            watch.start(process.pid)
            return process

    return WatchedCallback
