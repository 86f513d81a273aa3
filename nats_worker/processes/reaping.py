"""Takes the exit status of what a task leaves to its supervisor, so that nothing stays defunct.

A supervisor adopts every orphan below it (`adopt_orphans`), and Airflow waits for the task alone. A
task that leaves thousands of short processes behind would fill the kernel's table of them.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from pathlib import Path

__all__ = ["Reaper"]


class Reaper:
    """Takes the dead orphans of one task at a time.

    It acts between two events of Airflow's loop and never in a signal handler. There this process
    is not within a call that has started a child of its own and waits for it.
    """

    def __init__(self) -> None:
        self.bell: socket.socket | None = None
        self.ringer: socket.socket | None = None
        self.not_ours: set[int] = set()
        # A process that is forked while this is attached must not ring the bell.
        os.register_at_fork(after_in_child=self.detach)

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Have SIGCHLD wake a selector of Airflow's up, and take what is dead.

        Those who started the children that are there already, the task above all, wait for them.
        """
        self.detach()
        self.not_ours = children_of_main_thread()
        self.bell, self.ringer = socket.socketpair()
        for end in (self.bell, self.ringer):
            end.setblocking(False)
        signal.set_wakeup_fd(self.ringer.fileno(), warn_on_full_buffer=False)
        # Without any handler Python would not write to the wakeup descriptor.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Python goes on with system calls that a signal interrupts, not every library does.
        signal.siginterrupt(signal.SIGCHLD, False)
        # Airflow's convention: a handler that returns True is kept.
        selector.register(self.bell, selectors.EVENT_READ, (self.answer, selector.unregister))

    def answer(self, bell: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError):
            while bell.recv(4096):
                pass
        self.take()
        return True

    def take(self) -> None:
        """Take the exit status of every orphan that is dead."""
        for pid in children_of_main_thread() - self.not_ours:
            with contextlib.suppress(ChildProcessError):  # some other call has just waited for all
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def detach(self) -> None:
        """Leave SIGCHLD alone again, if it was attached."""
        if self.bell is None or self.ringer is None:
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.bell.close()
        self.ringer.close()
        self.bell = self.ringer = None


def children_of_main_thread() -> set[int]:
    """Return the children of this process's main thread, to which the kernel gives orphans.

    A child of another thread is not listed here, and that thread waits for it.
    """
    pid = os.getpid()
    with contextlib.suppress(OSError):
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return set()
