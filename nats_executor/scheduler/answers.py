"""Answers what people ask a scheduler's executor, such as how it stands with NATS.

Everything here runs in the bridge's thread, so an answer comes while the scheduler's thread is
busy. Of the scheduler's data only lengths and single values are read: Python reads each of them
whole, and an answer that is one workload behind does no harm. Nothing is walked through, because
the scheduler's thread may change it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import socket
import time
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from nats_executor.errors import AccessDenied, BrokerError, DecodeError
from nats_executor.scheduler import compat
from nats_executor.scheduler.streams import RETRY_SECONDS
from nats_executor.text import presentable
from nats_executor.wire.messages import decode
from nats_executor.wire.names import SchedulerVerb
from nats_executor.wire.scheduler_answers import (
    ExecutorState,
    ProbeOrder,
    ProbeResult,
    encode_answer,
)
from nats_executor.wire.sizes import QUESTION_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.broker.port import Broker, Reply
    from nats_executor.retrying import Outage
    from nats_executor.scheduler.events import Figures
    from nats_executor.scheduler.ledger import Dispatch, Ledger
    from nats_executor.wire.names import Names

    Probe = Callable[[ProbeOrder], Awaitable[ProbeResult]]

__all__ = ["Answers"]

log = logging.getLogger(__name__)

PACKAGE_VERSION = version("airflow-nats-executor")
# Of a reason, and of reasons, in an answer.
LONGEST_TROUBLE = 500
MOST_REFUSALS = 20


class Answers:
    """Answers for one executor.

    Attributes:
        refused: why workloads of some queues could not be sent; the scheduler's thread replaces it.
    """

    def __init__(
        self, job: str, figures: Callable[[], Figures], ledger: Ledger, outage: Outage, sender: str
    ) -> None:
        self._job = job
        self._figures = figures
        self._ledger = ledger
        self._outage = outage
        self._sender = sender
        self.refused: tuple[str, ...] = ()

    async def serve(
        self, broker: Broker, names: Names, trouble: Callable[[], BrokerError | None], send: Probe
    ) -> None:
        """Answer for as long as the connection lives; returns once all questions are heard.

        Args:
            trouble: returns why something cannot be sent at present.
            send: sends a probe.
        """

        async def state(question: bytes) -> bytes:
            dispatch = self._ledger.of_id(question.decode(errors="replace"))
            return encode_answer(about(dispatch, self.state(broker, trouble())))

        async def probe(question: bytes) -> bytes:
            return encode_answer(await probed(question, send))

        replies: dict[SchedulerVerb, Reply] = {
            SchedulerVerb.STATE: state,
            SchedulerVerb.PROBE: probe,
        }
        while True:
            try:
                # Before, a denial would reach no caller.
                await broker.ready(RETRY_SECONDS)
                for verb, reply in replies.items():
                    subject = names.scheduler(self._job, verb)
                    await broker.serve(subject, reply)
            except AccessDenied as exc:  # the login was made for the release before
                text = "%s; next: going on, but `airflow nats ping` and `doctor` get no answer"
                log.warning(text, exc)
                return
            except BrokerError as exc:
                log.debug("no questions are heard yet: %s", exc)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def state(self, broker: Broker, trouble: BrokerError | None) -> ExecutorState:
        """Return the state of the executor."""
        now = time.time()
        failing_since, why = self._outage.trouble or (None, trouble)
        waiting, running, parallelism = self._figures()
        return ExecutorState(
            job=self._job,
            sender=self._sender,
            host=socket.gethostname(),
            version=PACKAGE_VERSION,
            airflow_version=compat.airflow_version,
            python_version=platform.python_version(),
            connected_since=now - max(0.0, time.monotonic() - broker.connected_since),
            waiting=waiting,
            running=running,
            parallelism=parallelism,
            tracked=len(self._ledger),
            at=now,
            trouble=presentable(str(why or ""))[:LONGEST_TROUBLE],
            trouble_since=0.0 if failing_since is None else now - self._age(failing_since),
            refused=[presentable(text)[:LONGEST_TROUBLE] for text in self.refused[:MOST_REFUSALS]],
        )

    @staticmethod
    def _age(since: float) -> float:
        return max(0.0, time.monotonic() - since)


async def probed(question: bytes, send: Probe) -> ProbeResult:
    """Carry out an order for a probe; whatever is in the way becomes part of the answer."""
    try:
        return await send(decode(ProbeOrder, question, most_bytes=QUESTION_BYTES))
    except (BrokerError, DecodeError) as exc:
        return ProbeResult(refusal=presentable(str(exc))[:LONGEST_TROUBLE])
    except Exception as exc:
        # In a task of the NATS client, where nothing would answer the question.
        log.exception("a probe failed; next: saying so")
        return ProbeResult(refusal=f"the scheduler's log says more: {type(exc).__name__}")


def about(dispatch: Dispatch | None, state: ExecutorState) -> ExecutorState:
    """Add what is known of the dispatch that was asked about."""
    if dispatch is None:
        return state
    return replace(
        state,
        is_tracked=True,
        dispatch_state=str(dispatch.state or ""),
        dispatch_worker=presentable(dispatch.worker_name)[:LONGEST_TROUBLE],
        returned_for=presentable(dispatch.returned_for)[:LONGEST_TROUBLE],
    )
