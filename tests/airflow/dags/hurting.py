"""The Dags of the tests that clear, mark, lock, kill and wipe; imported by Airflow only."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, get_current_context, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from tests.airflow.lib.proving_marks import hold, lines, note
from tests.airflow.lib.proving_triggers import AtOnce

AT_ONCE = timedelta(0)
# More tries than any fault may use up: a try that was spent shows, and the Dag goes on.
SPARE = 2


def attempt() -> int:
    number: int = get_current_context()["ti"].try_number
    return number


class DefersAgain(BaseOperator):
    """Defers several times in a row to a trigger that fires at once."""

    def __init__(self, *, number: int, times: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number
        self.times = times

    def execute(self, context: Any) -> None:
        self.again(context, None, self.times)

    def again(self, context: Any, event: Any, left: int) -> None:  # noqa: ARG002
        note(f"defers-{self.number}", f"{left} left")
        if left:
            self.defer(trigger=AtOnce(), method_name="again", kwargs={"left": left - 1})


with DAG("marked", schedule=None):
    for mark in ("success", "failed"):

        @task(task_id=f"to_{mark}", retries=SPARE, retry_delay=AT_ONCE)
        def be_marked(name: str) -> None:
            note(name)
            hold(name)

        be_marked(f"to_{mark}")

for why in ("cleared", "lost"):
    with DAG(f"deaf_{why}", schedule=None):

        @task(task_id="deaf", retries=SPARE, retry_delay=AT_ONCE)
        def deaf(name: str) -> None:
            if attempt() == 1:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                hold(name)
            note(name, f"try {attempt()}")

        deaf(f"deaf_{why}")

with DAG("deferring", schedule=None):
    DefersAgain.partial(task_id="defers", retries=SPARE, retry_delay=AT_ONCE).expand(
        number=list(range(10))
    )

with DAG("rescheduling", schedule=None):

    @task.sensor(
        mode="reschedule", poke_interval=0.1, timeout=300, retries=SPARE, retry_delay=AT_ONCE
    )
    def looks(number: int) -> bool:
        note(f"looks-{number}")
        return len(lines(f"looks-{number}")) >= 5

    looks.expand(number=list(range(3)))

with DAG("locked", schedule=None):

    @task(retries=SPARE, retry_delay=AT_ONCE)
    def locked() -> None:
        if attempt() == 1:
            hold("locked")

    locked()

with DAG("lonely", schedule=None):

    @task(queue="lonely", retries=SPARE, retry_delay=AT_ONCE)
    def lonely() -> None:
        note("lonely", f"try {attempt()}")
        if attempt() == 1:
            hold("lonely")

    lonely()

with DAG("backlog", schedule=None):

    @task(queue="narrow", retries=SPARE, retry_delay=AT_ONCE)
    def waits(number: int) -> None:
        note(f"waits-{number}")
        time.sleep(2.5)

    waits.expand(number=list(range(8)))

with DAG("forsaken", schedule=None):

    @task(queue="nowhere")
    def forsaken() -> None:
        note("forsaken")

    forsaken()

for schedulers, size in ((2, 60), (3, 30)):
    with DAG(f"many_{schedulers}", schedule=None, max_active_tasks=64):

        @task(retries=SPARE, retry_delay=AT_ONCE)
        def short(number: int) -> None:
            note(str(get_current_context()["dag"].dag_id), str(number))

        short.expand(number=list(range(size)))

with DAG(
    "left_behind",
    schedule=None,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=0),
        callback=SyncCallback(
            "tests.airflow.lib.proving_callbacks.linger", kwargs={"name": "linger"}
        ),
    ),
):

    @task(task_id="runs_on", retries=SPARE, retry_delay=AT_ONCE)
    def runs_on() -> None:
        note("runs_on")
        hold("runs_on")

    @task(task_id="ends", retries=SPARE, retry_delay=AT_ONCE)
    def ends() -> None:
        note("ends")
        hold("ends")

    @task(task_id="dies", retries=SPARE, retry_delay=AT_ONCE)
    def dies() -> None:
        note("dies", f"try {attempt()}")
        if attempt() == 1:
            hold("dies")

    @task(task_id="waits", queue="later", retries=SPARE, retry_delay=AT_ONCE)
    def waits_for_later() -> None:
        note("waits_for_later")

    runs_on()
    ends()
    dies()
    waits_for_later()

with DAG("wiped", schedule=None):

    @task(queue="narrow", priority_weight=10, retries=SPARE, retry_delay=AT_ONCE)
    def blocks() -> None:
        note("blocks")
        hold("blocks")

    @task(retries=SPARE, retry_delay=AT_ONCE)
    def runs_wide() -> None:
        note("runs_wide")
        hold("runs_wide")

    @task(queue="narrow", retries=SPARE, retry_delay=AT_ONCE)
    def behind(number: int) -> None:
        note(f"behind-{number}")

    blocks()
    runs_wide()
    behind.expand(number=list(range(3)))

for outage in ("database", "api"):
    with DAG(f"{outage}_away", schedule=None):

        @task(retries=SPARE, retry_delay=AT_ONCE)
        def runs_through(name: str) -> None:
            note(f"{name}-through")
            hold(f"{name}-through")

        @task(retries=SPARE, retry_delay=AT_ONCE)
        def ends_meanwhile(name: str) -> None:
            note(f"{name}-ends")
            hold(f"{name}-ends")

        @task(queue=f"{outage}-later", retries=SPARE, retry_delay=AT_ONCE)
        def starts_meanwhile(name: str) -> None:
            note(f"{name}-starts")

        runs_through(outage)
        ends_meanwhile(outage)
        starts_meanwhile(outage)
