"""Each name of Airflow's insides that a worker uses is there in the installed release."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import logging.config
from typing import Any

import airflow
import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.executors.base_executor import BaseExecutor
from airflow.sdk.api import client as api
from airflow.sdk.execution_time import callback_supervisor, supervisor
from airflow.sdk.observability import stats
from packaging.version import Version

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_worker.api.client import httpx
from nats_worker.api.kept_connections import ARGUMENTS, CLIENT_MAKER, TRANSPORTS
from nats_worker.processes import interpreter, zygote_parse
from nats_worker.processes.airflow_supervisor import RELIED_ON, lacks
from nats_worker.processes.log_set_up import CLEARING
from nats_worker.processes.preloading import PRELOADED
from nats_worker.processes.zygote_parse import missing_names

# What no check at run time looks for: where one is missing, a step is left out or the start fails.
USED = {
    "airflow.cli.commands.daemon_utils": ("run_command_with_daemon_option",),
    "airflow.dag_processing.bundles.base": ("BundleUsageTrackingManager",),
    "airflow.config_templates.airflow_local_settings": ("DEFAULT_LOGGING_CONFIG",),
    "airflow.executors.base_executor": ("ExecutorConf", "get_execution_api_server_url"),
    "airflow.observability.metrics.stats_utils": ("get_stats_factory",),
    "airflow.sdk._shared.module_loading": ("entry_points_with_dist",),
    "airflow.sdk.execution_time.comms": ("ToTask", "TypeAdapter"),
    "airflow.sdk.execution_time.task_runner": ("TypeAdapter",),
    "airflow.sdk.log": ("load_remote_log_handler", "logging_processors"),
    "airflow.sdk.observability.metrics.stats_utils": ("get_stats_factory",),
    "airflow.settings": ("configure_otel",),
    "airflow.utils.cli": ("setup_locations",),
    "airflow.utils.serve_logs.log_server": ("get_app",),
}


def name_of(thing: Any) -> str:
    return str(thing.__name__)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in RELIED_ON.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
def test_what_the_supervisor_relies_on_is_there(owner: Any, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in USED.items() for name in names]
)
def test_what_is_used_elsewhere_is_there(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_what_zygotes_rely_on_is_there_in_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.4 has moved its importers; there every task parses."""
    assert bool(missing_names()) is AIRFLOW_V_3_4_PLUS

    monkeypatch.setattr(
        zygote_parse, "RELIED_ON_FOR_ZYGOTES", {"os": ("a", "path"), "no.b": ("c",)}
    )

    assert missing_names.__wrapped__() == ["os.a", "no.b.c"]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (BaseExecutor.run_workload, {"workload", "server", "subprocess_logs_to_stdout"}),
        (SimpleAuthManager.get_generated_password_file, set()),
        (SimpleAuthManager.get_passwords, set()),
        (stats.initialize, {"factory", "export_legacy_names"}),
    ],
    ids=lambda value: name_of(value) if callable(value) else "",
)
def test_what_is_called_takes_what_it_is_given(function: Any, arguments: set[str]) -> None:
    inspect.signature(function).bind(**dict.fromkeys(arguments))


def test_a_request_can_be_sent_once() -> None:
    """By the method of 3.4, or by what 3.3's decorator wraps; that one's attempts are counted."""
    has_method = hasattr(api.Client, "_request_without_retry")
    assert has_method or hasattr(api.Client.request, "__wrapped__")
    assert has_method or api.API_RETRIES >= 1


@pytest.mark.parametrize("name", PRELOADED)
def test_what_is_preloaded_is_there(name: str) -> None:
    assert importlib.util.find_spec(name)


def test_what_only_saves_time_is_there() -> None:
    assert hasattr(supervisor.ActivitySubprocess, "_last_heartbeat_attempt")
    assert "dry_run" in inspect.signature(api.Client.__init__).parameters
    has_group = (
        "new_process_group" in inspect.signature(supervisor.WatchedSubprocess.start).parameters
    )
    assert has_group is (Version(airflow.__version__) > Version("3.3.0"))


def test_connections_are_kept_through_names_that_are_there() -> None:
    make = getattr(supervisor, CLIENT_MAKER)
    assert getattr(callback_supervisor, CLIENT_MAKER) is make
    assert inspect.signature(make).parameters.keys() == ARGUMENTS
    with make("http://127.0.0.1:1/", "") as client:
        assert all(hasattr(client, name) for name in TRANSPORTS)


def test_what_configuring_logging_goes_through_is_there() -> None:
    assert callable(getattr(logging.Manager, CLEARING))
    assert isinstance(logging.config.dictConfigClass, type)


def test_a_new_interpreter_is_started_as_expected() -> None:
    for name in (interpreter.PRELUDE, interpreter.BOOTSTRAP):
        assert hasattr(supervisor, name) is AIRFLOW_V_3_4_PLUS


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (supervisor, "SERVER_TERMINATED"),
        (supervisor, "ActivitySubprocess"),
        (api, "ServerResponseError"),
        (httpx, "ReadTimeout"),
    ],
)
def test_a_name_that_is_missing_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    monkeypatch.delattr(owner, name)

    assert lacks.__wrapped__() == [f"{owner.__name__}.{name}"]
