"""The metadata that Airflow reads on every start."""

from __future__ import annotations

import json
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from packaging.utils import canonicalize_name

from nats_executor.options import OPTIONS, SECTION
from nats_executor.provider import get_provider_info

if TYPE_CHECKING:
    from nats_executor.option import Option

INFO = get_provider_info()


def test_it_has_the_shape_that_airflow_demands() -> None:
    """A violation ends every `airflow` command, even `airflow version`."""
    schema = json.loads(Path(airflow.__path__[0], "provider_info.schema.json").read_text())

    assert list(jsonschema.Draft7Validator(schema).iter_errors(INFO)) == []


def test_the_name_is_the_distributions() -> None:
    assert INFO["package-name"] == canonicalize_name(metadata("airflow-nats-executor")["Name"])


def test_airflow_lists_its_log_handler() -> None:
    """`airflow providers logging` does not look at `remote-logging`."""
    assert INFO["logging"] == [entry["classpath"] for entry in INFO["remote-logging"]]
    assert "nats_executor.remote_logs.StoredLogs" in ProvidersManager().logging_class_names


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_described(option: Option) -> None:
    entry: dict[str, Any] = INFO["config"][SECTION]["options"][option.name]

    assert entry["description"].endswith(".")
    assert entry["default"] is None or isinstance(entry["default"], str)
    assert isinstance(entry["example"], str)
    assert entry.get("sensitive", False) is option.sensitive


def test_secrets_are_marked() -> None:
    """Only then may they come from a command or a secrets backend, and are hidden in listings."""
    secrets = {option.name for option in OPTIONS if option.sensitive}

    assert secrets == {"password", "token", "nkey_seed"}
