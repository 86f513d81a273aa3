"""Asks NATS for all viewers of one process of the API server, over one connection.

A survey costs a few requests, whatever the number of viewers: all of them get the same one for two
seconds, and those who come while it is taken wait for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow.configuration import conf

from nats_executor.errors import NatsExecutorError
from nats_executor.fleet.histories import seen_histories
from nats_executor.fleet.queues import queue_rows
from nats_executor.fleet.workers import served_queues
from nats_executor.logs.connection import PerProcess, ProcessConnection
from nats_executor.operations.describing import description_of
from nats_executor.operations.letters import letters_page
from nats_executor.operations.peeking import peek, queued_tasks, waiting_rows
from nats_executor.operations.situations import explain
from nats_executor.operations.survey import take_survey, worker_rows
from nats_executor.settings import Settings
from nats_executor.ui.tables import with_queue_state

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from nats_executor.fleet.letters import Wanted
    from nats_executor.fleet.presences import Seen
    from nats_executor.fleet.queues import Row
    from nats_executor.operations.describing import Untold
    from nats_executor.operations.instances import WhichTask
    from nats_executor.operations.letters import LettersPage
    from nats_executor.operations.situations import Explanation
    from nats_executor.operations.survey import Survey
    from nats_executor.wire.descriptions import Description
    from nats_executor.wire.history import History

__all__ = ["ORDER_BUDGET_SECONDS", "Glance", "desks"]

# How long one survey is shown to everyone.
FRESH_SECONDS = 2.0
# How long one look at the last hour of queues is shown; schedulers write it once a minute.
HISTORIES_SECONDS = 20.0
# 1,000 workers on a busy machine are read in one or two.
SURVEY_SECONDS = 10.0
# How long one look at what waits in a queue is shown: NATS lists every message for it.
WAITING_SECONDS = 10.0
# Rows of such a look.
MOST_WAITING = 20
# Queues whose last look is kept: viewers of several queues must not take it from each other.
KEPT_QUEUES = 16
# An order to a worker may take eight, and a hundred workers are told one after another.
ORDER_BUDGET_SECONDS = 120.0
# Pages of dead letters that are kept while the stream does not change.
KEPT_PAGES = 16


AnyAnswer = TypeVar("AnyAnswer")


@dataclass(frozen=True, slots=True)
class Glance:
    """What is shown: the last survey that there was, its rows, and why there is no newer one.

    Attributes:
        at: `time.monotonic()` of the survey; `looked_at` of the last try.
        trouble: one line with its remedy, '' if the survey is the newest.
    """

    looked_at: float
    at: float | None = None
    survey: Survey | None = None
    queues: tuple[Row, ...] = ()
    workers: tuple[Row, ...] = ()
    histories: Mapping[str, History] = field(default_factory=dict)
    trouble: str = ""


class PageKey(NamedTuple):
    """The page of dead letters that was asked for, and the state of the stream by then."""

    wanted: Wanted
    before: int | None
    most: int
    messages: int
    last_sequence: int


class Waiting(NamedTuple):
    """The tasks that wait in a queue, the next one first.

    Attributes:
        total: how many tasks wait there.
        is_whole: whether NATS listed all its messages.
        at: `time.monotonic()` of the look.
    """

    rows: list[Row]
    total: int
    is_whole: bool
    at: float


class Desk(ProcessConnection):
    """All that the viewers of one process ask and order."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, budget_seconds=SURVEY_SECONDS)
        self._guard = threading.Lock()  # is held for no question
        # One thread: viewers must not take those that answer the rest of Airflow's requests.
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="nats-page")
        self._glance: Future[Glance] | None = None
        self._last = Glance(looked_at=0.0)
        self._pages: OrderedDict[PageKey, LettersPage] = OrderedDict()
        self._histories: Mapping[str, History] = {}
        self._histories_until = 0.0
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()

    async def glance(self) -> Glance:
        """Return a survey that is at most two seconds old, or the last one and what is wrong."""
        # Shielded: a viewer who goes away must not take the answer from the others.
        return await asyncio.shield(asyncio.wrap_future(self._current()))

    def _current(self) -> Future[Glance]:
        with self._guard:
            glance = self._glance
            if glance is None or (glance.done() and is_stale(glance.result())):
                glance = self._glance = self._clerk.submit(self._look)
            return glance

    def forget(self) -> None:
        """Have the next viewer see what an order has changed."""
        with self._guard:
            self._glance = None

    def _look(self) -> Glance:
        """Take a survey; never raises. Runs in the one thread, so it may keep the last one."""
        try:
            survey = self.ask(self._survey)
        except NatsExecutorError as exc:
            now = time.monotonic()
            self._last = replace(self._last, looked_at=now, trouble=str(exc) or type(exc).__name__)
        else:
            self._last = glance_at(survey, self._histories, self.settings)
        return self._last

    async def _survey(self) -> Survey:
        """Take a survey; the last hour of queues changes once a minute, and is looked at then."""
        broker = self.require_broker()
        survey = await take_survey(broker, self.settings)
        if time.monotonic() >= self._histories_until:
            self._histories = await seen_histories(broker, self.settings.names)
            self._histories_until = time.monotonic() + HISTORIES_SECONDS
        return survey

    async def letters(self, wanted: Wanted, before: int | None, most: int) -> LettersPage:
        """Return a page of dead letters, from memory while their stream is as it was.

        Raises:
            BrokerError: NATS gives none.
        """
        survey = (await self.glance()).survey
        stream = self.settings.names.dead_letters_stream
        info = next((i for i in (survey.streams if survey else ()) if i.name == stream), None)
        if info is None:
            return await self._read_letters(wanted, before, most)
        key = PageKey(wanted, before, most, info.messages, info.last_sequence)
        if key not in self._pages:
            self._pages[key] = await self._read_letters(wanted, before, most)
            while len(self._pages) > KEPT_PAGES:
                self._pages.popitem(last=False)
        return self._pages[key]._replace(now=info.time)

    async def _read_letters(self, wanted: Wanted, before: int | None, most: int) -> LettersPage:
        names = self.settings.names
        return await self._in_turn(
            lambda: letters_page(self.require_broker(), names, wanted, before=before, most=most)
        )

    async def description(self, seen: Seen) -> Description | Untold:
        """Return what a worker runs.

        Raises:
            BrokerError: NATS does not answer, or this user may not ask.
        """
        return await self._in_turn(
            lambda: description_of(self.require_broker(), self.settings, seen)
        )

    async def waiting(self, queue: str) -> Waiting:
        """Return what waits in a queue, from memory if another viewer asked a moment ago.

        Raises:
            NotFound: no queue has that name.
            BrokerError: NATS does not answer.
            DatabaseAway: Airflow's database does not answer.
        """
        if kept := self._kept_waiting(queue):
            return kept
        looked = self._clerk.submit(self._look_into, queue)
        return await asyncio.shield(asyncio.wrap_future(looked))

    def _kept_waiting(self, queue: str) -> Waiting | None:
        kept = self._waiting.get(queue)
        return kept if kept and time.monotonic() - kept.at < WAITING_SECONDS else None

    def _look_into(self, queue: str) -> Waiting:
        """Look what waits. Runs in the one thread: those who ask at once get the first's answer."""
        if kept := self._kept_waiting(queue):
            return kept
        settings = self.settings
        there = self.ask(lambda: peek(self.require_broker(), settings, queue))
        waiting = [task for task in queued_tasks(queue) if task.dispatch_id in there.dispatches]
        rows = waiting_rows(
            waiting, there.dispatches, settings, queue,
            now=datetime.now(UTC), limit=MOST_WAITING,
        )  # fmt: skip
        now = time.monotonic()
        found = self._waiting[queue] = Waiting(rows, len(waiting), there.is_whole, now)
        self._waiting.move_to_end(queue)
        while len(self._waiting) > KEPT_QUEUES:
            self._waiting.popitem(last=False)
        return found

    async def explanation(self, wanted: WhichTask) -> Explanation:
        """Return what a task instance waits for.

        Raises:
            BrokerError: NATS does not say, or there is no such task instance.
        """
        return await self._in_turn(lambda: explain(self.require_broker(), self.settings, wanted))

    async def _in_turn(self, question: Callable[[], Coroutine[Any, Any, AnyAnswer]]) -> AnyAnswer:
        """Ask one question of a viewer after another: they cost as much as one viewer's."""
        asked = self._clerk.submit(lambda: self.ask(question))
        return await asyncio.shield(asyncio.wrap_future(asked))

    def close(self) -> None:
        self._clerk.shutdown(wait=False, cancel_futures=True)
        super().close()


def is_stale(glance: Glance) -> bool:
    return time.monotonic() - glance.looked_at >= FRESH_SECONDS


def glance_at(survey: Survey, histories: Mapping[str, History], settings: Settings) -> Glance:
    """Return a survey with the rows that everyone is shown; made once for all of them."""
    now = time.monotonic()
    served = served_queues(survey.workers, settings)
    queues = queue_rows(survey.consumers, survey.workers, settings, survey.holds, served=served)
    return Glance(
        looked_at=now,
        at=now,
        survey=survey,
        queues=tuple(map(with_queue_state, queues)),
        workers=tuple(worker_rows(survey, settings)),
        histories=histories,
    )


def open_desk() -> Desk:
    return Desk(Settings.load(conf))


desks = PerProcess(open_desk)
"""The desk of each process."""
