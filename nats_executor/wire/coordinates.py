"""Reads from a workload what Airflow calls the task instance that it is for, and names it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.text import one_line
from nats_executor.wire.messages import Kind

if TYPE_CHECKING:
    from nats_executor.wire.messages import Workload

__all__ = ["LONGEST_COORDINATE", "Coordinates", "coordinates_in", "id_in", "name_of"]

# Airflow's own names have at most 250 characters.
LONGEST_COORDINATE = 1000
# So much of each is in a log line.
LONGEST_IN_A_LINE = 250
# What a workload is called where it is no task.
NOUNS: dict[str, str] = {Kind.CALLBACK: "callback", Kind.CONNECTION_TEST: "connection test"}


class Coordinates(NamedTuple):
    """What Airflow calls a task instance; None is what is not there or cannot be read.

    Attributes:
        map_index: None for a task that is not mapped.
        instance: the id of the task instance, which Airflow changes with each try.
    """

    dag: str | None = None
    run: str | None = None
    task: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    instance: str | None = None


def coordinates_in(workload: Workload) -> Coordinates:
    """Return what Airflow's own part of a workload says; nothing for what is no task."""
    instance = workload.body.get("ti") if workload.kind == Kind.TASK else None
    if not isinstance(instance, dict):
        return Coordinates()
    return Coordinates(
        dag=name_in(instance.get("dag_id")),
        run=name_in(instance.get("run_id")),
        task=name_in(instance.get("task_id")),
        map_index=count_in(instance.get("map_index")),  # -1 is what is not mapped
        try_number=count_in(instance.get("try_number")),
        instance=name_in(instance.get("id")),
    )


def id_in(workload: Workload) -> str | None:
    """Return the id of a task instance, a callback or a connection test."""
    key = workload.key
    return coordinates_in(workload).instance or (name_in(*key) if len(key) == 1 else None)


def name_in(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= LONGEST_COORDINATE else None


def count_in(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def name_of(dispatch_id: str, workload: Workload | None) -> str:
    """Return a dispatch's id with what people call its workload, for a log line.

    Args:
        workload: None if it cannot be read.
    """
    parts = [f"{noun} {one_line(word[:LONGEST_IN_A_LINE])}" for noun, word in words_of(workload)]
    return f"{dispatch_id} ({', '.join(parts)})" if parts else dispatch_id


def words_of(workload: Workload | None) -> list[tuple[str, str]]:
    """Return pairs of a noun and a name."""
    if workload is None:
        return []
    found = coordinates_in(workload)
    index = None if found.map_index is None else str(found.map_index)
    pairs = [("dag", found.dag), ("run", found.run), ("task", found.task), ("map index", index)]
    if workload.kind != Kind.TASK:
        pairs = [(NOUNS.get(workload.kind, "workload"), id_in(workload))]
    return [(noun, word) for noun, word in pairs if word]
