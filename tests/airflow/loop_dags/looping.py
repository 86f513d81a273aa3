"""A mapped task in a loop, whose attempts come to bad ends; Airflow 3.4 alone can import it."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task, task_group

from tests.airflow.lib.proving_marks import hold, note

ITERATIONS, WIDTH = 3, 12

with DAG("looping", schedule=None):

    @task_group
    def body() -> None:
        @task(retries=3, retry_delay=timedelta(0))
        def work(number: int, *, loop: Any, ti: Any) -> None:
            name = f"{loop.index} {ti.map_index}"
            note("begun", f"{name} {ti.try_number}")
            if ti.try_number == 1 and number % 4 == 1:
                raise ValueError("the first try fails")
            if ti.try_number == 1 and number % 4 == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            if ti.try_number == 1 and number == 0 and loop.index == 1:
                hold("unlucky")  # its worker is killed
            note("ended", name)

        work.expand(number=list(range(WIDTH)))

    looped: Any = body
    looped.loop(max_iterations=ITERATIONS)
