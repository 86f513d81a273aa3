"""A first Dag for compose.yaml: numbers are squared on one queue and added up on the other."""

from __future__ import annotations

from airflow.sdk import dag, task


@dag(schedule=None, tags=["example"])
def two_queues() -> None:
    """Fan out to the worker of `heavy`, come back to the one of `default`."""

    @task
    def numbers() -> list[int]:
        return [1, 2, 3, 4]

    @task(queue="heavy")
    def square(number: int) -> int:
        return number * number

    @task
    def total(squares: list[int]) -> int:
        return sum(squares)

    total(square.expand(number=numbers()))  # type: ignore[arg-type]  # decorated tasks take XComs


two_queues()
