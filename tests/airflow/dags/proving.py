"""The Dags that the real scheduler and the real worker run; imported by Airflow only."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, get_current_context, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from tests.airflow.lib.proving_marks import hold

AT_ONCE = timedelta(0)


def attempt() -> int:
    number: int = get_current_context()["ti"].try_number
    return number


class Defers(BaseOperator):
    """Leaves the worker, waits in the triggerer and comes back."""

    def execute(self, context: Any) -> None:  # noqa: ARG002
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0.1)), method_name="back")

    def back(self, context: Any, event: Any) -> str:  # noqa: ARG002
        return "back"


with DAG("flow", schedule=None):

    @task
    def succeed() -> list[int]:
        return [1, 2, 3]

    @task(retries=1, retry_delay=AT_ONCE)
    def fail_once() -> None:
        if attempt() == 1:
            raise ValueError("the first try always fails")

    @task(retries=1, retry_delay=AT_ONCE)
    def die_once() -> None:
        if attempt() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    @task(queue="heavy")
    def heavy(number: int) -> int:
        return number * 10

    @task
    def light(number: int) -> int:
        return number + 1

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task(executor="LocalExecutor")
    def on_local() -> None: ...

    @task(executor="nats")
    def by_alias() -> None: ...

    @task(executor="NatsExecutor")
    def by_class_name() -> None: ...

    Defers(task_id="defers")
    fail_once()
    die_once()
    on_local()
    by_alias()
    by_class_name()
    numbers: Any = light.expand(number=heavy.expand(number=succeed()))
    total(numbers)

with DAG("cleared", schedule=None):

    @task
    def clear_me() -> None:
        if attempt() == 1:
            hold("clear_me")

    clear_me()

with DAG("orphans", schedule=None):

    @task
    def running() -> None:
        hold("running")

    @task(queue="later")
    def queued() -> None: ...

    running()
    queued()

with DAG(
    "late",
    schedule=None,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=0),
        callback=SyncCallback(
            "tests.airflow.lib.proving_callbacks.note", kwargs={"text": "too late"}
        ),
    ),
):

    @task
    def dawdle() -> None:
        hold("dawdle")

    dawdle()
