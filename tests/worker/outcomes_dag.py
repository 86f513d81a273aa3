"""The Dag that the tests' task processes run; copied into a bundle, imported by Airflow only."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from airflow.sdk import DAG, BaseOperator, task


def mark(context: Any, pid: int) -> None:
    marks = Path(os.environ["TEST_MARKS"])
    # Renamed, so that no half of a number is read.
    half = marks / f"{context['ti'].id}.part"
    half.write_text(str(pid))
    half.rename(marks / str(context["ti"].id))


class Sleep(BaseOperator):
    """Runs until it is told to stop."""

    is_stopped = False

    def execute(self, context: Any) -> None:
        mark(context, os.getpid())
        while not self.is_stopped:
            time.sleep(0.02)

    def on_kill(self) -> None:
        self.is_stopped = True


class Stubborn(Sleep):
    """Runs until it is killed."""

    def on_kill(self) -> None: ...


class Deaf(Stubborn):
    """Neither its time-out nor SIGTERM reaches it, as in a library that blocks signals."""

    def execute(self, context: Any) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
        super().execute(context)


class Large(Stubborn):
    """Holds so much memory that its end takes the kernel long after it was killed."""

    def execute(self, context: Any) -> None:
        self.ballast = b"x" * 2**30
        super().execute(context)


class Parent(Stubborn):
    """Has a child in a session of its own, as BashOperator's are; marks the child's pid."""

    def execute(self, context: Any) -> None:
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        mark(context, child.pid)
        child.wait()


class Leave(BaseOperator):
    """Leaves a child running when it ends; marks the child's pid."""

    def execute(self, context: Any) -> None:
        child = subprocess.Popen(
            ["sleep", "1000"], start_new_session=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        mark(context, child.pid)


class Talk(Sleep):
    """Says in its log what it is told."""

    def execute(self, context: Any) -> None:
        self.log.info("the first words")
        super().execute(context)
        self.log.info("the last words")


class Hog(Stubborn):
    """Takes memory until the kernel has had enough."""

    def execute(self, context: Any) -> None:
        mark(context, os.getpid())
        taken = []
        while True:
            taken.append(b"x" * 2**23)


def leave_orphans() -> None:
    """Start processes whose parents have ended, and which end at once."""
    for _ in range(50):
        subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"], check=True)


def children_of_supervisor() -> set[int]:
    supervisor = os.getppid()
    listed = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
    return set(map(int, listed.split()))


with DAG("outcomes", schedule=None):
    Sleep(task_id="sleep")
    Talk(task_id="talk")
    Hog(task_id="hog")
    Stubborn(task_id="stubborn")
    Deaf(task_id="deaf", execution_timeout=timedelta(seconds=1))
    Large(task_id="large")
    Parent(task_id="parent")
    Leave(task_id="leave")

    @task
    def succeed() -> None: ...

    @task
    def give() -> int:
        return 1

    @task
    def fail() -> None:
        raise ValueError("on purpose")

    @task
    def kill_itself() -> None:
        os.kill(os.getpid(), 9)

    @task
    def fault() -> None:
        ctypes.string_at(0)

    @task
    def interrupt_itself() -> None:
        signal.raise_signal(signal.SIGINT)

    @task
    def end_without_a_name() -> None:
        signal.raise_signal(signal.SIGRTMIN + 1)

    @task
    def orphans() -> None:
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == -1
        leave_orphans()
        deadline = time.monotonic() + 45
        while left := children_of_supervisor() - {os.getpid()}:
            assert time.monotonic() < deadline, f"{len(left)} are still there, dead or alive"
            time.sleep(0.02)

    @task
    def quit_beside_orphans() -> None:
        leave_orphans()
        os._exit(7)

    @task
    def quit_itself() -> None:
        os._exit(7)

    @task
    def modules(ti: Any) -> None:
        path = Path(os.environ["TEST_MARKS"]) / str(ti.id)
        path.write_text(json.dumps(list(sys.modules)))

    @task
    def tcp_sockets(ti: Any) -> None:
        """Marks how many of them its process holds."""
        tables = Path("/proc/self/net/tcp").read_text() + Path("/proc/self/net/tcp6").read_text()
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of this loop
                kind, _, number = str(descriptor.readlink()).partition(":")
                found += [number] * (kind == "socket" and f" {number.strip('[]')} " in tables)
        mark({"ti": ti}, len(found))

    succeed()
    give()
    fail()
    kill_itself()
    fault()
    interrupt_itself()
    end_without_a_name()
    orphans()
    quit_beside_orphans()
    quit_itself()
    modules()  # type: ignore[call-arg]
    tcp_sockets()  # type: ignore[call-arg]
