"""Starts one child process on a leash, with a log, watches it and stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

from nats_executor.errors import NatsExecutorError
from nats_executor.local.interrupts import interrupts_held
from nats_executor.local.leash import leashed
from nats_executor.local.telling_line import telling_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["LocalError", "Process"]

# How long the leash may take, beyond the grace, to kill and collect what still runs.
LEASH_SECONDS = 5.0
# The traceback of a deep stack, with SQLAlchemy's statement at its end.
TAIL_BYTES = 65_536


class LocalError(NatsExecutorError):
    """Something on this machine does not start or has died; one line for the terminal.

    Attributes:
        log: the log file that tells more, if there is one; part of the line.
    """

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log

    def __str__(self) -> str:
        return f"{self.args[0]} (log: {self.log})" if self.log else str(self.args[0])


class Process:
    """A child process that cannot outlive this one, not even when this one is killed.

    Args:
        name: what people read, such as `scheduler`.
        log: the file that gets its output; an older one is overwritten.
        grace_seconds: how long it may take to stop after SIGTERM.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        grace_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.env = env
        self.grace_seconds = grace_seconds
        self.leash: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and return at once; a command that cannot be run exits with 127."""
        # An interrupt between the start and the assignment would leave the process running.
        with self.log.open("wb") as output, interrupts_held():
            # A session of its own, so that Ctrl-C in the terminal reaches this process alone.
            self.leash = subprocess.Popen(  # noqa: S603
                leashed(self.command, grace_seconds=self.grace_seconds),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )
        return self

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 and the signal's number when a signal ended it."""
        if self.leash is None:
            return None
        code = self.leash.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def fate(self) -> str:
        """How it ended, for a person."""
        code = self.exit_code
        if code is None:
            return "runs"
        if code - 128 in set(signal.Signals):
            return f"was killed by {signal.Signals(code - 128).name}"
        return f"ended with exit code {code}"

    def failure(self) -> LocalError:
        """Return an error that tells how it ended and the last line of its log that says why."""
        words = telling_line(tail(self.log))
        text = f"{self.name} {self.fate}"
        return LocalError(f"{text}: {words}" if words else text, log=self.log)

    def ask_to_stop(self) -> None:
        """Ask it to stop; `wait` for it afterwards."""
        if self.leash is not None and self.leash.stdin is not None:
            self.leash.stdin.close()

    def wait(self) -> None:
        """Wait until it and everything below it is gone; at most the grace and a little more."""
        if self.leash is None:
            return
        try:
            self.leash.wait(self.grace_seconds + LEASH_SECONDS)
        except subprocess.TimeoutExpired:
            # The kernel kills the leash's child with it.
            self.leash.kill()
            self.leash.wait()

    def wait_for_end(self, seconds: float) -> int:
        """Return the exit code of a process that ends by itself.

        Raises:
            LocalError: it still runs after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while (code := self.exit_code) is None:
            if time.monotonic() > deadline:
                raise LocalError(f"{self.name} still runs after {seconds:g} s", log=self.log)
            time.sleep(0.05)
        return code

    def stop(self) -> None:
        """Stop it and wait until it is gone; harmless when it does not run."""
        self.ask_to_stop()
        self.wait()


def tail(log: Path) -> str:
    """Return the end of a log, nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
