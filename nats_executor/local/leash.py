"""Runs a command on a leash: when the process at the other end is gone, so is the command.

    python leash.py <grace seconds> <command> ...

The other end is standard input: as long as that pipe is open the command may run. At its end (the
holder closed it, died or was killed) or at SIGTERM the command gets SIGTERM and the grace, then
SIGKILL, together with every process below it, whichever process group those moved to. The exit
code is the command's, or 128 and the number of the signal that ended it.

Run by path and isolated (`leashed`), because an import of anything else would slow every start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

__all__ = ["leashed"]

# From <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leashed(command: list[str], *, grace_seconds: float) -> list[str]:
    """Return the command line that runs a command on a leash; give it a pipe as standard input."""
    return [sys.executable, "-I", "-S", __file__, str(grace_seconds), *command]


def main() -> int:
    """Run the command of the command line and return its exit code."""
    grace_seconds, command = float(sys.argv[1]), sys.argv[2:]
    # The process that started this one held them back, and the command would inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Orphans of the command become children of this process, so that none escapes by a second fork.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeups, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)

    child = start_command(command)
    code = wait_for_command(child, wakeups)
    if code is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(child, signal.SIGTERM)
        code = wait_for_command(child, wakeups, seconds=grace_seconds)
    killed = kill_below(child)
    return killed if code is None else code


def prctl(option: int, value: int) -> None:
    # Elsewhere the process group and the pipe have to do.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def start_command(command: list[str]) -> int:
    """Start the command in a process group of its own; a missing one exits with 127."""
    # Until the child has the default handlers, a signal to it would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if child := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)  # noqa: S606
    except OSError as exc:
        os.write(2, f"{command[0]}: {exc.strerror}\n".encode())
    finally:
        os._exit(127)


def wait_for_command(child: int, wakeups: int, *, seconds: float | None = None) -> int | None:
    """Return the child's exit code; None after `seconds`, or, without them, when it has to stop."""
    deadline = None if seconds is None else time.monotonic() + seconds
    sources = [wakeups] if deadline else [wakeups, 0]
    while True:
        if (code := reap(child)) is not None:
            return code
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        ready, _, _ = select.select(sources, [], [], left)
        is_asked = wakeups in ready and set(os.read(wakeups, 512)) - {signal.SIGCHLD}
        if deadline is None and (0 in ready or is_asked):
            return reap(child)


def reap(child: int, *, options: int = os.WNOHANG) -> int | None:
    """Collect the processes that have ended; return the child's exit code if it is one of them."""
    code = None
    with contextlib.suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, options))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                code = 128 - code if code < 0 else code
    return code


def kill_below(child: int) -> int:
    """End every process below this one; return the exit code of a killed child."""
    with contextlib.suppress(ProcessLookupError):  # all of the group has ended
        os.killpg(child, signal.SIGKILL)
    # A process may have forked a moment before it was killed, hence the repetition.
    while below := descendants(os.getpid()):
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap(child, options=0)
    return 128 + signal.SIGKILL


def descendants(root: int) -> list[int]:
    """Return the processes below a process; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        # The command's name, in parentheses, may hold spaces and parentheses itself.
        with contextlib.suppress(OSError):
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    generation = children.get(root, [])
    while generation:
        found += generation
        generation = [pid for parent in generation for pid in children.get(parent, [])]
    return found


if __name__ == "__main__":
    sys.exit(main())
