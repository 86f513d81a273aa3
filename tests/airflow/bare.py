"""A component that nothing holds: what it leaves behind when it is killed stays to be seen."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from contextlib import suppress
from typing import Self

from nats_executor.local.process import Process

__all__ = ["Bare"]

PR_SET_PDEATHSIG = 1


class Bare(Process):
    """A process without the leash, which would collect the children of one that was killed."""

    @classmethod
    def like(cls, process: Process) -> Bare:
        return cls(
            process.name,
            process.command,
            log=process.log,
            env=process.env,
            grace_seconds=process.grace_seconds,
        )

    def start(self) -> Self:
        with self.log.open("wb") as output:
            self.leash = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the driver has one thread
            )
        return self

    @property
    def pid(self) -> int:
        return self.leash.pid if self.leash else 0

    def signal(self, number: signal.Signals) -> None:
        if self.leash is not None:
            self.leash.send_signal(number)

    def let_go(self) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            self.signal(signal.SIGTERM)


def die_with_parent() -> None:
    """Not even a driver that is killed leaves workers behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
