"""Ends what a run has left when its driver was killed: `python -m tests.chaos.reaper MARK`.

It waits for the end of its input, which the kernel closes however the driver ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from unittest import mock

from tests.chaos.processes import MARK, left_behind, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["marked", "reaping"]

END_SECONDS = 10.0


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """Have whatever has this process's mark end with this process, at the latest."""
    mark = os.environ[MARK]
    # Without the mark itself, because it is to outlive all the others.
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-P", "-m", "tests.chaos.reaper", mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True):
        yield


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Mark whatever is started in this context, and leave none of it behind."""
    with mock.patch.dict(os.environ, {MARK: secrets.token_hex(8)}), reaping():
        yield


def has_ended_all() -> bool:
    found = left_behind()
    for pid in found:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)
    return not found


def main(mark: str) -> None:
    os.environ[MARK] = mark
    sys.stdin.buffer.read()
    wait_for(END_SECONDS, has_ended_all)


if __name__ == "__main__":
    main(sys.argv[1])
