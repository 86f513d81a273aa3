"""Holds what is known of one task instance and of its queue, to find out what it waits for. Pure.

Times are epoch seconds; ages and the rest are seconds. None is what could not be found out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats_executor.fleet.queues import Row

__all__ = [
    "PACE_SECONDS",
    "Ahead",
    "InHand",
    "Instance",
    "Pause",
    "QueueWorker",
    "Sender",
    "Situation",
    "facts_row",
]

# Starts are counted over so long: shorter, and a queue of long tasks seems to stand still.
PACE_SECONDS = 300.0
# States of a worker.
TAKING = {"running"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A task instance as Airflow's database has it.

    Attributes:
        state: '' for none: nothing has asked for it yet, or it was cleared.
        executor: the name that it asks for, '' for the default one; `is_ours` if that is this one.
        dispatch_id: of its last queueing, '' before the first one.
        weight: its `pool_slots`.
        worker: the host that runs it, or that ran it last.
        sender_job: the scheduler that has queued it.
        remark: what this executor has said of its try in Airflow's audit log, the last time.
    """

    dag: str
    run: str
    task: str
    map_index: int | None
    try_number: int
    state: str
    queue: str
    executor: str = ""
    is_ours: bool = True
    dispatch_id: str = ""
    priority: int = 1
    weight: int = 1
    queued_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    worker: str = ""
    sender_job: int | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class QueueWorker:
    """A worker that serves the queue, by its record.

    Attributes:
        state: running, paused, draining or lost.
        taken: of its slots.
        bands: how many priority bands it pulls from, the lowest ones.
        why: it takes nothing.
    """

    name: str
    state: str
    taken: int
    slots: int
    bands: int = 1
    why: str = ""
    age: float = 0.0

    @property
    def takes(self) -> bool:
        """Whether it takes workloads now, where a slot is free."""
        return self.state in TAKING

    @property
    def free(self) -> int:
        """The slots that it may fill now."""
        return max(0, self.slots - self.taken) if self.takes else 0


@dataclass(frozen=True, slots=True)
class InHand:
    """A worker that says that it has the workload.

    Attributes:
        phase: how far it has got with it, '' if it does not say.
        since: so many seconds ago.
    """

    worker: str
    phase: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a queue.

    Attributes:
        until: in words.
        by: the operator, '' if another client of NATS did it.
    """

    until: str
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ahead:
    """The tasks that workers take before this one.

    Attributes:
        least: so many at the least.
        most: and so many at the most: what was queued at the same moment has no known order.
        by_dag: those of each Dag, most of them first; some Dags may be left out.
    """

    least: int
    most: int
    by_dag: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The executor in the scheduler that has queued the task instance.

    Attributes:
        taken: of its slots, by what is queued and runs in Airflow's database.
        silent: seconds since the heartbeat of its scheduler.
        is_lost: that is too long: it counts as dead.
        answers: it was asked about the dispatch and has answered; else the rest is not known.
        knows: it has sent it and expects its end.
        trouble: what keeps it from sending, since `trouble_seconds`.
        state: of the last report that it has read about the dispatch, '' before the first one.
        worker: which has sent that.
        returned_for: why a worker has given it back.
    """

    taken: int = 0
    slots: int = 0
    silent: float | None = None
    is_lost: bool = False
    answers: bool = False
    knows: bool = False
    trouble: str = ""
    trouble_seconds: float = 0.0
    state: str = ""
    worker: str = ""
    returned_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that is known.

    Attributes:
        now: by this machine's clock.
        is_in_stream: NATS has its message: it waits there, or a worker has it.
        is_reported: a worker has reported on it.
        letter: why it became a dead letter, None if it is none.
        pending: messages of its band that no worker has.
        before: those of its band and the ones above, itself left out.
        in_flight: those of its band that workers have; of these there may be `limit`.
        servers: the workers of its queue.
        holdings: those of them that say that they have it.
        started: how many of the queue have started within `PACE_SECONDS`.
        weighs: whether its weight counts.
        runs: some of the tasks of its queue that run, and where.
    """

    instance: Instance
    now: float
    band: int = 0
    is_in_stream: bool = False
    is_reported: bool = False
    letter: str | None = None
    letter_sequence: int | None = None
    pending: int = 0
    before: int = 0
    in_flight: int = 0
    limit: int | None = None
    pause: Pause | None = None
    servers: tuple[QueueWorker, ...] = ()
    holdings: tuple[InHand, ...] = ()
    ahead: Ahead | None = None
    started: int | None = None
    weighs: bool = False
    runs: tuple[str, ...] = ()
    sender: Sender = field(default_factory=Sender)

    @property
    def waits(self) -> float | None:
        """The seconds since it was queued."""
        queued_at = self.instance.queued_at
        return None if queued_at is None else max(0.0, self.now - queued_at)

    @property
    def takers(self) -> list[QueueWorker]:
        """The workers of its queue that pull from its band."""
        return [server for server in self.servers if self.band < server.bands]

    @property
    def per_minute(self) -> float | None:
        """How many of the queue have started a minute."""
        return None if self.started is None else 60 * self.started / PACE_SECONDS


def facts_row(s: Situation) -> Row:
    """Return all that is known in one flat row, as people read it and scripts do."""
    return {**of_instance(s), **of_queue(s), **of_workers(s), **of_sender(s)}


def of_instance(s: Situation) -> Row:
    instance = s.instance
    return {
        "dag": instance.dag,
        "run": instance.run,
        "task": instance.task,
        "map_index": instance.map_index,
        "try": instance.try_number,
        "state": instance.state or None,
        "queue": instance.queue,
        "band": s.band,
        "priority": instance.priority,
        "slots_wanted": instance.weight,
        "dispatch_id": instance.dispatch_id or None,
        "waits_seconds": None if s.waits is None else int(s.waits),
        "in_nats": s.is_in_stream,
        "reported": s.is_reported,
    }


def of_queue(s: Situation) -> Row:
    ahead, pause = s.ahead, s.pause
    return {
        "pending": s.pending,
        "in_flight": s.in_flight,
        "limit": s.limit,
        "ahead_least": ahead.least if ahead else None,
        "ahead_most": ahead.most if ahead else None,
        "ahead_by_dag": [f"{dag}={count}" for dag, count in ahead.by_dag] if ahead else [],
        "started_per_minute": s.per_minute,
        "paused_until": pause.until if pause else None,
        "paused_by": (pause.by or None) if pause else None,
        "paused_for": (pause.reason or None) if pause else None,
    }


def of_workers(s: Situation) -> Row:
    running = [server for server in s.takers if server.takes]
    of_state = Counter(server.state for server in s.servers)
    return {
        "workers": [f"{server.name} ({server.state})" for server in s.servers],
        "workers_running": of_state["running"],
        "workers_paused": of_state["paused"],
        "workers_draining": of_state["draining"],
        "workers_lost": of_state["lost"],
        "slots_free": sum(server.free for server in running),
        "slots": sum(server.slots for server in running),
        "held_by": [one.worker for one in s.holdings],
        "held_seconds": next((one.since for one in s.holdings if one.since is not None), None),
        "phase": next((one.phase for one in s.holdings if one.phase), None),
    }


def of_sender(s: Situation) -> Row:
    sender = s.sender
    return {
        "scheduler_job": s.instance.sender_job,
        "executor_slots_taken": sender.taken,
        "executor_slots": sender.slots or None,
        "scheduler_trouble": sender.trouble or None,
        "given_back_for": sender.returned_for or None,
        "dead_letter": s.letter_sequence,
        "remark": s.instance.remark or None,
    }
