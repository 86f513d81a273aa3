"""Concludes what a task instance waits for, in one sentence with the numbers. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from nats_executor.operations.facts import PACE_SECONDS
from nats_executor.text import number_of, presentable
from nats_executor.wire.messages import State
from nats_executor.wire.names import Lane
from nats_executor.wire.queue_names import as_argument, as_text, remedy

if TYPE_CHECKING:
    from nats_executor.operations.facts import InHand, QueueWorker, Situation

__all__ = ["Reason", "conclude"]

# Names in one sentence.
MOST_NAMED = 3
MINUTE, HOUR = 60.0, 3600.0
RUNNING, EXPIRED, FAILED = {"running", "restarting"}, {State.EXPIRED}, {"failed"}
# Airflow has not given these to an executor, or not again yet.
NOT_YET = {"", "scheduled", "deferred", "up_for_retry", "up_for_reschedule", "awaiting_input"}
# Of the workers that take nothing, those tell most that come back first.
IDLE = ("paused", "draining", "lost")
# Of an errand.
PHASES = {
    "looking": "looks whether it may run there",
    "claimed": "has claimed it, and has not started it",
    "starting": "waits for its process, or for Airflow's API server, to start",
}


class Cause(StrEnum):
    """What a task instance waits for, or why it does not wait."""

    NOT_QUEUED = "not queued"
    RUNS = "runs"
    OVER = "over"
    OTHER_EXECUTOR = "other executor"
    EXECUTOR_FULL = "executor full"
    NOT_SENT = "not sent"
    TOO_LARGE = "too large"
    IN_SCHEDULER = "in the scheduler"
    SCHEDULER_LOST = "scheduler lost"
    TURN = "waits its turn"
    QUEUE_PAUSED = "queue paused"
    NO_WORKER = "no worker"
    WORKERS_FULL = "workers full"
    WORKERS_PAUSED = "workers paused"
    WORKERS_DRAINING = "workers draining"
    WORKERS_LOST = "workers lost"
    BAND_UNSERVED = "band unserved"
    LIMIT = "queue limit"
    WEIGHT = "weight"
    CLAIMED = "claimed"
    RENEWAL = "token renewal"
    LOST = "lost"
    DEAD_LETTER = "dead letter"
    UNWANTED = "not wanted"

    @property
    def needs_person(self) -> bool:
        """Whether it does not go on by itself."""
        return self in NEED_PERSON

    @property
    def is_turn(self) -> bool:
        """Whether it only waits for its turn, or for a free slot."""
        return self in TURNS


TURNS = {Cause.TURN, Cause.WORKERS_FULL, Cause.LIMIT}
NEED_PERSON = {
    Cause.NOT_SENT, Cause.TOO_LARGE, Cause.QUEUE_PAUSED, Cause.NO_WORKER, Cause.WORKERS_PAUSED,
    Cause.WORKERS_DRAINING, Cause.WORKERS_LOST, Cause.BAND_UNSERVED, Cause.WEIGHT,
    Cause.DEAD_LETTER,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """What a task instance waits for.

    Attributes:
        sentence: says so, with the numbers.
        remedy: what to do, '' for nothing.
    """

    cause: Cause
    sentence: str
    remedy: str = ""


def conclude(s: Situation) -> Reason:
    """Return what a task instance waits for."""
    state = s.instance.state
    if s.letter is not None:
        return dead_letter(s)
    if not s.instance.is_ours:
        return Reason(
            Cause.OTHER_EXECUTOR,
            f"It is {state or 'not queued'} and belongs to another executor, "
            f"{presentable(s.instance.executor or 'the default one')}.",
            "look at that executor",
        )
    if state == "queued":
        return of_queued(s)
    if state in RUNNING:
        return runs(s)
    if s.is_in_stream:
        return Reason(
            Cause.UNWANTED,
            f"Airflow no longer wants it: its state is {state or 'none'}, and its message still "
            f"is in {Lane(s.instance.queue, s.band)}; the executor takes it out when it looks the "
            "next time.",
        )
    return of_others(s)


def dead_letter(s: Situation) -> Reason:
    number = "" if s.letter_sequence is None else f" {s.letter_sequence}"
    return Reason(
        Cause.DEAD_LETTER,
        f"It became a dead letter: {presentable(s.letter or 'no reason is known')}.",
        f"mend that, then run: airflow nats dead-letters retry{number}",
    )


def runs(s: Situation) -> Reason:
    started = s.instance.started_at
    since = "" if started is None else f" for {in_words(s.now - started)}"
    on = f" on {presentable(s.instance.worker)}" if s.instance.worker else ""
    return Reason(Cause.RUNS, f"It runs{since}{on}.")


def of_others(s: Situation) -> Reason:
    """Return what to say of a task instance that waits for nothing here."""
    state, remark = s.instance.state, s.instance.remark
    if state in {*FAILED, "up_for_retry"} and "too large for NATS" in remark:
        return Reason(
            Cause.TOO_LARGE,
            f"It was never sent: {presentable(remark)}.",
            "make what the task is given smaller, or raise max_payload of the nats-server",
        )
    if state in NOT_YET:
        return Reason(
            Cause.NOT_QUEUED,
            f"Airflow has not queued it: its state is {state or 'none'}.",
            "its page in Airflow says what it waits for: another task, a pool, a time",
        )
    ended = s.instance.ended_at
    ago = "" if ended is None else f" since {in_words(s.now - ended)}"
    said = f": {presentable(remark)}" if remark and state in FAILED else ""
    return Reason(Cause.OVER, f"It is over{ago}, with the state {state}{said}.")


def of_queued(s: Situation) -> Reason:
    if s.holdings:
        return held(s, s.holdings[0])
    if s.is_in_stream:
        return of_waiting(s)
    return of_missing(s)


def held(s: Situation, holding: InHand) -> Reason:
    """Return what to say of what a worker has, while Airflow does not see it running."""
    worker = presentable(holding.worker)
    since = "" if holding.since is None else f" for {in_words(holding.since)}"
    match holding.phase:
        case "waiting":
            return kept(s, holding, since)
        case "renewing":
            return renewal(f", found out by worker {worker}")
        case "running":
            return Reason(
                Cause.RUNS, f"It runs on worker {worker}{since}; Airflow will show that soon."
            )
        case "ending":
            return Reason(
                Cause.OVER, f"It has ended on worker {worker}; Airflow will show that soon."
            )
    phase = PHASES.get(holding.phase, "has not started it yet")
    return Reason(
        Cause.CLAIMED,
        f"Worker {worker} has it and {phase}{since}.",
        f"if that lasts, read the log of worker {worker}",
    )


def kept(s: Situation, holding: InHand, since: str) -> Reason:
    """Return what to say of what a worker has and has not enough free slots for."""
    worker, needed = presentable(holding.worker), s.instance.weight
    if needed > most_slots(s):
        return too_heavy(s, f"; worker {worker} keeps it{since} until it runs nothing else")
    slots = max((server.slots for server in s.servers if server.name == holding.worker), default=0)
    return Reason(
        Cause.CLAIMED,
        f"Worker {worker} keeps it{since} until {needed} of its {number_of(slots, 'slot')} are "
        "free.",
        "wait for them",
    )


def most_slots(s: Situation) -> int:
    return max((server.slots for server in s.servers if server.state != "lost"), default=0)


def renewal(more: str = "") -> Reason:
    return Reason(
        Cause.RENEWAL,
        f"Its token died while it waited{more}; the executor renews it, and it keeps its place "
        "in the queue.",
    )


def too_heavy(s: Situation, more: str = "") -> Reason:
    return Reason(
        Cause.WEIGHT,
        f"It asks for {number_of(s.instance.weight, 'slot')} (pool_slots), and the largest worker "
        f"of queue {s.instance.queue!r} has {most_slots(s)}{more}.",
        "lower its pool_slots, or start a worker of the queue with more --concurrency",
    )


def of_missing(s: Situation) -> Reason:
    """Return what to say of a queued one that NATS does not have."""
    sender = s.sender
    if sender.is_lost and not sender.answers:
        return scheduler_lost(s)
    if sender.trouble:
        return Reason(
            Cause.NOT_SENT,
            f"It is still in the scheduler, which cannot send it to NATS for "
            f"{in_words(sender.trouble_seconds)}: {presentable(sender.trouble)}.",
            "see what NATS says: airflow nats check",
        )
    if sender.knows and not s.is_reported:
        return Reason(
            Cause.LOST,
            "NATS has lost its message; the executor sends it again when it looks the next time.",
        )
    if s.is_reported:
        return Reason(
            Cause.OVER,
            "A worker has reported on it, and NATS has its message no more; the scheduler will "
            "have read that in a moment.",
        )
    if sender.slots and sender.taken >= sender.slots and not sender.knows:
        return Reason(
            Cause.EXECUTOR_FULL,
            f"It is still in the scheduler: {sender.taken} of the executor's "
            f"{number_of(sender.slots, 'slot')} are taken.",
            "wait for one, or raise [core] parallelism",
        )
    return Reason(
        Cause.IN_SCHEDULER,
        "It is still in the scheduler, which sends it with its next heartbeat."
        if sender.answers
        else "NATS does not have it: the scheduler is about to send it, or to send it again.",
        "" if sender.answers else "if that lasts, read the scheduler's log",
    )


def scheduler_lost(s: Situation) -> Reason:
    return Reason(
        Cause.SCHEDULER_LOST,
        f"Its scheduler (job {s.instance.sender_job}) has been silent for "
        f"{in_words(s.sender.silent)}; another scheduler takes it over.",
        "see that a scheduler runs",
    )


def of_waiting(s: Situation) -> Reason:
    """Return what to say of a queued one whose message is in NATS, and no worker has it."""
    queue = s.instance.queue
    if s.pause is not None:
        by = f" by {presentable(s.pause.by)}" if s.pause.by else ""
        why = f" ({presentable(s.pause.reason)})" if s.pause.reason else ""
        return Reason(
            Cause.QUEUE_PAUSED,
            f"Queue {queue!r} is paused{by} {s.pause.until}{why}; {s.pending} wait in it.",
            f"to resume it: airflow nats queues resume {as_argument(as_text([queue]))}",
        )
    reason = of_servers(s)
    # Everything else keeps it from its start even with a new token.
    return renewal() if s.sender.state in EXPIRED and reason.cause is Cause.TURN else reason


def of_servers(s: Situation) -> Reason:
    queue, lane = s.instance.queue, Lane(s.instance.queue, s.band)
    living = [server for server in s.servers if server.state in {"running", "paused"}]
    if not s.servers:
        return Reason(
            Cause.NO_WORKER,
            f"No worker serves queue {queue!r}, in which {s.pending} wait.",
            f"start one: {remedy(lane, has_workers=False)}",
        )
    if living and not any(s.band < server.bands for server in living):
        return Reason(
            Cause.BAND_UNSERVED,
            f"No worker takes what is in {lane}: the workers of the queue pull from fewer bands.",
            remedy(lane, has_workers=True),
        )
    running = [server for server in s.takers if server.takes]
    if not running:
        return idle(s)
    if s.limit and s.in_flight >= s.limit:
        where = f": {', '.join(map(presentable, s.runs))}" if s.runs else ""
        return Reason(
            Cause.LIMIT,
            f"Queue {queue!r} has reached its limit: {s.in_flight} of {s.limit} are with "
            f"workers{where}.",
            "wait for one, or raise its number in [nats_executor] queue_limits",
        )
    if s.weighs and s.instance.weight > most_slots(s):
        return too_heavy(s)
    return turn(s, running)


def idle(s: Situation) -> Reason:
    """Return what to say where no worker of the band takes anything."""
    servers = s.takers or s.servers
    counts = Counter(server.state for server in servers)
    state = next((state for state in IDLE if counts[state]), "lost")
    names = ", ".join(in_detail(server) for server in servers[:MOST_NAMED])
    more = f" and {len(servers) - MOST_NAMED} more" if len(servers) > MOST_NAMED else ""
    first = next((server.name for server in servers if server.state == state), "")
    name = as_argument(as_text([first]))
    remedies = {
        "paused": f"free what worker {name} lacks; it goes on by itself then",
        "draining": f"airflow nats workers undrain {name}, or start another worker of the queue",
        "lost": f"see what became of worker {name}, or start another one: "
        f"{remedy(Lane(s.instance.queue, s.band), has_workers=False)}",
    }
    what = " and ".join(f"{counts[word]} {word}" for word in IDLE if counts[word])
    return Reason(
        Cause(f"workers {state}"),
        f"No worker of queue {s.instance.queue!r} takes anything: {what} ({names}{more}).",
        remedies[state],
    )


def in_detail(server: QueueWorker) -> str:
    name, why = presentable(server.name), presentable(server.why)
    if server.state == "lost":
        return f"{name}: silent for {in_words(server.age)}"
    return f"{name}: {why}" if why else f"{name}: {server.taken} running"


def turn(s: Situation, running: list[QueueWorker]) -> Reason:
    """Return what to say where workers take from its band, and it is not its turn."""
    queue, ahead = s.instance.queue, s.ahead
    free, slots = sum(server.free for server in running), sum(server.slots for server in running)
    full = f"all {number_of(slots, 'slot')} of {number_of(len(running), 'worker')} are taken"
    if ahead is None:
        state = full if not free else f"{free} of {number_of(slots, 'slot')} are free"
        return Reason(
            Cause.TURN, f"It waits its turn in queue {queue!r}: {s.pending} wait, {state}."
        )
    if not ahead.most and not free:
        return Reason(
            Cause.WORKERS_FULL,
            f"It is next in queue {queue!r}, and {full}{pace(s, 1)}.",
            "wait for one, or start another worker of the queue",
        )
    if not ahead.most:
        return Reason(Cause.TURN, f"It is next in queue {queue!r}; a worker takes it in a moment.")
    number = " to ".join(map(str, sorted({ahead.least, ahead.most})))
    noun = "tasks are" if ahead.most > 1 else "task is"
    dags = ", ".join(f"{count} of {presentable(dag)}" for dag, count in ahead.by_dag[:MOST_NAMED])
    return Reason(
        Cause.TURN,
        f"It waits its turn in queue {queue!r}: {number} {noun} ahead of it"
        f"{f' ({dags})' if dags else ''}, {full if not free else f'{free} slots are free'}"
        f"{pace(s, ahead.most + 1)}.",
        "" if free else "wait, or start another worker of the queue",
    )


def pace(s: Situation, position: int) -> str:
    """Say how fast the queue goes, and when it is a position's turn."""
    rate = s.per_minute
    if rate is None:
        return ""
    if not rate:
        return f"; none of the queue has started in the last {in_words(PACE_SECONDS)}"
    about = in_words(MINUTE * position / rate)
    return f"; {rate:.1f} a minute have started, so it starts in about {about}"


def in_words(seconds: float | None) -> str:
    """Write a length of time; clocks may differ, so there are negative ones."""
    seconds = 0.0 if seconds is None else max(0.0, seconds)
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
