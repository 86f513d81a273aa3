"""Plans the faults of a run: a seed in, a list of planned faults out. Pure."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["Fault", "Kind", "Rule", "kinds_for", "make_plan", "rule_of"]

# At most this many faults are under way at once: what breaks under more says little.
AT_ONCE = 3
# What a fault still disturbs after its end counts as overlapping with the next one. Clients take
# some seconds to be back at a broker, and one outage after the other would show only that.
AFTERMATH_SECONDS = {"broker": 5.0}
SHORT_AFTERMATH_SECONDS = 1.5
GAP_SECONDS = (0.2, 1.6)
# Workers, schedulers and streams settle first.
FIRST_AT_SECONDS = 1.0


class Kind(StrEnum):
    """Every kind of fault."""

    WORKER_KILLED = "worker killed"
    WORKER_STOPPED = "worker stopped"
    WORKER_FROZEN = "worker frozen"
    WORKER_CUT_OFF = "worker cut off"
    WORKER_CUT_SHORT = "worker cut off for a moment"
    WORKER_WITHOUT_API = "worker without API server"
    WORKER_DRAINED = "worker drained"
    WORKER_UNFIT = "worker can start nothing"
    STARTS_HANG = "starts hang"
    FORK_SERVER_KILLED = "fork server killed"
    SUPERVISOR_KILLED = "supervisor killed"
    TASK_KILLED = "task killed"
    SCHEDULER_KILLED = "scheduler killed"
    SCHEDULER_STOPPED = "scheduler stopped"
    WORKER_REPLACED = "worker replaced"
    SCHEDULER_REPLACED = "scheduler replaced"
    BROKER_KILLED = "broker killed"
    BROKER_STOPPED = "broker stopped"
    BROKER_AWAY = "broker away"
    BROKER_FROZEN = "broker frozen"
    BROKER_WIPED = "broker wiped"
    NODE_KILLED = "node killed"
    NODE_STOPPED = "node stopped"
    NODE_FROZEN = "node frozen"
    QUORUM_LOST = "quorum lost"
    API_AWAY = "API server away"
    API_FROZEN = "API server frozen"
    API_SLOW = "API server slow"
    API_MUTE = "API server mute"
    API_BEHIND_PROXY = "API server behind a failing proxy"
    POISON = "poison workload"
    REVOKED = "workload revoked"
    CLEARED = "task cleared"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind of fault is dealt.

    Attributes:
        group: faults of one group share its limit of faults at a time.
        often: how many times it comes before every other kind has come as often as it should.
        seconds: the shortest and the longest time that it lasts.
        servers: the sizes of the cluster in which it makes sense.
        needs_mix: it makes sense where two releases are mixed.
        is_new: the last release may spend a try on it, so it does not come where that one runs.
    """

    group: str
    often: int
    seconds: tuple[float, float] = (0.0, 0.0)
    servers: tuple[int, ...] = (1, 3)
    needs_mix: bool = False
    is_new: bool = False


# One worker of a queue that two serve may be away for long, but not all five workers at once.
LIMITS = {"worker": 2, "process": 2, "scheduler": 1, "broker": 1, "api": 1, "workload": 2}

RULES = {
    Kind.WORKER_KILLED: Rule("worker", 3, (0.2, 5.0)),
    Kind.WORKER_STOPPED: Rule("worker", 2, (0.2, 3.0)),
    # Longer than the server keeps an unresponsive connection and than `worker_lost_seconds`.
    Kind.WORKER_FROZEN: Rule("worker", 2, (6.5, 9.0)),
    # The same, but it goes on working.
    Kind.WORKER_CUT_OFF: Rule("worker", 2, (6.5, 9.0)),
    # Longer than `ack_wait_seconds`, and its record does not become old enough for it to be lost.
    Kind.WORKER_CUT_SHORT: Rule("worker", 2, (2.2, 2.6)),
    Kind.WORKER_WITHOUT_API: Rule("worker", 1, (0.5, 6.0)),
    # It has long to drain, and short tasks; the next one starts at once beside it.
    Kind.WORKER_DRAINED: Rule("worker", 3, is_new=True),
    Kind.WORKER_UNFIT: Rule("worker", 1, (1.0, 5.0), is_new=True),
    # Those that begin within this time; they never go on.
    Kind.STARTS_HANG: Rule("worker", 1, (0.3, 1.5), is_new=True),
    Kind.FORK_SERVER_KILLED: Rule("process", 2),
    Kind.SUPERVISOR_KILLED: Rule("process", 3),
    Kind.TASK_KILLED: Rule("process", 3),
    Kind.SCHEDULER_KILLED: Rule("scheduler", 2, (0.2, 5.0)),
    Kind.SCHEDULER_STOPPED: Rule("scheduler", 1, (0.2, 4.0)),
    # By one of the other release: an upgrade, or a rollback.
    Kind.WORKER_REPLACED: Rule("worker", 12, (0.2, 1.0), needs_mix=True),
    Kind.SCHEDULER_REPLACED: Rule("scheduler", 8, (0.2, 1.0), needs_mix=True),
    Kind.BROKER_KILLED: Rule("broker", 2, (0.0, 1.0), (1,)),
    Kind.BROKER_STOPPED: Rule("broker", 1, (0.0, 1.0), (1,)),
    # Longer than `ack_wait_seconds`.
    Kind.BROKER_AWAY: Rule("broker", 1, (3.0, 6.0), (1,)),
    Kind.BROKER_FROZEN: Rule("broker", 1, (0.5, 4.0), (1,)),
    Kind.BROKER_WIPED: Rule("broker", 1, (0.0, 1.0), (1,)),
    Kind.NODE_KILLED: Rule("broker", 2, (0.2, 5.0), (3,)),
    Kind.NODE_STOPPED: Rule("broker", 1, (0.2, 5.0), (3,)),
    Kind.NODE_FROZEN: Rule("broker", 1, (1.0, 6.0), (3,)),
    Kind.QUORUM_LOST: Rule("broker", 2, (1.0, 6.0), (3,)),
    Kind.API_AWAY: Rule("api", 1, (0.5, 6.0)),
    Kind.API_FROZEN: Rule("api", 1, (0.5, 3.0)),
    # It carries out what it is asked, and answers later than its clients wait.
    Kind.API_SLOW: Rule("api", 1, (2.0, 5.0), is_new=True),
    # It carries out what it is asked, and never answers.
    Kind.API_MUTE: Rule("api", 1, (0.5, 4.0), is_new=True),
    # Every answer is a 502; of two requests one was carried out.
    Kind.API_BEHIND_PROXY: Rule("api", 1, (0.5, 4.0), is_new=True),
    Kind.POISON: Rule("workload", 1),
    Kind.REVOKED: Rule("workload", 3),
    Kind.CLEARED: Rule("workload", 2),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned fault.

    Attributes:
        at: seconds after the start of the fault phase.
        target: which of the possible victims, counted round and round.
        seconds: how long it lasts; 0 for one that is over at once.
    """

    at: float
    kind: Kind
    target: int
    seconds: float

    @property
    def until(self) -> float:
        aftermath = AFTERMATH_SECONDS.get(RULES[self.kind].group, SHORT_AFTERMATH_SECONDS)
        return self.at + self.seconds + aftermath


def rule_of(kind: Kind) -> Rule:
    return RULES[kind]


def kinds_for(servers: int, *, is_mixed: bool = False) -> list[Kind]:
    return [
        kind
        for kind, rule in RULES.items()
        if servers in rule.servers and not (rule.is_new if is_mixed else rule.needs_mix)
    ]


def make_plan(
    seed: int,
    *,
    seconds: float,
    servers: int,
    only: Collection[Kind] = (),
    is_mixed: bool = False,
) -> list[Fault]:
    """Return the faults of a run, by time; the same arguments give the same ones.

    Args:
        seconds: the length of the fault phase; every fault is over by then.
        only: the kinds to choose from, all of them without any.
        is_mixed: whether two releases are there.
    """
    # Not for secrets: the point is that it can be repeated.
    source = random.Random(seed)  # noqa: S311
    kinds = [kind for kind in kinds_for(servers, is_mixed=is_mixed) if not only or kind in only]
    plan: list[Fault] = []
    at = FIRST_AT_SECONDS
    for kind in deal(source, kinds) if kinds else ():
        low, high = RULES[kind].seconds
        lasts = round(source.uniform(low, high), 2)
        target = source.randrange(1000)
        at = round(at + source.uniform(*GAP_SECONDS), 2)
        while not has_room(plan, kind, at):
            at = round(at + GAP_SECONDS[0], 2)
        if at + lasts > seconds:
            break
        plan.append(Fault(at, kind, target, lasts))
    return plan


def deal(source: random.Random, kinds: list[Kind]) -> Iterator[Kind]:
    """Yield kinds for ever, each as often as its rule says before any comes more often."""
    while True:
        deck = [kind for kind in kinds for _ in range(RULES[kind].often)]
        source.shuffle(deck)
        yield from deck


def has_room(plan: list[Fault], kind: Kind, at: float) -> bool:
    """Whether one more fault, later than all the others, keeps the limits."""
    under_way = [fault for fault in plan if fault.until > at]
    groups = Counter(RULES[fault.kind].group for fault in under_way)
    group = RULES[kind].group
    return len(under_way) < AT_ONCE and groups[group] < LIMITS[group]
