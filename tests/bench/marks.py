"""Marks that functions of Airflow and of the fork server leave in a file, with the time of each."""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Mark", "marking_python", "put_marks", "read_marks"]

MARKED_SERVER = """#!{python}
import sys
from tests.bench.marks import put_marks
put_marks({marks!r})
from nats_worker.processes import forkserver
forkserver.main(*[int(word) for word in sys.argv if word.isdigit()])
"""

# Marked functions: each leaves a mark when it is called and one when it returns.
SDK = "airflow.sdk.execution_time"
MARKED = {
    "nats_worker.processes.forkserver:ForkServer": "fork supervise",
    "airflow.sdk.api.client:Client": "request",
    f"{SDK}.supervisor": "supervise_task _fork_main",
    f"{SDK}.supervisor:WatchedSubprocess": "start",
    f"{SDK}.supervisor:ActivitySubprocess": "_on_child_started _monitor_subprocess",
    f"{SDK}.task_runner": "main get_startup_details parse run _execute_task",
    "os": "_exit",
}
# What these functions begin is another process than the one before.
BIRTHS = {"supervise": "supervisor", "_fork_main": "task"}


class Mark(NamedTuple):
    """Where a process was, and when: seconds of the clock and of its own CPU time."""

    name: str
    pid: int
    wall: float
    cpu: float


def put_marks(path: str) -> None:
    """Have the functions of `MARKED` leave marks in a file, in this process and its children."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    role = "server"

    def mark(name: str) -> None:
        line = f"{role}:{name} {os.getpid()} {time.monotonic()} {time.process_time()}\n"
        os.write(file, line.encode())

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal role
            if function.__name__ in BIRTHS:
                role = BIRTHS[function.__name__]
                os.write(file, f"{role}:born {os.getpid()} {time.monotonic()} 0.0\n".encode())
            mark(f"{function.__name__}>")
            try:
                return function(*args, **kwargs)
            finally:
                mark(f"{function.__name__}<")

        return call

    for place, names in MARKED.items():
        module, _, cls = place.partition(":")
        __import__(module)
        owner = getattr(sys.modules[module], cls) if cls else sys.modules[module]
        for name in names.split():
            found = vars(owner).get(name)
            if isinstance(found, classmethod):
                setattr(owner, name, classmethod(marked(found.__func__)))
            elif found is not None:
                setattr(owner, name, marked(found))


def marking_python(directory: Path) -> tuple[Path, Path]:
    """Return the file for the marks, and a Python that runs as a fork server which leaves them."""
    marks, python = directory / "marks.txt", directory / "python"
    python.write_text(MARKED_SERVER.format(python=sys.executable, marks=str(marks)))
    python.chmod(0o755)
    return marks, python


def read_marks(path: Path) -> list[Mark]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return [Mark(name, int(pid), float(wall), float(cpu)) for name, pid, wall, cpu in lines]
