"""A small pipeline over two queues: what `airflow nats demo` runs and checks.

    delivered ─► batches ─► 4 clean (default) ─► 4 price (heavy) ─► invoice (heavy) ─► report
                            rates (fails once) ──┘                                     │
                            market_closes (deferrable) ────────────────────────────────┘

`delivered` looks for the orders in reschedule mode, so it takes no slot between its looks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, PokeReturnValue, dag, get_current_context, task

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

BATCHES = 4
ORDERS_IN_A_BATCH = 25


def this_attempt() -> RuntimeTaskInstanceProtocol:
    """Return the running task instance."""
    return get_current_context()["ti"]


@task.sensor(mode="reschedule", poke_interval=1, timeout=120)
def delivered() -> PokeReturnValue:
    """Find nothing at the first look and the orders at the second."""
    first_look = this_attempt().get_first_reschedule_date(get_current_context())
    return PokeReturnValue(is_done=first_look is not None, xcom_value="orders-2026")


@task
def batches(delivery: str) -> list[dict[str, Any]]:
    """Split the delivery; order n asks for n pieces."""
    size = ORDERS_IN_A_BATCH
    return [
        {"delivery": delivery, "pieces": list(range(n * size + 1, (n + 1) * size + 1))}
        for n in range(BATCHES)
    ]


@task
def clean(batch: dict[str, Any]) -> list[int]:
    """Drop what cannot be sold: every fifth order."""
    return [pieces for pieces in batch["pieces"] if pieces % 5]


@task(retries=1, retry_delay=timedelta(seconds=1))
def rates() -> dict[str, int]:
    """Ask an exchange that answers the second time only."""
    if this_attempt().try_number == 1:
        raise ConnectionError("the exchange did not answer; the retry will get it")
    return {"piece": 3}


class MarketCloses(BaseOperator):
    """Waits in the triggerer, so without a slot, and comes back to a worker afterwards."""

    def execute(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        """Leave the worker for two seconds."""
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=2)), method_name="closed")

    def closed(self, context: Context, event: Any) -> str:  # noqa: ARG002 - Airflow's too
        """Return when the market closed."""
        return str(event)


@task(queue="heavy")
def price(pieces: list[int], rate: dict[str, int]) -> int:
    """Return what a batch costs."""
    return sum(pieces) * rate["piece"]


@task(queue="heavy")
def invoice(prices: list[int]) -> dict[str, int]:
    """Add the batches up."""
    return {"batches": len(prices), "total": sum(prices)}


@task
def report(result: dict[str, int]) -> dict[str, int]:
    """Publish the result, which the demo compares with the one it expects."""
    return result


@dag(schedule=None, catchup=False, tags=["nats"], doc_md=__doc__)
def nats_demo() -> None:
    """Wire the tasks."""
    delivery: Any = delivered()
    rate: Any = rates()
    prices: Any = price.partial(rate=rate).expand(pieces=clean.expand(batch=batches(delivery)))
    result: Any = invoice(prices)
    MarketCloses(task_id="market_closes") >> report(result)


nats_demo()
