"""Takes the facts of this process that a parse may change, and says which of them it did."""

from __future__ import annotations

import atexit
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from nats_worker.processes.linux import children_of
from nats_worker.processes.zygote_book import Reason

__all__ = ["Snapshot", "changes", "private_bytes", "take"]

PROC = Path("/proc/self")
# Airflow's importer sets both for each file; the task gets what it set.
IMPORTERS = frozenset({signal.SIGALRM, signal.SIGSEGV})
MASKS = ("SigBlk:", "SigIgn:", "Umask:")
LIMITS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_STACK")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The process at one moment; each field is compared as a whole.

    Attributes:
        threads: the kernel's, after a fork; libraries of mathematics end theirs before each one.
        ends: functions that are registered for the end of the process.
    """

    threads: int
    children: frozenset[int]
    descriptors: dict[str, str]
    shared: frozenset[str]
    handlers: dict[int, Any]
    environment: dict[str, str]
    settings: tuple[Any, ...]
    hooks: tuple[Any, ...]
    logging: tuple[Any, ...]
    random: int
    ends: int


OF_FIELDS = {
    "threads": Reason.THREAD,
    "children": Reason.PROCESS,
    "descriptors": Reason.DESCRIPTOR,
    "shared": Reason.DESCRIPTOR,
    "handlers": Reason.SIGNAL,
    "environment": Reason.ENVIRONMENT,
    "settings": Reason.SETTING,
    "hooks": Reason.HOOK,
    "logging": Reason.LOG,
    "random": Reason.RANDOM,
}


def changes(before: Snapshot, after: Snapshot, *, ends: int = 0) -> set[Reason]:
    """Return what differs.

    Args:
        ends: how many functions for the end of the process are known and will be kept.
    """
    found = {
        reason
        for name, reason in OF_FIELDS.items()
        if getattr(before, name) != getattr(after, name)
    }
    if after.ends - before.ends != ends:
        found.add(Reason.SETTING)
    return found


def take() -> Snapshot:
    """Look at this process. It forks once, and the child ends at once."""
    settle_threads()
    gc.collect()  # files that nothing holds any more are closed
    return Snapshot(
        threads=len(list((PROC / "task").iterdir())),
        children=frozenset(children_of(os.getpid())),
        descriptors=open_descriptors(),
        shared=shared_maps(),
        handlers={
            sig: signal.getsignal(sig) for sig in signal.valid_signals() if sig not in IMPORTERS
        },
        environment=dict(os.environ),
        settings=settings(),
        hooks=(
            [*map(id, sys.meta_path)],
            [*map(id, sys.path_hooks)],
            sys.gettrace(),
            sys.getprofile(),
            sys.dont_write_bytecode,
        ),
        logging=log_settings(),
        random=hash(random.getstate()),
        ends=atexit._ncallbacks(),  # noqa: SLF001
    )


def settle_threads() -> None:
    """Fork, as a supervisor will: what ends its threads before each fork has none after it."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def open_descriptors() -> dict[str, str]:
    found = {}
    for entry in (PROC / "fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the one that lists them
    return found


def shared_maps() -> frozenset[str]:
    """Return the memory that is shared and can be written, as locks of processes are."""
    lines = (line.split(maxsplit=5) for line in (PROC / "maps").read_text().splitlines())
    return frozenset(" ".join(parts) for parts in lines if parts[1].startswith("rw-s"))


def settings() -> tuple[Any, ...]:
    masks = [line for line in (PROC / "status").read_text().splitlines() if line.startswith(MASKS)]
    return (
        Path.cwd(),
        masks,
        locale.setlocale(locale.LC_ALL),
        socket.getdefaulttimeout(),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.excepthook,
        sys.displayhook,
        threading.excepthook,
        signal.getitimer(signal.ITIMER_REAL),
        gc.isenabled(),
        gc.get_threshold(),
        [*warnings.filters],
        [resource.getrlimit(getattr(resource, name)) for name in LIMITS],
        (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
    )


def log_settings() -> tuple[Any, ...]:
    """Return what logging was told; a logger that was only named has nothing to compare."""
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    told = {
        name: facts
        for name, logger in loggers.items()
        if isinstance(logger, logging.Logger) and (facts := facts_of(logger)) != UNTOLD
    }
    return (told, logging.root.manager.disable, id(logging.getLoggerClass()), structured())


UNTOLD: tuple[Any, ...] = (logging.NOTSET, [], [], False, True)


def facts_of(logger: logging.Logger) -> tuple[Any, ...]:
    handlers = [*map(id, logger.handlers)]
    filters = [*map(id, logger.filters)]
    return (logger.level, handlers, filters, logger.disabled, logger.propagate)


def structured() -> dict[str, Any]:
    return {name: repr(value) for name, value in structlog.get_config().items()}


def private_bytes() -> int:
    """Return the memory that this process shares with no other, 0 if the kernel does not tell."""
    try:
        lines = (PROC / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
