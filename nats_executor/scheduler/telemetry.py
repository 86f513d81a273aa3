"""Records the executor's figures in Airflow's own metrics: statsd or OpenTelemetry.

Queues and workers are read in the bridge's thread, once with every sweep. Airflow's metrics are
used in the scheduler's thread alone, as Airflow does it; nothing here may slow it down or raise.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from nats_executor.errors import BrokerError, BrokerUnavailable
from nats_executor.fleet.queues import queue_rows
from nats_executor.fleet.workers import seen_workers, worker_state
from nats_executor.pacing import Once
from nats_executor.scheduler import compat
from nats_executor.scheduler.ledger import Ended, Started
from nats_executor.scheduler.metric_table import METRICS, PREFIX
from nats_executor.scheduler.streams import RETRY_SECONDS
from nats_executor.wire.messages import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nats_executor.broker.port import Broker
    from nats_executor.scheduler.ledger import Ledger, Outcome
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Report

__all__ = ["Telemetry"]

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")

STATES = ("running", "draining", "paused", "lost")
ROWS = {
    "queue.depth": "pending",
    "queue.in_flight": "in_flight",
    "queue.redelivered": "redelivered",
    "queue.workers": "workers",
    "queue.slots": "slots",
}
# A tag becomes a part of the name, and statsd takes 250 characters of that.
LONGEST_TAG = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the broker; without an answer there is nothing but that."""

    is_connected: bool
    queues: list[dict[str, Any]] = field(default_factory=list)
    workers: Counter[str] = field(default_factory=Counter)
    slots: int = 0
    slots_in_use: int = 0
    dead_letters: int = 0


def harmless(
    method: Callable[Concatenate[Telemetry, Arguments], None],
) -> Callable[Concatenate[Telemetry, Arguments], None]:
    """Let no failure of a metric out: it must not stop the scheduler."""

    @functools.wraps(method)
    def guarded(self: Telemetry, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - whatever a metrics client of the user's raises
            complain(self._unrecorded, f"{type(exc).__name__}: {exc}")

    return guarded


def complain(said: Once, text: str) -> None:
    """Log a failure once; every workload would find it again."""
    if said.is_new(text):
        log.warning("a metric was not recorded: %s; next: going on without it", text)


class Telemetry:
    """The metrics of one executor; does nothing unless `[metrics]` switches Airflow's on.

    Attributes:
        reading: what is to be told; the bridge's thread sets it, the scheduler's takes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_on = compat.has_metrics()
        self._sent: dict[str, float] = {}  # what waits for its start, by dispatch id
        self._known: set[str] = set()  # queues whose gauges were set
        self._tags = {"prefix": settings.subject_prefix}  # each team has its own
        self._unread = Once()  # for the bridge's thread
        self._unrecorded = Once()  # for the scheduler's
        self.reading: Reading | None = None

    # In the bridge's thread

    async def watch_forever(self, require: Callable[[], Broker]) -> None:
        """Read what the gauges show, with every sweep."""
        while self._is_on:
            self.reading = reading = await self._read(require)
            seconds = self._settings.sweep_seconds
            await asyncio.sleep(seconds if reading.is_connected else min(RETRY_SECONDS, seconds))

    async def _read(self, require: Callable[[], Broker]) -> Reading:
        names = self._settings.names
        try:
            broker = require()
            consumers = await broker.consumer_infos(names.tasks_stream)
            seen = await seen_workers(broker, self._settings)
            dead_letters = await broker.stream_info(names.dead_letters_stream)
        except BrokerError as exc:
            if isinstance(exc, BrokerUnavailable):
                log.debug("no metrics of queues: %s", exc)
            else:  # denied, say, and the connection itself does not tell
                complain(self._unread, str(exc))
            return Reading(is_connected=False)
        except Exception:
            # In the connection's task group, where it would end the connection.
            log.exception("metrics of queues cannot be read; next: trying again")
            return Reading(is_connected=False)
        living = [s.presence for s in seen if worker_state(s, self._settings) != "lost"]
        return Reading(
            is_connected=True,
            queues=queue_rows(consumers, seen, self._settings),
            workers=Counter(worker_state(s, self._settings) for s in seen),
            slots=sum(presence.concurrency for presence in living),
            slots_in_use=sum(presence.running for presence in living),
            dead_letters=dead_letters.messages if dead_letters else 0,
        )

    # In the scheduler's thread

    @harmless
    def published(self, outcomes: Mapping[str, BrokerError | None], seconds: float) -> None:
        """Note which workloads were sent, and how long that took."""
        if self._is_on:
            now = time.time()
            self._sent |= {id_: now for id_, outcome in outcomes.items() if outcome is None}
            self._send("publish_duration", seconds)

    @harmless
    def settled(self, report: Report, outcome: Outcome) -> None:
        """Note what a report has changed, by the worker's clock and by this machine's."""
        if not self._is_on:
            return
        if isinstance(outcome, Started | Ended):
            sent_at = self._sent.pop(report.dispatch_id, None)
            if isinstance(outcome, Ended):
                self._send("result_lag", time.time() - report.at)
            elif sent_at is not None:
                self._send("queue_wait", report.at - sent_at, queue=outcome.dispatch.queue)

    @harmless
    def tell(self, ledger: Ledger) -> None:
        """Set every gauge to the last reading."""
        reading, self.reading = self.reading, None
        if reading is None:
            return
        self._send("connected", reading.is_connected)
        oldest = self._oldest(ledger)
        if not reading.is_connected:
            return
        rows = {row["queue"]: row for row in reading.queues}
        for queue in self._known | rows.keys():
            figures = rows.get(queue, {})  # one that is gone is set to 0 once
            for name, column in ROWS.items():
                self._send(name, figures.get(column, 0), queue=queue)
            self._send("queue.paused", figures.get("paused_until") is not None, queue=queue)
            self._send("queue.oldest_seconds", oldest.get(queue, 0.0), queue=queue)
        self._known = set(rows)
        for state in STATES:
            self._send("workers", reading.workers[state], state=state)
        self._send("slots", reading.slots)
        self._send("slots_in_use", reading.slots_in_use)
        self._send("dead_letters", reading.dead_letters)

    def _oldest(self, ledger: Ledger) -> dict[str, float]:
        """Return the age of each queue's oldest workload that waits, and forget what is gone.

        A workload of another scheduler counts from the first look at it.
        """
        now = time.time()
        known, self._sent = self._sent, {}
        held = {dispatch.id for dispatch in ledger.held}
        oldest: dict[str, float] = {}
        for dispatch in ledger:
            if dispatch.state is State.RUNNING:
                continue
            since = self._sent[dispatch.id] = known.get(dispatch.id, now)
            if dispatch.id not in held:
                oldest[dispatch.queue] = min(since, oldest.get(dispatch.queue, since))
        return {queue: max(0.0, now - since) for queue, since in oldest.items()}

    def _send(self, name: str, value: float, **tags: str) -> None:
        """Send a metric as the table has it; the value of a timer is in seconds here."""
        tagged = self._tagged(tags.items())
        if METRICS[name].is_timer:
            # Two clocks may differ by more than it took.
            compat.stats.timing(f"{PREFIX}.{name}", 1000 * max(0.0, value), tags=tagged)
        else:
            compat.stats.gauge(f"{PREFIX}.{name}", float(value), tags=tagged)

    def _tagged(self, tags: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return tags as Airflow's metrics take them; a queue may have any name."""
        plain = {k: compat.stats.normalize_name_for_stats(v, log_warning=False) for k, v in tags}
        return self._tags | {k: v[:LONGEST_TAG] for k, v in plain.items()}
