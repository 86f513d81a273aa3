"""Prepares the streams on each connection, and looks at those that do not answer.

Each is looked after by itself, so that one without a leader does not hold up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats_executor.broker.diagnosis import is_doubtful
from nats_executor.broker.quorum import no_quorum
from nats_executor.errors import BrokerError, BrokerUnavailable
from nats_executor.pacing import Once
from nats_executor.topology import setup
from nats_executor.topology.wanted import stream_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats_executor.broker.port import Broker, Config, StreamInfo
    from nats_executor.settings import Settings

__all__ = ["RETRY_SECONDS", "Streams"]

log = logging.getLogger(__name__)

# Between two looks at a stream that does not answer: an election ends at any moment.
LOOK_SECONDS = 0.5
# Between two attempts of what the scheduler tries again, and, while all is well, between two looks
# whether the connection is a new one.
RETRY_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class Kept:
    """One stream that is looked after.

    Attributes:
        trouble: why it cannot be used, None while it can.
        prepared_on: `connected_since` of the connection on which it was seen to be there.
        is_doubted: set to have it looked at now.
    """

    wanted: Config
    trouble: BrokerError | None = field(default_factory=lambda: BrokerUnavailable("not connected"))
    prepared_on: float = math.nan
    is_doubted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return str(self.wanted["name"])


class Streams:
    """The streams of one executor and the consumers of its queues.

    Everything here runs in the bridge's thread.

    Attributes:
        recoveries: how often workloads could be sent again after they could not, or might not
            have been; any thread may read it.
        read_after: the sequence after which reports count, None before it is known.
        queues: those whose consumers were seen.
    """

    def __init__(self, settings: Settings, on_prepared: Callable[[], None]) -> None:
        """Prepare to look after the streams; `on_prepared` is called for each new connection."""
        self._settings = settings
        self._on_prepared = on_prepared
        self._kept = {wanted["name"]: Kept(wanted) for wanted in stream_configs(settings)}
        self._tasks = self._kept[settings.names.tasks_stream]
        self._results = self._kept[settings.names.results_stream]
        self._is_prepared = asyncio.Event()
        self._is_followable = asyncio.Event()
        self._reopens = asyncio.Event()
        # What was told of each stream and queue, no more than there are in use. No `Once`: what was
        # gone in between is told again.
        self._drifts: dict[str, set[str]] = {}
        self._said = Once()
        self.recoveries = 0
        self.read_after: int | None = None
        self.queues: set[str] = set()

    # For others

    @property
    def trouble(self) -> BrokerError | None:
        """Why one of the streams cannot be used, None when all is well."""
        return self.trouble_with(*self._kept)

    def trouble_with(self, *names: str) -> BrokerError | None:
        """Return why these streams cannot be used, None if they can.

        Another stream that does not answer does not concern them. One that a person has to mend
        does.
        """
        for kept in self._kept.values():
            if kept.trouble and (kept.name in names or not is_doubtful(kept.trouble)):
                return kept.trouble
        return None

    def doubt(self) -> None:
        """Look at all streams now: one of them gave no answer."""
        for kept in self._kept.values():
            kept.is_doubted.set()

    async def prepared(self) -> None:
        """Wait until every stream was seen once."""
        await self._is_prepared.wait()

    async def followable(self) -> None:
        """Wait until the stream of reports was seen once."""
        await self._is_followable.wait()

    # Looking after them

    async def keep(self, broker: Broker) -> None:
        """Create what is missing at each new connection: a server may come back without its data.

        Runs until it is cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for kept in self._kept.values():
                    group.create_task(self._keep_one(broker, kept), name=f"stream {kept.name}")
                group.create_task(self._reopen_queues(broker), name="consumers of queues")
                group.create_task(self._miss_queues(broker), name="queues that are deleted")
        finally:
            for kept in self._kept.values():
                kept.trouble = BrokerUnavailable("the connection to NATS is closed")
                kept.prepared_on = math.nan

    async def _keep_one(self, broker: Broker, kept: Kept) -> None:
        """Prepare one stream, and look at it often while it does not answer.

        A broker that cannot be reached is reported by the connection itself.
        """
        while True:
            is_doubted = kept.is_doubted.is_set()
            kept.is_doubted.clear()
            try:
                # Shorter than the start waits, so that the start can tell the reason.
                await broker.ready(self._settings.connect_timeout_seconds / 2)
            except BrokerError as exc:
                kept.trouble = exc
                continue
            try:
                if is_doubted or kept.trouble or kept.prepared_on != broker.connected_since:
                    await self._prepare(broker, kept)
            except BrokerError as exc:
                if broker.is_connected:
                    self._say(kept, exc)
                kept.trouble = exc
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if kept.trouble else RETRY_SECONDS):
                    await kept.is_doubted.wait()

    async def _prepare(self, broker: Broker, kept: Kept) -> None:
        connection = broker.connected_since
        is_new = connection != kept.prepared_on
        info = await first_answer(broker, kept.name)
        if info is not None and not info.replication.has_quorum:
            raise no_quorum(info.replication.servers)
        if is_new or info is None:
            self._tell(kept.name, await setup.open_stream(broker, kept.wanted))
        if kept is self._results:
            if self.read_after is None:
                self.read_after = info.last_sequence if info else 0
            self._is_followable.set()
        self._note_success(kept, connection, is_new=is_new)

    def _note_success(self, kept: Kept, connection: float, *, is_new: bool) -> None:
        was_blocked = self.trouble_with(self._tasks.name) is not None
        kept.trouble, kept.prepared_on = None, connection
        is_renewed = is_new and kept is self._tasks
        if is_renewed:
            self._reopens.set()
        if (was_blocked or is_renewed) and not self.trouble_with(self._tasks.name):
            self.recoveries += 1
        if not self.trouble:
            self._said.forget_all()
        if is_new and all(other.prepared_on == connection for other in self._kept.values()):
            self._is_prepared.set()
            self._on_prepared()

    def _say(self, kept: Kept, exc: BrokerError) -> None:
        """Log it once: of several streams that are silent in one outage the first one."""
        is_silent = is_doubtful(exc)
        kind = type(exc).__name__ if is_silent else str(exc)
        if not self._said.is_new(kind):
            return
        if is_silent:
            log.warning("stream %s: %s; next: asking again until it answers", kept.name, exc)
        else:
            log.error("%s; next: trying again, workloads stay queued", exc)

    def _tell(self, place: str, found: Sequence[setup.Drift]) -> None:
        """Say what differs, each once; `airflow nats setup` decides between two releases."""
        # Not by the advice: what a change would drop is another number each time.
        told = self._drifts.get(place, set())
        for drift in found:
            if str(drift) not in told:
                log.warning("%s; next: going on with it", drift.advice)
        self._drifts[place] = {str(drift) for drift in found}

    # Queues

    async def open_queue(self, broker: Broker, queue: str) -> None:
        """Create a queue's consumers where they are missing; raises why it cannot be used."""
        self._tell(f"queue {queue}", await setup.open_queue(broker, self._settings, queue))
        self.queues.add(queue)

    async def _reopen_queues(self, broker: Broker) -> None:
        """Create consumers again that went with the broker's data.

        Beside the sending, as a workload waits in the stream until its consumer is there: each
        consumer has a leader of its own, whose election may take longer than the stream's.
        """
        while True:
            await self._reopens.wait()
            self._reopens.clear()
            for queue in sorted(self.queues):
                try:
                    await self.open_queue(broker, queue)
                except BrokerUnavailable as exc:
                    log.debug("queue %s: %s; trying again", queue, exc)
                    self._reopens.set()
                except BrokerError:
                    self.queues.discard(queue)  # the next publish to it is told why
            if self._reopens.is_set():
                await asyncio.sleep(RETRY_SECONDS)

    async def _miss_queues(self, broker: Broker) -> None:
        """Notice the queues that an operator deletes, and make those again that got a task.

        A task that was sent at the moment of that would wait for ever.
        """
        while True:
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                infos = await broker.consumer_infos(self._tasks.name)
                there = {(info.queue, info.band) for info in infos}
                for queue in sorted(self.queues):
                    if not there.issuperset(self._settings.lanes(queue)):
                        await self._miss(broker, queue)
            except BrokerError as exc:
                log.debug("queues: %s; looking again later", exc)
            except Exception:
                # A defect in this must not keep workloads from being sent.
                log.exception("cannot look for deleted queues; next: looking again later")

    async def _miss(self, broker: Broker, queue: str) -> None:
        # First of all, so that whatever is sent from now on makes the queue again by itself.
        self.queues.discard(queue)
        names = self._settings.names
        for lane in self._settings.lanes(queue):
            if (await broker.subjects(self._tasks.name, names.tasks(lane))).messages:
                await self.open_queue(broker, queue)
                return


async def first_answer(broker: Broker, stream: str) -> StreamInfo | None:
    """Look at a stream again and again, and return what the first answer tells.

    A look that meets an election is lost and would be waited for in vain; one that meets a slow
    server is answered late. So none is given up for the next one.
    """
    looks: set[asyncio.Task[StreamInfo | None]] = set()
    try:
        while True:
            look = asyncio.create_task(broker.stream_info(stream), name=f"look at {stream}")
            # The results of the other looks are not needed.
            look.add_done_callback(lambda task: task.cancelled() or task.exception())
            looks.add(look)
            done, _ = await asyncio.wait(
                looks, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return min(done, key=has_failed).result()
    finally:
        for look in looks:
            look.cancel()


def has_failed(look: asyncio.Task[StreamInfo | None]) -> bool:
    return look.exception() is not None
