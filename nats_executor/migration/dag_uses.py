"""Reads from a serialized Dag which queues, pools and executors its tasks use; runs no Dag code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DagUse", "uses_in"]

DEFAULT_POOL = "default_pool"
# The keys of Airflow's serialization.
VALUE, TASKS, MAPPED = "__var", "tasks", "partial_kwargs"
CALLBACKS = (
    "on_execute_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback",
    "on_success_callback",
)  # fmt: skip


@dataclass(slots=True)
class DagUse:
    """The queues, pools and executors that the tasks of a Dag use.

    Attributes:
        executors: the names that tasks have in `executor=`, with their number.
        with_config: tasks with an `executor_config`.
        with_callbacks: tasks with a callback, and the Dag itself if it has one.
    """

    dag_id: str
    tasks: int = 0
    queues: Counter[str] = field(default_factory=Counter)
    pools: Counter[str] = field(default_factory=Counter)
    executors: Counter[str] = field(default_factory=Counter)
    with_config: int = 0
    with_callbacks: int = 0


def uses_in(dag_id: str, data: dict[str, Any], default_queue: str) -> DagUse:
    """Return what a Dag's tasks use, by the data of Airflow's `serialized_dag`."""
    use = DagUse(dag_id)
    dag = data.get("dag")
    dag = dag if isinstance(dag, dict) else {}
    defaults = data.get("client_defaults")
    common = defaults.get(TASKS) if isinstance(defaults, dict) else None
    for task in tasks_of(dag):
        said = (common if isinstance(common, dict) else {}) | task
        use.tasks += 1
        use.queues[str(said.get("queue") or default_queue)] += 1
        use.pools[str(said.get("pool") or DEFAULT_POOL)] += 1
        if executor := said.get("executor"):
            use.executors[str(executor)] += 1
        use.with_config += bool(inner(said.get("executor_config")))
        use.with_callbacks += has_callback(task)
    use.with_callbacks += has_callback(dag) or bool(dag.get("deadline"))
    return use


def tasks_of(dag: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each task's fields; those of a mapped one stand among its partial arguments."""
    tasks = dag.get(TASKS)
    for task in tasks if isinstance(tasks, list) else ():
        fields = inner(task)
        if isinstance(fields, dict):
            partial = inner(fields.get(MAPPED))
            yield fields | (partial if isinstance(partial, dict) else {})


def inner(value: Any) -> Any:
    """Return what Airflow's serialization wraps into a type and a value."""
    return value[VALUE] if isinstance(value, dict) and VALUE in value else value


def has_callback(fields: dict[str, Any]) -> bool:
    return any(fields.get(name) or fields.get(f"has_{name}") for name in CALLBACKS)
