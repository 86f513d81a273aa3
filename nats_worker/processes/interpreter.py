"""Prepares the interpreter in which a task runs that gets one of its own.

Airflow 3.4 starts it by exec where `[core] execute_tasks_new_python_interpreter` says so. The
fork server's preparations for tasks that are forked are not there: they have to be done again.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.configuration import conf

from nats_worker.processes.concealment import hide_login
from nats_worker.processes.faults import leave_to_kernel

__all__ = ["OPTION", "is_wanted", "prepare_all"]

log = logging.getLogger(__name__)

OPTION = "[core] execute_tasks_new_python_interpreter"
# Airflow's supervisor gives the first one to the new interpreter to run. The second one is its
# beginning, and closes the process's memory to others (found in Airflow 3.4.0b2).
BOOTSTRAP, PRELUDE = "_CHILD_EXEC_BOOTSTRAP", "_CHILD_EXEC_PRELUDE"
# As `-P` does for our other processes: a module of a task's working directory is not ours. `sys` is
# built in.
SAFE_PATH = "import sys\nif sys.path[:1] == ['']:\n    del sys.path[0]\n"
PREPARATIONS = {
    hide_login: "the login for NATS could not be hidden from a task",
    leave_to_kernel: "a segmentation fault may not end a task",
}
PREPARATION = f"from {__name__} import prepare_one\nprepare_one()\n"


def is_wanted() -> bool:
    return bool(conf.getboolean("core", "execute_tasks_new_python_interpreter", fallback=False))


def prepare_one() -> None:
    """Do for one task what the fork server does for all; a part that fails is a warning."""
    for step, what in PREPARATIONS.items():
        try:
            step()
        except Exception:
            text = "%s in an interpreter of its own; next: it runs all the same"
            log.warning(text, what, exc_info=True)


def prepare_all(supervisor: Any) -> bool:
    """Have every new interpreter prepared; return whether this Airflow starts any.

    Args:
        supervisor: Airflow's module.
    """
    prelude, bootstrap = (getattr(supervisor, name, None) for name in (PRELUDE, BOOTSTRAP))
    if prelude is None or bootstrap is None:
        return False
    if PREPARATION not in bootstrap:
        setattr(supervisor, BOOTSTRAP, SAFE_PATH + prelude + PREPARATION + bootstrap)
    return True
