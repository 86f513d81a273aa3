"""A later `BaseExecutor` finds no name of ours in its way."""

from __future__ import annotations

from airflow.executors.base_executor import BaseExecutor

from nats_executor import NatsExecutor

# Airflow 3.4's, which 3.3 never asks for.
NEWER = {"get_streaming_task_log"}


def test_the_executor_has_only_airflows_public_names() -> None:
    theirs = {*dir(BaseExecutor), *vars(BaseExecutor()), *NEWER}
    ours = {*dir(NatsExecutor), *vars(NatsExecutor())}

    assert {name for name in ours - theirs if not name.startswith("_")} == set()
