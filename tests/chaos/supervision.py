"""Stands in for `airflow_supervisor`, which runs a workload under Airflow's supervisor.

Everything around it is real: the fork server that runs it, the sessions and process groups, the
signals, the worker. A task process sleeps for as long as its row says, and the journal knows it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_worker.api.answers import NO_ANSWER, Answer
from nats_worker.api.asking import TooLate, until_known
from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.linux import children_of, kill_tree, send_signal
from nats_worker.processes.protocol import unpack
from tests.chaos.api import BAD_GATEWAY, CONFLICT, NOT_FOUND, OK, ask
from tests.chaos.database import Behaviour
from tests.chaos.journal import executing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_worker.api.asking import Asking

__all__ = ["HEARTBEAT_SECONDS", "Ailment", "Task", "ailing", "self_test", "supervise", "warm_up"]

HEARTBEAT_SECONDS = 1.0
# As the product's pool gives them, but longer outages are to bring a hand-back.
REACH_SECONDS = 4.0
PAUSE_SECONDS = 0.3
# Airflow gives a task that it stops five seconds after SIGTERM.
STOP_SECONDS = 0.5
FAILS = 3


class Ailment(StrEnum):
    """What may be wrong with the host of one worker."""

    NO_API = "no API server"  # every request to it is refused
    READ_ONLY = "read-only log folder"  # nothing can be started
    HANGING = "hanging file system"  # what is to be started goes no further


class Unanswered(OSError):
    """A proxy has answered, and does not know what the API server did."""


def answer_of(exc: BaseException) -> Answer | None:
    """Return what the stand-in's client raised as the product sees Airflow's."""
    if not isinstance(exc, OSError):
        return None
    return Answer("/run", BAD_GATEWAY if isinstance(exc, Unanswered) else NO_ANSWER)


def warm_up() -> None:
    """Do nothing: there is nothing to import."""


def self_test(_team: str | None) -> Iterator[str]:
    """Look at what the ailments touch, as the real self-test does."""
    if around.suffers(Ailment.READ_ONLY):
        yield "the log folder is read-only"
    try:
        ask(api_path(), op="ping", ti_id="")
    except OSError as exc:
        yield f"no API server: {exc}"


def supervise(
    body: bytes,
    *,
    asking: Asking,
    team: str | None,
    delivery_seconds: float,
    shown_as: str = "",  # the release before has none
    on_start: Callable[[int], None],
) -> ExitReport:
    """Run one workload to its end."""
    del team, shown_as
    asking.reach_seconds = REACH_SECONDS
    try:
        signal.signal(signal.SIGTERM, asking.stop)
        return run(unpack(body), asking, delivery_seconds, on_start)
    except TooLate:
        for process in children_of(os.getpid()):
            kill_tree(process)
        return ExitReport(ending=Ending.GIVEN_UP)
    finally:
        asking.settled()


def run(
    workload: dict[str, Any],
    asking: Asking,
    delivery_seconds: float,
    on_start: Callable[[int], None],
) -> ExitReport:
    if around.suffers(Ailment.HANGING):
        while True:
            signal.pause()
    if around.suffers(Ailment.READ_ONLY):
        return ExitReport(ending=Ending.RAISED, info="PermissionError: the log folder is read-only")
    if workload["type"] == "ExecuteCallback":
        return Callback(workload["callback"]["data"]["kwargs"], on_start).run()
    return Task(workload["ti"], asking, on_start, delivery_seconds).run()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the fork server knows of the workload that this process is for."""

    dispatch_id: str

    @property
    def directory(self) -> str:
        return os.environ["CHAOS_DIRECTORY"]

    @property
    def worker(self) -> int:
        """The worker's main process: the fork server's parent."""
        status = Path(f"/proc/{os.getppid()}/stat").read_text()
        return int(status.rpartition(")")[2].split()[1])

    def suffers(self, ailment: Ailment) -> bool:
        return place_of(ailment, Path(self.directory), self.worker).exists()


around = Surroundings("")


def enter(dispatch_id: str) -> None:
    """Say which dispatch this process is for."""
    global around  # noqa: PLW0603 - a process of its own for each workload
    around = Surroundings(dispatch_id)


class Child:
    """A process that waits for its turn, sleeps and is in the journal meanwhile."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker = around.worker
        self.supervisor = os.getpid()
        self.gate, self.opener = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = self.work()
            finally:
                os._exit(code)
        os.close(self.gate)
        with contextlib.suppress(OSError):  # it was faster, or is gone
            os.setpgid(self.pid, self.pid)
        self.pidfd = os.pidfd_open(self.pid)

    def work(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)  # the same session as the supervisor, as Airflow does it
        os.close(self.opener)
        order = os.read(self.gate, 100).decode().split()
        if not order:
            return 0
        length, try_number, fails = float(order[0]), int(order[1]), order[2] == "fails"
        with executing(
            f"{around.directory}/journal",
            number=self.number, try_number=try_number, dispatch=around.dispatch_id,
            worker=self.worker, supervisor=self.supervisor, pid=os.getpid(),
        ):  # fmt: skip
            time.sleep(length)
        return FAILS if fails else 0

    def begin(self, length: float, try_number: int, *, fails: bool) -> None:
        os.write(self.opener, f"{length} {try_number} {'fails' if fails else 'ends'}".encode())
        os.close(self.opener)

    def dismiss(self) -> None:
        os.close(self.opener)
        self.exit_code()

    def has_ended(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))

    def exit_code(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def stop(self) -> int:
        send_signal(self.pid, signal.SIGTERM)
        if not self.has_ended(STOP_SECONDS):
            send_signal(self.pid, signal.SIGKILL)
        return self.exit_code()


class Callback:
    """A callback: it has no row at the API server, so nothing is asked."""

    def __init__(self, data: dict[str, Any], on_start: Callable[[int], None]) -> None:
        self.data = data
        self.on_start = on_start

    def run(self) -> ExitReport:
        child = Child(self.data["number"])
        self.on_start(child.pid)
        child.begin(self.data["length"], 1, fails=False)
        code = child.exit_code()
        info = f"callback process exited with code {code}"
        ending = Ending.RAISED if code else Ending.FINISHED
        return ExitReport(
            ending=ending, exit_code=min(code, 0), started=True, pid=child.pid, info=info
        )


class Task:
    """A task: start, heartbeats and state are the API server's to accept."""

    def __init__(
        self,
        ti: dict[str, Any],
        asking: Asking,
        on_start: Callable[[int], None],
        delivery_seconds: float,
    ) -> None:
        self.ti_id = ti["id"]
        self.asking = asking
        self.behaviour = ti["dag_id"]
        self.number = int(ti["task_id"].removeprefix("w"))
        self.on_start = on_start
        self.delivery_seconds = delivery_seconds

    def run(self) -> ExitReport:
        if self.behaviour == Behaviour.POISON:
            kill_worker(around.worker)
            signal.pause()  # the fork server ends this process too
        child = Child(self.number)
        try:
            answer = until_known(partial(self.ask_to_start, child), self.asking, answer_of)
        except OSError as exc:
            child.dismiss()
            return ExitReport(ending=Ending.UNREACHABLE, info=str(exc))
        if answer["status"] != OK:
            child.dismiss()
            return refused(answer)
        self.on_start(child.pid)
        child.begin(answer["length"], answer["try_number"], fails=answer["fails"])
        return self.end(child, answer)

    def ask_to_start(self, child: Child) -> dict[str, Any]:
        parents = [child.supervisor, child.worker]
        sending = self.asking.sending
        return self.ask(on_send=sending, op="run", pid=child.pid, parents=parents)

    def end(self, child: Child, answer: dict[str, Any]) -> ExitReport:
        if not self.see_through(child):
            return self.report(Ending.STOPPED_BY_SERVER, child, child.stop())
        code = child.exit_code()
        if code < 0 and answer["may_retry"]:
            # As Airflow's supervisor: only the executor's event moves the task on.
            return self.report(Ending.FINISHED, child, code)
        state = "failed" if code else "success"
        try:
            delivered = self.insist(self.delivery_seconds, op="state", state=state)
        except OSError as exc:
            return self.report(Ending.UNDELIVERED, child, code, str(exc))
        decided_elsewhere = delivered["status"] != OK
        ending = Ending.STOPPED_BY_SERVER if decided_elsewhere else Ending.FINISHED
        return self.report(ending, child, min(code, 0))

    def report(self, ending: Ending, child: Child, code: int, info: str = "") -> ExitReport:
        return ExitReport(ending=ending, exit_code=code, started=True, pid=child.pid, info=info)

    def see_through(self, child: Child) -> bool:
        """Send heartbeats until it ends; False when the API server asks to stop it."""
        while not child.has_ended(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next one may arrive
                answer = self.ask(op="heartbeat", pid=child.pid)
                if answer["status"] in {NOT_FOUND, CONFLICT}:
                    return False
        return True

    def insist(self, seconds: float, **request: Any) -> dict[str, Any]:
        """Ask until there is an answer; raises `OSError` when the time is over."""
        for is_last in attempts(seconds):
            try:
                return self.ask(**request)
            except OSError:
                if is_last:
                    raise
        raise TimeoutError("no time at all")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask once; raises `OSError` when the API server itself does not answer."""
        answer = ask(api_path(), ti_id=self.ti_id, **request)
        if answer["status"] == BAD_GATEWAY:
            raise Unanswered("502 from a proxy")
        return answer


def api_path() -> str:
    """Return the API server's socket, or what is there for a worker that is cut off from it."""
    barrier = place_of(Ailment.NO_API, Path(around.directory), around.worker)
    return str(barrier if barrier.exists() else Path(around.directory, "api"))


@contextlib.contextmanager
def ailing(ailment: Ailment, directory: Path, worker: int) -> Iterator[None]:
    """Have the tasks of one worker meet something for the length of the context."""
    place = place_of(ailment, directory, worker)
    place.touch()
    try:
        yield
    finally:
        place.unlink(missing_ok=True)  # two may have met the same worker


def place_of(ailment: Ailment, directory: Path, worker: int) -> Path:
    # An earlier release's stand-in knows the first of them by this name.
    return directory / f"{ailment.name.lower().replace('_', '-')}-for-{worker}"


def attempts(seconds: float) -> Iterator[bool]:
    """Yield whether the time is over, with a pause before each further attempt."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield False
        time.sleep(PAUSE_SECONDS)
    yield True


def kill_worker(pid: int) -> None:
    """Kill a worker, and not what has adopted its fork server since it died."""
    with contextlib.suppress(OSError):
        if b"tests.chaos.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def refused(answer: dict[str, Any]) -> ExitReport:
    state = answer.get("previous_state", "")
    ending = Ending.ALREADY_RUNNING if state == "running" else Ending.STALE
    return ExitReport(ending=ending, previous_state=state)
