"""The settings of the Airflow that the tests deploy."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nats_executor.local.deployment import python_environment

if TYPE_CHECKING:
    from tests.support.nats_server import NatsServer

__all__ = ["FAULTS", "PASSWORD", "USER", "environment"]

HERE = Path(__file__).parent
USER, PASSWORD = "admin", "admin"
# A dead scheduler is found after this time; a busy machine must not look dead.
SCHEDULER_SECONDS = 10

# What a fault needs to be over within a test's patience. The time limits that the product is there
# to undercut stay at their defaults: a lost heartbeat 300 s, stuck in queued 600 s.
FAULTS: dict[str, object] = {
    "NATS_EXECUTOR__ACK_WAIT_SECONDS": 5,
    "NATS_EXECUTOR__HEARTBEAT_SECONDS": 1,
    "NATS_EXECUTOR__SWEEP_SECONDS": 5,
    "NATS_EXECUTOR__WORKER_LOST_SECONDS": 5,
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": 2,
    # Airflow's supervisor ends a task when it cannot send so many heartbeats in a row.
    "WORKERS__MAX_FAILED_HEARTBEATS": 20,
}


class AirflowStage(Protocol):
    """What the environment of a whole Airflow depends on; `settings` win over those here."""

    home: Path
    port: int
    database: str
    broker: NatsServer
    marks: Path
    settings: dict[str, object]


def environment(airflow: AirflowStage) -> dict[str, str]:
    """Return the environment of every component."""
    passwords = airflow.home / "passwords.json"
    passwords.write_text(json.dumps({USER: PASSWORD}))
    settings = {
        "CORE__EXECUTOR": "nats:nats_executor.NatsExecutor,LocalExecutor",
        "CORE__DAGS_FOLDER": HERE / "dags",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{airflow.port}/execution/",
        "CORE__FERNET_KEY": "",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
        "CORE__TEST_CONNECTION": "Enabled",
        "DATABASE__SQL_ALCHEMY_CONN": airflow.database,
        "API__BASE_URL": f"http://127.0.0.1:{airflow.port}",
        "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "NATS_EXECUTOR__SERVERS": airflow.broker.url,
        "NATS_EXECUTOR__DRAIN_SECONDS": 0,
        "NATS_EXECUTOR__KILL_SECONDS": 2,
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 2,
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": SCHEDULER_SECONDS,
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": 1,
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
        # A task that is cleared is told at its next heartbeat.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
    } | airflow.settings
    own = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
    here = {
        "AIRFLOW_HOME": str(airflow.home),
        "PYTHONPATH": str(HERE.parents[1]),  # for `tests.airflow.lib`
        "TEST_MARKS": str(airflow.marks),
    }
    return inherited | python_environment(airflow.home) | own | here
