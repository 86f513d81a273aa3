"""Does once, in the fork server, what each workload would do again; opens no connection.

Each step checks what it relies on in Airflow. Where that has changed, workloads do it themselves.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.configuration import conf
from airflow.executors.base_executor import get_execution_api_server_url
from airflow.sdk.api import client as api
from airflow.sdk.execution_time import supervisor
from pydantic import JsonValue, TypeAdapter

from nats_executor.logs.ended import StoredLogs
from nats_worker.processes.airflow_supervisor import lacks
from nats_worker.processes.faults import leave_to_kernel
from nats_worker.processes.interpreter import OPTION, is_wanted, prepare_all
from nats_worker.processes.log_set_up import clear_loggers_once

__all__ = ["warm_up"]

log = logging.getLogger(__name__)

OUR_LOGGING = "nats_executor.logging_config.LOGGING_CONFIG"


def warm_up() -> None:
    """Take every step; one that fails is a warning."""
    lacks()
    leave_to_kernel()
    if not prepare_all(supervisor) and is_wanted():
        text = "%s has no effect: this Airflow forks every task; 3.4 starts an interpreter for each"
        log.warning(text, OPTION)
    for step in (
        read_authorities,
        share_decoders,
        rehearse_request,
        prepare_log_lines,
        read_plugin_packages,
        clear_loggers_once,
    ):
        try:
            step()
        except Exception:
            log.warning("cannot %s before the forks; each task does", step.__name__, exc_info=True)


def read_authorities() -> None:
    """Have Airflow read the certificate authorities, which it keeps with its first API client."""
    api.Client(base_url=get_execution_api_server_url(), token="").close()


def share_decoders() -> None:
    """Build once the decoders that Airflow's task process builds again for each task.

    Pydantic's decoders are costly to build and keep no state. Where a module of Airflow no longer
    finds `TypeAdapter` among its own names, it goes on building them.
    """
    from airflow.sdk.execution_time import comms, task_runner

    kinds: list[Any] = [comms.ToTask, JsonValue]
    ready: dict[int, TypeAdapter[Any]] = {id(kind): TypeAdapter(kind) for kind in kinds}

    def decoder(kind: Any, *, _parent_depth: int = 2, **options: Any) -> TypeAdapter[Any]:
        found = None if options else ready.get(id(kind))
        return found or TypeAdapter(kind, _parent_depth=_parent_depth + 1, **options)

    for module in (comms, task_runner):
        if vars(module).get("TypeAdapter") is TypeAdapter:
            vars(module)["TypeAdapter"] = decoder


def rehearse_request() -> None:
    """Send a request through Airflow's API client for dry runs, which answers it itself."""
    with api.Client(base_url=None, dry_run=True, token="") as client:
        client.request("PATCH", "/", content="{}")


def prepare_log_lines() -> None:
    """Have Airflow prepare how task logs are written, unless they may go to a remote place.

    A handler that sends logs elsewhere may start a thread or connect, so it belongs into a
    workload. Our own does neither before a log is complete.
    """
    from airflow.sdk.log import load_remote_log_handler, logging_processors

    is_remote = conf.getboolean("logging", "remote_logging", fallback=False)
    config = conf.get("logging", "logging_config_class", fallback="")
    if config == OUR_LOGGING or not (is_remote or config):
        logging_processors(json_output=True)
        if isinstance(place := load_remote_log_handler(), StoredLogs):
            place.prepare()


def read_plugin_packages() -> None:
    """Read what the packages of plugins say of themselves; each task would, twice for each plugin.

    It asks for their names and versions, which stand above the whole text of their READMEs.
    Airflow keeps the objects that it asks.
    """
    from airflow.sdk._shared.module_loading import entry_points_with_dist

    for _, package in entry_points_with_dist("airflow.plugins"):
        kind = type(package)
        package.__class__ = type(kind.__name__, (kind,), {"metadata": package.metadata})
