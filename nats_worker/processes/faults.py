"""Lets a fault in a task end its process, as the kernel has it.

A fault is a signal for an instruction that cannot be carried out, such as one that follows a wild
pointer in a C extension. Python only notes the signal and calls a handler of its own later, between
two instructions of Python. Until then the faulty instruction is tried again, and fails again: the
process uses up a core and never ends, and no timeout of Airflow's ends it.

Airflow's Dag importer installs such a handler for SIGSEGV, in the process that goes on to run the
task (apache/airflow#57174). Found in Airflow 3.3.2 and 3.4.0b2, which has moved the importer.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
from typing import Any

__all__ = ["leave_to_kernel"]

log = logging.getLogger(__name__)

FAULTS = (signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
# Where Airflow installs its handler, by the name `signal` in each of them.
IMPORTERS = (
    "airflow.dag_processing.importers.python_importer",
    "airflow.sdk.importers.python_importer",
)


class SignalsButFaults:
    """The module `signal` for Airflow's importer; a handler for a fault is not installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)

    @staticmethod
    def signal(number: int, handler: Any) -> Any:
        if number in FAULTS:
            return signal.getsignal(number)
        return signal.signal(number, handler)


def leave_to_kernel() -> None:
    """Have faults end this process, and those forked from it, by their signals.

    Where Airflow has moved its importer again, its handler stays and a warning says so. Handlers
    that are not Python's, as those of faulthandler, are left alone, and so is what a Dag installs.
    """
    for number in FAULTS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    spared = [name for name in IMPORTERS if spare(name)]
    if not spared:
        log.warning(
            "this Airflow has none of %s; next: a task with a segmentation fault may use up a core "
            "until it is marked failed",
            ", ".join(f"{name}.signal" for name in IMPORTERS),
        )


def spare(importer: str) -> bool:
    """Have a module of Airflow install no handlers for faults; return whether it was found."""
    with contextlib.suppress(ImportError):
        names = vars(importlib.import_module(importer))
        if names.get("signal") is signal:
            names["signal"] = SignalsButFaults()
        return isinstance(names.get("signal"), SignalsButFaults)
    return False
