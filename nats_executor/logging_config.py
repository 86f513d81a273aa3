"""Gives Airflow its own logging configuration, with task logs in NATS allowed.

Airflow 3.3 and 3.4 read remote logs by the scheme that a provider registers, but their default
configuration still refuses every scheme that it does not list itself, and then no `airflow` command
starts. As `[logging] logging_config_class`, `nats_executor.logging_config.LOGGING_CONFIG` is that
default without the refusal.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from airflow.configuration import conf

from nats_executor.logs.ended import require_bare

__all__ = ["LOGGING_CONFIG"]

DEFAULT = "airflow.config_templates.airflow_local_settings"
SWITCH = "AIRFLOW__LOGGING__REMOTE_LOGGING"


def default_config() -> dict[str, Any]:
    """Return the default; it looks at the switch once, when it is imported."""
    if DEFAULT not in sys.modules:
        before = os.environ.get(SWITCH)
        os.environ[SWITCH] = "False"
        try:
            importlib.import_module(DEFAULT)
        finally:
            if before is None:
                del os.environ[SWITCH]
            else:
                os.environ[SWITCH] = before
    config: dict[str, Any] = vars(sys.modules[DEFAULT])["DEFAULT_LOGGING_CONFIG"]
    return config


# An error here ends the start of a misconfigured process. Later, Airflow would go on without logs.
if conf.getboolean("logging", "remote_logging", fallback=False):
    require_bare(conf.get("logging", "remote_base_log_folder", fallback=""))

LOGGING_CONFIG = default_config()
