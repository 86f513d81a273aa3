"""A task that is killed at each of its tries, with what Airflow calls for it; for Airflow only."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from tests.airflow.lib.proving_marks import note

NOTES = "calling"


def tried_again(context: Any) -> None:
    note(NOTES, f"on_retry_callback of try {context['ti'].try_number}")


def failed(context: Any) -> None:
    note(NOTES, f"on_failure_callback of try {context['ti'].try_number}")


def dag_failed(context: Any) -> None:  # noqa: ARG001 - Airflow passes one
    note(NOTES, "on_failure_callback of the Dag")


with DAG("calling", schedule=None, on_failure_callback=dag_failed):

    @task(
        retries=1,
        retry_delay=timedelta(0),
        on_retry_callback=tried_again,
        on_failure_callback=failed,
    )
    def die() -> None:
        # Of a last try Airflow's supervisor itself reports the failure, and then nobody asks for
        # the callback. One that dies, too, leaves that to the scheduler.
        if get_current_context()["ti"].try_number == 2:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    die()
