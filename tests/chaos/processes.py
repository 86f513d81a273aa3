"""The processes of a run: started, kept running, hurt on purpose, and none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nats_worker.processes.linux import children_of, kill_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.release import Release

__all__ = ["Crew", "Member", "descendants", "left_behind"]

# Every process of a run inherits this variable, by which one that escaped is found.
MARK = "CHAOS_RUN"
RESTART_SECONDS = 0.3
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05


class Member:
    """One process that is started again whenever it ends, unless a fault keeps it away.

    Args:
        environment: what it has beside this process's own.
        is_patient: whether it has long to stop, so that a successor starts before its end.

    Attributes:
        alias: the name of its present life; a successor's is another one.
        draining: the lives that were asked to stop while a successor started.
        release: whose code its next lives have; that of this process without any.
        is_kept: whether to start it again.
        pids: of all its lives.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        is_patient: bool = False,
    ) -> None:
        self.name = self.alias = name
        self.is_patient = is_patient
        self.draining: list[subprocess.Popen[bytes]] = []
        self.environment = environment or {}
        self.module = f"tests.chaos.{module}"
        self.arguments = arguments
        self.release: Release | None = None
        self.log = log
        self.is_kept = False
        self.pids: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.RLock()

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def command(self) -> list[str]:
        arguments = [self.alias if word == self.name else word for word in self.arguments]
        if self.release:
            return self.release.command(self.module, *arguments)
        return [sys.executable, "-P", "-m", self.module, *arguments]

    @property
    def code(self) -> dict[str, str]:
        return dict(self.release.environment) if self.release else {}

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with self.lock:
            if not self.is_alive:
                with self.log.open("ab") as log:
                    self.process = subprocess.Popen(
                        self.command,
                        stdout=log,
                        stderr=log,
                        env={**os.environ, **self.environment, **self.code},
                        start_new_session=True,
                    )
                self.pids.append(self.process.pid)
            self.is_kept = True

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)  # does nothing once it was waited for

    def end(self, number: int) -> None:
        """End it and keep it away until `start`."""
        self.is_kept = False
        self.signal(number)
        self.signal(signal.SIGCONT)
        if self.process is not None:
            self.process.wait(STOP_SECONDS)

    def replace(self) -> subprocess.Popen[bytes]:
        """Ask it to stop, start a successor under another name, and return what is stopping."""
        with self.lock:
            process = self.process
            if process is None:
                raise RuntimeError(f"{self.name} does not run")
            process.send_signal(signal.SIGTERM)
            self.draining.append(process)
            self.alias = f"{self.name}-{len(self.draining)}"
            self.process = None
            self.start()
        return process

    def let_drain(self, seconds: float) -> None:
        """Wait for the ends of those that are stopping; what does not end is found later."""
        deadline = time.monotonic() + seconds
        for process in self.draining:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def keep(self) -> None:
        """Start it again if it has ended by itself or was killed by something it ran."""
        with self.lock:
            if self.is_kept and not self.is_alive:
                self.start()


class Crew:
    """All members, and the thread that keeps them running."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.is_closing = threading.Event()
        self.keeper = threading.Thread(target=self.keep, name="keeper", daemon=True)

    def start(self) -> None:
        for member in self.members:
            member.start()
        self.keeper.start()

    def keep(self) -> None:
        while not self.is_closing.wait(RESTART_SECONDS):
            for member in self.members:
                member.keep()

    def dismiss(self) -> None:
        """Start nothing again from here on."""
        self.is_closing.set()
        if self.keeper.is_alive():
            self.keeper.join()
        for member in self.members:
            member.is_kept = False

    def kill(self) -> None:
        """End whatever still runs, with all that is below it."""
        self.dismiss()
        for member in self.members:
            if member.is_alive:
                kill_tree(member.pid)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if member.process:
                        member.process.wait(STOP_SECONDS)
        for pid in left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """Every process below one."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        children = children_of(todo.pop()) - found
        found |= children
        todo += children
    return found


def left_behind(but: Sequence[int] = ()) -> dict[int, str]:
    """Return the living processes of this run, other than this one, with their command lines."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    return {pid: line for pid, line in commands(mark) if pid != os.getpid() and pid not in but}


def commands(mark: bytes) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                yield int(folder.name), line


def wait_for(seconds: float, condition: object) -> bool:
    """Return whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while callable(condition):
        if condition():
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return False
