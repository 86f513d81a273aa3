"""Keeps account of what was handed over, and says what a report about it means. No I/O, no clock.

A report counts only for the current dispatch of a key: Airflow uses one key again when a task is
deferred or rescheduled, and a late success of the first run would fail the second. Two attempts
with the same coordinates are two keys where Airflow tells them apart (3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_executor.wire.messages import State
from nats_executor.wire.names import Lane

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from nats_executor.wire.messages import Report

__all__ = ["Dispatch", "Ended", "Ledger", "Outcome", "Renewal", "Returned", "Started", "Unwanted"]


@dataclass(slots=True)
class Dispatch:
    """One workload that the broker or a worker has.

    Attributes:
        token_subject: the id that the workload's token is issued for; never taken from a report.
        band: of the queue, in which it was published.
        coordinates: where to find it in Airflow, for people; None where the key says it all.
        attempt: of the claim that was last heard of; with `worker` it tells two claims apart.
        held_since: when that claim was first heard of, by the reader's clock.
        since: when it was sent or taken over, by the same clock.
        explained: the cause of its waiting that was written into Airflow's audit log last.
        sent_at: epoch seconds, 0 if another scheduler has sent it.
    """

    id: str
    key: Hashable
    queue: str
    kind: str
    token_subject: str
    band: int = 0
    coordinates: Hashable = None
    state: State | None = None  # None: no worker has said anything yet
    worker: str = ""
    worker_name: str = ""
    generation: int = 0
    attempt: int = 0
    held_since: float = 0.0
    sent_at: float = 0.0
    since: float = 0.0
    explained: str = ""
    returned_for: str = ""  # the last reason, which may come again every few seconds

    @property
    def lane(self) -> Lane:
        return Lane(self.queue, self.band)

    @property
    def name(self) -> str:
        """The coordinates, which people look for, and the key where that is the attempt's id."""
        alone = self.coordinates is None or self.coordinates == self.key
        return str(self.key) if alone else f"{self.coordinates} {self.key}"

    @property
    def is_held(self) -> bool:
        """Whether a worker has it."""
        return self.state is not None and self.state.is_held


@dataclass(frozen=True, slots=True)
class Started:
    """It runs now."""

    dispatch: Dispatch


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over; `info` is for the person who reads the task's history."""

    dispatch: Dispatch
    succeeded: bool
    info: str


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Airflow refused its start as out of date: its slot is free and there is no event to send."""

    dispatch: Dispatch
    info: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A worker could not start it and gave it back; `info` says why."""

    dispatch: Dispatch
    info: str


@dataclass(frozen=True, slots=True)
class Renewal:
    """Its token died while it waited: it needs a new one."""

    dispatch: Dispatch


Outcome = Started | Ended | Unwanted | Returned | Renewal


class Ledger:
    """The outstanding dispatches of one executor, at most one for each key."""

    def __init__(self) -> None:
        self._by_id: dict[str, Dispatch] = {}
        self._by_key: dict[Hashable, Dispatch] = {}
        self._held: dict[str, Dispatch] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Dispatch]:
        return iter(list(self._by_id.values()))

    def __repr__(self) -> str:
        running = sum(d.state is State.RUNNING for d in self._by_id.values())
        return f"<Ledger [{len(self._by_id)} outstanding, {running} running]>"

    def __contains__(self, dispatch: object) -> bool:
        """Whether this very dispatch is outstanding."""
        return isinstance(dispatch, Dispatch) and self._by_id.get(dispatch.id) is dispatch

    def knows(self, dispatch_id: str) -> bool:
        """Whether a dispatch of this id is outstanding."""
        return dispatch_id in self._by_id

    def of_id(self, dispatch_id: str) -> Dispatch | None:
        """Return what is outstanding under an id; any thread may ask."""
        return self._by_id.get(dispatch_id)

    @property
    def held(self) -> list[Dispatch]:
        """The dispatches that workers have; far fewer than all that is outstanding."""
        return list(self._held.values())

    def of_key(self, key: Hashable) -> Dispatch | None:
        """Return what is outstanding for a key."""
        return self._by_key.get(key)

    def track(self, dispatch: Dispatch) -> None:
        """Enter a dispatch; it replaces an earlier one of its key."""
        self.forget(dispatch.key)
        if earlier := self._by_id.get(dispatch.id):
            self.forget(earlier.key)
        self._by_id[dispatch.id] = dispatch
        self._by_key[dispatch.key] = dispatch

    def forget(self, key: Hashable) -> Dispatch | None:
        """Strike a key out, and return what was outstanding for it."""
        dispatch = self._by_key.pop(key, None)
        if dispatch is not None:
            del self._by_id[dispatch.id]
            self._held.pop(dispatch.id, None)
        return dispatch

    def apply(self, report: Report, now: float = 0.0) -> Outcome | None:
        """Enter a report; return what it changes for the scheduler, None for nothing.

        A report twice, one for another dispatch, one of an older generation, or one that a worker
        of another queue sent changes nothing.

        Args:
            now: when it was read, by a clock that only goes forward.
        """
        dispatch = self._by_id.get(report.dispatch_id)
        if dispatch is None or report.queue != dispatch.queue:
            return None
        is_old = report.generation < dispatch.generation
        # An expiry is answered by compare-and-set, so once; and its answer may have got lost.
        counts_always = report.state.is_final or report.state is State.EXPIRED
        if report.state is State.RENEWED or (is_old and not counts_always):
            return None
        was, dispatch.state = dispatch.state, report.state
        claim = report.worker, report.attempt
        if claim != (dispatch.worker, dispatch.attempt) or was is None or not was.is_held:
            dispatch.held_since = now
        dispatch.worker, dispatch.attempt = claim
        dispatch.worker_name = report.worker_name
        if dispatch.is_held:
            self._held[dispatch.id] = dispatch
        else:
            self._held.pop(dispatch.id, None)
        match report.state:
            case State.RUNNING if was is not State.RUNNING:
                return Started(dispatch)
            case State.EXPIRED:
                dispatch.generation = report.generation + 1
                return Renewal(dispatch)
            case State.SUCCESS | State.FAILED:
                self.forget(dispatch.key)
                return Ended(dispatch, report.state is State.SUCCESS, report.info)
            case State.RELEASED if report.info != dispatch.returned_for:
                dispatch.returned_for = report.info
                return Returned(dispatch, report.info)
            case State.DROPPED:
                self.forget(dispatch.key)
                return Unwanted(dispatch, report.info)
        return None
