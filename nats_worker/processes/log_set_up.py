"""Has Python clear what its loggers keep once for each configuration of logging, not 80 times.

Airflow configures logging in each task's process. For every logger that its configuration gives a
level, and for every logger below one of these, Python then goes through all loggers there are: some
1,400 in a process that has imported Airflow. In a fork the walk also copies their memory. It is
enough once, at the end: no other thread runs, and Python reads what is cleared only to log a line.
"""

from __future__ import annotations

import logging
import logging.config
from typing import Any

__all__ = ["CLEARING", "clear_loggers_once"]

# The method of Python's `logging.Manager` that every change of a level calls.
CLEARING = "_clear_cache"


def clear_loggers_once() -> None:
    """Put a subclass in the place that Python's `logging.config` has for one.

    Raises:
        AttributeError: this Python clears its loggers otherwise; nothing was changed.
    """
    getattr(logging.Manager, CLEARING)
    base: Any = logging.config.dictConfigClass

    class ClearingOnce(base):  # type: ignore[misc]
        def configure(self) -> None:
            manager = logging.root.manager
            setattr(manager, CLEARING, lambda: None)
            try:
                super().configure()
            finally:
                delattr(manager, CLEARING)
                getattr(manager, CLEARING)()

    vars(logging.config)["dictConfigClass"] = ClearingOnce
