"""Describes this distribution to Airflow; an error here stops every `airflow` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nats_executor.options import LOG_SCHEME, OPTIONS, SECTION

if TYPE_CHECKING:
    from nats_executor.option import Option

__all__ = ["get_provider_info"]

STORED_LOGS = "nats_executor.remote_logs.StoredLogs"


def get_provider_info() -> dict[str, Any]:
    """Return this distribution's metadata, as Airflow's `provider_info.schema.json` wants it."""
    return {
        "package-name": "airflow-nats-executor",
        "name": "NATS executor",
        "description": "Runs Airflow workloads on workers that pull from NATS JetStream.",
        "executors": ["nats_executor.NatsExecutor"],
        "cli": ["nats_executor.cli.definitions.get_nats_cli_commands"],
        "remote-logging": [{"scheme": LOG_SCHEME, "classpath": STORED_LOGS}],
        # `airflow providers logging` lists these; nothing is loaded by it.
        "logging": [STORED_LOGS],
        "config": {
            SECTION: {
                "description": "Settings of the NATS executor and its workers.",
                "options": {option.name: option_info(option) for option in OPTIONS},
            }
        },
    }


def option_info(option: Option) -> dict[str, Any]:
    """Return one option as the schema wants it: defaults and examples are text, never bool."""
    entry: dict[str, Any] = {
        "description": option.description,
        "version_added": option.version_added,
        "type": option.type,
        "example": option.example,
        "default": option.default,
    }
    if option.sensitive:
        entry["sensitive"] = True
    return entry
