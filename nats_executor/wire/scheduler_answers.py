"""Defines what executors answer to the questions of people; `messages.decode` reads it. Pure.

Questions and answers go over NATS without a stream, so they are bounded by `sizes.QUESTION_BYTES`
and `sizes.ANSWER_BYTES`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nats_executor.wire.bounds import packed
from nats_executor.wire.messages import as_map

__all__ = ["ExecutorState", "ProbeOrder", "ProbeResult", "encode_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorState:
    """The state of one executor at the moment of its answer.

    Attributes:
        job: the id of its scheduler's job in Airflow's database.
        sender: its id in the workloads that it sends, new with each start.
        version: of this package.
        connected_since: epoch seconds of its last connection to NATS.
        trouble: the reason why workloads cannot be sent at present, '' if they can.
        trouble_since: epoch seconds of the first failure, 0 if that is not known.
        refused: the reasons why the last attempt could not send the workloads of some queues.
        waiting: workloads that Airflow has handed over and that are not sent yet.
        running: slots that are used; of tasks that wait in NATS, too.
        parallelism: all slots, 0 for no limit.
        tracked: dispatches that were sent and whose end is not known yet.
        at: epoch seconds, its machine's clock.
        is_tracked: true if the dispatch of the question was sent and its end is not known.
        dispatch_state: of the last report that was read about it, '' before the first one.
        dispatch_worker: the name of the worker that sent that report.
        returned_for: the reason why a worker gave it back, the last time.
    """

    job: str
    sender: str
    host: str
    version: str
    airflow_version: str
    python_version: str
    connected_since: float
    waiting: int
    running: int
    parallelism: int
    tracked: int
    at: float
    trouble: str = ""
    trouble_since: float = 0.0
    refused: list[str] = field(default_factory=list)
    is_tracked: bool = False
    dispatch_state: str = ""
    dispatch_worker: str = ""
    returned_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOrder:
    """Ask an executor to send a probe through a queue.

    Attributes:
        seconds: time that it may take.
    """

    queue: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The outcome of a probe. Each time is in milliseconds, -1 where it is not known.

    Attributes:
        refusal: the reason why there is no result, with a remedy; '' if there is one.
        worker: the name of the worker that took it.
        publish: from sending until NATS had stored it.
        wait: from there until the executor heard of the worker's claim.
        start: from the claim until the worker's process had started, by the worker's clock.
        run: from there until that process had ended.
        report: the rest of the way back: until the executor heard of the end.
        whole: from the executor's receipt of the order to its answer.
    """

    refusal: str = ""
    worker: str = ""
    publish: float = -1.0
    wait: float = -1.0
    start: float = -1.0
    run: float = -1.0
    report: float = -1.0
    whole: float = -1.0


def encode_answer(message: ExecutorState | ProbeOrder | ProbeResult) -> bytes:
    """Encode a message with its format version."""
    return packed(as_map(message))
