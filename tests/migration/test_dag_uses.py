"""What a serialized Dag says of its tasks: of one that Airflow itself has serialized."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, task
from airflow.serialization.serialized_objects import DagSerialization

from nats_executor.migration.dag_uses import uses_in


def told(context: Any) -> None:
    """A callback."""


def a_dag() -> DAG:
    with DAG("mixed", schedule=None) as dag:
        BaseOperator(task_id="plain")
        BaseOperator(task_id="gpu", queue="gpu", pool="scarce")
        BaseOperator(task_id="named", executor="CeleryExecutor")
        BaseOperator(task_id="configured", executor_config={"a": 1})
        BaseOperator(task_id="calls", on_failure_callback=told)

        @task(queue="mapped", executor="LocalExecutor", pool="scarce")
        def mapped(number: int) -> None: ...

        mapped.expand(number=[1, 2])
    return dag


def test_what_tasks_use_is_counted_mapped_ones_too() -> None:
    use = uses_in("mixed", DagSerialization.to_dict(a_dag()), "default")

    assert use.dag_id == "mixed"
    assert use.tasks == 6
    assert use.queues == Counter({"default": 4, "gpu": 1, "mapped": 1})
    assert use.pools == Counter({"default_pool": 4, "scarce": 2})
    assert use.executors == Counter({"CeleryExecutor": 1, "LocalExecutor": 1})
    assert use.with_config == 1
    assert use.with_callbacks == 1


def test_a_dag_with_a_callback_of_its_own_counts_once() -> None:
    dag = DAG("calls", schedule=None, on_failure_callback=told)

    assert uses_in("calls", DagSerialization.to_dict(dag), "default").with_callbacks == 1


@pytest.mark.parametrize(
    ("data", "tasks"),
    [
        ({}, 0),
        ({"dag": None}, 0),
        ({"dag": {"tasks": None}}, 0),
        ({"dag": {"tasks": ["x", {"__var": "y"}]}}, 0),
        ({"dag": {"tasks": [{"__var": {"partial_kwargs": "x"}}]}}, 1),
        ({"dag": {"tasks": [{"queue": "a"}]}, "client_defaults": "x"}, 1),
    ],
)
def test_a_shape_that_is_not_known_does_not_end_it(data: dict[str, Any], tasks: int) -> None:
    assert uses_in("d", data, "default").tasks == tasks


def test_defaults_of_all_tasks_count() -> None:
    data = {"client_defaults": {"tasks": {"queue": "all"}}, "dag": {"tasks": [{}, {"queue": "b"}]}}

    assert uses_in("d", data, "default").queues == Counter({"all": 1, "b": 1})


def test_a_deadline_has_a_callback() -> None:
    assert uses_in("d", {"dag": {"deadline": [1]}}, "default").with_callbacks == 1
