"""Keeps track of processes by what Linux offers, each call with what it promises."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nats_worker.processes.exit_report import signal_name

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DUMP_SIGNAL",
    "KILLED_SECONDS",
    "adopt_orphans",
    "children_of",
    "die_with",
    "dump_on_request",
    "end_trees",
    "exit_in_words",
    "gather_memory",
    "is_in_session",
    "keep_private",
    "kill_tree",
    "prefer_as_oom_victim",
    "send_signal",
    "state_of",
]

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
# As if half of the memory were used on top: the kernel takes a workload, not the worker.
OOM_SCORE_HANDICAP = 500
OOM_SCORE_LIMIT = 1000
# From <linux/mman.h>, since Linux 6.1.
MADV_COLLAPSE = 25
HUGE_PAGE_BYTES = 2 * 1024 * 1024

# For the ends of killed processes; what takes longer hangs in the kernel.
KILLED_SECONDS = 5.0
# Has one of our processes write to stderr where it is.
DUMP_SIGNAL = signal.SIGUSR2
PROCESS_STATES = {
    "D": "waits for a disk or a network file system",
    "T": "is stopped",
    "Z": "has ended",
}

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none can hide."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_private() -> None:
    """Keep this process's memory and environment from all but root, until it runs a program."""
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent is gone."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the call, and then no signal would ever come.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def prefer_as_oom_victim() -> None:
    """Offer this process and its children to the kernel first when memory runs out.

    Once for a process and those that it forks: a task of a zygote is as likely a victim as others.
    """
    # Not every sandbox lets a process write here, and nothing depends on it.
    with contextlib.suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(min(int(score.read_text()) + OOM_SCORE_HANDICAP, OOM_SCORE_LIMIT)))


def gather_memory() -> None:
    """Gather this process's memory in huge pages, which makes each fork and its exit cheaper.

    The kernel copies one entry for each page when a process forks, and drops one for each when
    the child exits. Advice only: an older kernel refuses it, and then nothing has changed.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, access, _, _, _, *name = line.split()
            begin, end = (int(address, 16) for address in span.split("-"))
            is_heap = access == "rw-p" and name in ([], ["[heap]"])
            if is_heap and end - begin >= HUGE_PAGE_BYTES:
                LIBC.madvise(begin, end - begin, MADV_COLLAPSE)


def dump_on_request() -> None:
    """Write the traceback of this process, and of those it forks, to stderr at `DUMP_SIGNAL`."""
    faulthandler.register(DUMP_SIGNAL, all_threads=False)


def state_of(pid: int) -> str:
    """Say what a process is doing, as far as the kernel tells."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "has ended"
    return PROCESS_STATES.get(letter, "does not go on; its traceback is in this worker's log")


def children_of(pid: int) -> set[int]:
    """Return the direct children of a process; empty if it is gone."""
    children: set[int] = set()
    # A thread other than the main one may have forked, so every thread's list counts.
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children.update(map(int, Path(thread.path, "children").read_text().split()))
    return children


def send_signal(pid: int, sig: int) -> None:
    """Signal the process group that a process leads, or the process alone if it leads none.

    Raises:
        ValueError: to the kernel this number stands for our own group, or for every process.
    """
    if pid <= 1:
        raise ValueError(f"{pid} is no process of ours")
    try:
        os.killpg(pid, sig)
    except ProcessLookupError:
        # Gone already is what a caller wants in the end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, whatever group or session they are in."""
    # The whole tree is read before the first kill, which would tear it apart. And it is stopped, so
    # that no process writes of another's end into the log.
    tree = [pid]
    for parent in tree:
        signal_if_allowed(parent, signal.SIGSTOP)
        tree.extend(children_of(parent))
    for process in reversed(tree):
        signal_if_allowed(process, signal.SIGKILL)


def end_trees(roots: Iterable[int], seconds: float) -> None:
    """Kill processes with all their descendants, and wait until none of these runs any more.

    A killed process runs on until the kernel comes to it and has given its memory back. On a busy
    machine, or with gigabytes, that takes a tenth of a second and more.

    Args:
        seconds: the longest wait. A process that hangs in the kernel does not die.
    """
    trees = [pid for root in roots for pid in (root, *descendants_of(root))]
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        ends = set(filter(None, map(watch_end, trees)))
        for end in ends:
            stack.callback(os.close, end)
            poll.register(end, select.POLLIN)
        for root in roots:
            kill_tree(root)
        deadline = time.monotonic() + seconds
        while ends and (left := deadline - time.monotonic()) > 0:
            for end, _ in poll.poll(left * 1000):
                poll.unregister(end)
                ends.discard(end)


def descendants_of(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        found.extend(children_of(parent))
    return found[1:]


def watch_end(pid: int) -> int | None:
    """Return a descriptor that is readable once a process has ended, None if there is none.

    Of another user's process there is none, because it is not killed.
    """
    try:
        os.kill(pid, 0)
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # it has ended, or this is before Linux 5.3, or a sandbox
        return None


def signal_if_allowed(pid: int, sig: int) -> None:
    """Signal as `send_signal` does, unless it is another user's, as what `sudo` runs is."""
    with contextlib.suppress(PermissionError):
        send_signal(pid, sig)


def is_in_session(pid: int, session: int) -> bool:
    """Return whether a pid is still what it was: a supervisor's session is its own pid."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def exit_in_words(exit_code: int) -> str:
    """Say how a process ended, by `subprocess`'s convention for its exit code."""
    if exit_code < 0:
        return f"was killed by {signal_name(-exit_code)}"
    return f"exited with status {exit_code}"
