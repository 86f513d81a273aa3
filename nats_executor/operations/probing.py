"""Has a living scheduler send probes through a queue, and makes rows of their times."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.errors import BrokerUnavailable, DecodeError, NoResponders
from nats_executor.text import presentable
from nats_executor.wire.messages import decode
from nats_executor.wire.names import SchedulerVerb
from nats_executor.wire.scheduler_answers import ProbeOrder, ProbeResult, encode_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Broker
    from nats_executor.fleet.queues import Row
    from nats_executor.wire.names import Names

__all__ = ["Probed", "hop_rows", "ping_queue"]

# Beyond the time of the probe: to find out why it has no end, and for the way there and back.
MARGIN_SECONDS = 10.0
# In the order in which they happen; what is between the command and the scheduler is the rest.
HOPS = (
    ("publish to ack", "publish"),
    ("queue wait", "wait"),
    ("claim to process", "start"),
    ("process to report", "run"),
    ("report to scheduler", "report"),
)


class Probed(NamedTuple):
    """One probe, as the command saw it.

    Attributes:
        job: the scheduler that sent it, '' if none did.
        milliseconds: from the command's order to the answer.
        failure: why there is no result, '' if there is one.
    """

    job: str = ""
    result: ProbeResult | None = None
    milliseconds: float = 0.0
    failure: str = ""


async def ping_queue(
    broker: Broker, names: Names, jobs: Sequence[str], order: ProbeOrder
) -> Probed:
    """Have the first of the schedulers that answers send one probe.

    Raises:
        AccessDenied: this user may not ask.
        BrokerUnavailable: it is NATS that does not answer.
    """
    if not jobs:
        return Probed(failure="no scheduler is alive; run: airflow scheduler")
    question = encode_answer(order)
    for job in jobs:
        began = time.monotonic()
        try:
            answer = await broker.request(
                names.scheduler(job, SchedulerVerb.PROBE),
                question,
                timeout=order.seconds + MARGIN_SECONDS,
            )
            result = decode(ProbeResult, answer)
        except NoResponders:
            continue
        except BrokerUnavailable:
            if not broker.is_connected:
                raise
            seconds = time.monotonic() - began
            return Probed(job, failure=f"scheduler {job} did not answer within {seconds:.0f} s")
        except DecodeError as exc:
            return Probed(job, failure=f"the answer of scheduler {job} cannot be read: {exc}")
        milliseconds = 1000 * (time.monotonic() - began)
        return Probed(job, result, milliseconds, presentable(result.refusal))
    return Probed(failure=unanswered(jobs))


def unanswered(jobs: Sequence[str]) -> str:
    """Say that no executor hears the question."""
    return (
        f"no executor of scheduler {', '.join(jobs)} hears it: it has no connection to NATS, runs "
        "another executor or an earlier release, or its NATS user may not listen; look into its log"
    )


def hop_rows(pinged: Sequence[Probed]) -> list[Row]:
    """Return a row for each step, with its least, median and longest milliseconds."""
    results = [(one.milliseconds, one.result) for one in pinged if one.result]
    ways = [whole - result.whole for whole, result in results if result.whole >= 0]
    rows = [hop_row("command to scheduler and back", ways)]
    for name, field in HOPS:
        times = [getattr(result, field) for _, result in results]
        rows.append(hop_row(name, [t for t in times if t >= 0]))
    return [*rows, hop_row("whole", [whole for whole, _ in results])]


def hop_row(name: str, times: Sequence[float]) -> Row:
    least, median, most = (
        (min(times), statistics.median(times), max(times)) if times else (None, None, None)
    )
    figures = {"least_ms": least, "median_ms": median, "most_ms": most}
    return {
        "hop": name,
        **{n: None if t is None else round(max(0.0, t), 2) for n, t in figures.items()},
    }
