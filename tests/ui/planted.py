"""Leaves tasks in another Airflow's database and in NATS: a dead letter, and two that wait.

Run as `python -m tests.ui.planted SERVER`, with that Airflow's settings in the environment.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from airflow.sdk import timezone
from airflow.utils.state import TaskInstanceState

from nats_executor.cli import arguments
from nats_executor.wire.messages import Kind, Workload, encode
from tests.cli.test_retry import Deployment
from tests.support.fixtures import settings_for


class Sender:
    """The part of a console that a deployment needs."""

    def __init__(self, server: str) -> None:
        self.settings = settings_for(server)

    def publish(self, subject: str, body: bytes) -> None:
        arguments.ask(self.settings, lambda broker: broker.publish(subject, body))


def plant(server: str) -> None:
    sender = Sender(server)
    deployment = Deployment(cast("Any", sender))
    deployment.bury(deployment.add("load", TaskInstanceState.FAILED))
    for task in ("after", "apart"):
        row = deployment.add(task, "queued", queue="batch", queued_dttm=timezone.utcnow())
        dispatch = row["external_executor_id"]
        workload = Workload(
            dispatch_id=dispatch, queue="batch", kind=Kind.TASK, body={}, key=[], sender="test"
        )
        sender.publish(sender.settings.names.task("batch", dispatch), encode(workload))


if __name__ == "__main__":
    plant(sys.argv[1])
