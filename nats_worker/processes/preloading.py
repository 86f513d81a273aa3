"""Imports in the fork server what the processes that it forks share."""

from __future__ import annotations

import gc
import importlib
import logging
from typing import TYPE_CHECKING

from nats_worker.processes import otel
from nats_worker.processes.linux import gather_memory

if TYPE_CHECKING:
    import socket

__all__ = ["preload"]

log = logging.getLogger(__name__)

# Found by comparing `sys.modules` of a task process with this list's result; each one missing
# here is imported again by every single task.
PRELOADED = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.bundles.manager",
    "airflow.dag_processing.dagbag",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.execution_time.callback_supervisor",
    "airflow.sdk.execution_time.connection_test_supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.timeout",
    "airflow.sdk.serde",
    "airflow.serialization.serialized_objects",
    "airflow.version",
    "encodings.idna",
    "jinja2.ext",
    "jinja2.sandbox",
    "nats_executor.ui.plugin",
    "nats_worker.processes.supervisor",
    "setproctitle",
)


def leave_logs_to(uploads: socket.socket) -> None:
    """Have the worker's uploader store task logs."""
    from nats_executor.logs import ended
    from nats_worker.processes.upload_requests import UploadRequests

    ended.leave_to(UploadRequests(uploads))


def preload(uploads: socket.socket | None = None) -> None:
    """Import what tasks need, and freeze it so that forked processes go on sharing it.

    Args:
        uploads: where to ask for logs to be stored; without one supervisors store them themselves.
    """
    with otel.switched_off():
        from nats_worker.processes.concealment import hide_login
        from nats_worker.processes.warm_up import warm_up

        for name in PRELOADED:
            try:
                importlib.import_module(name)
            except ImportError:
                log.warning("cannot preload %s; each task imports what it needs of it", name)
        try:
            hide_login()
        except Exception:
            text = "tasks may find the login for NATS in Airflow's configuration"
            log.warning(text, exc_info=True)
        if uploads:
            leave_logs_to(uploads)
        warm_up()
    otel.prepare_exporters()
    otel.tell_threads()
    gc.collect()
    gc.freeze()
    gather_memory()
