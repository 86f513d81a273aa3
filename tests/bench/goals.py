"""The measurements and their goals, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.command_cpu import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVERYBODY", "KEYS", "Goal", "Key"]


@dataclass(frozen=True, slots=True)
class Goal:
    """One limit.

    Attributes:
        of: a contender, or the ratio of two, such as `nats/celery`.
        statistic: of the contender's figures: median, p50, p95, p99, max; a ratio is of medians.
        is_floor: the limit is the least that is enough; else it is the most that is allowed.
    """

    of: str
    limit: float
    statistic: str = "median"
    is_floor: bool = False

    @property
    def text(self) -> str:
        name = self.of if "/" in self.of or self.statistic == "median" else self.label
        return f"{name} {'>=' if self.is_floor else '<='} {self.limit:g}"

    @property
    def label(self) -> str:
        return f"{self.statistic} of {self.of}"

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_floor else value <= self.limit


def at_least(of: str, limit: float, statistic: str = "median") -> Goal:
    return Goal(of, limit, statistic, is_floor=True)


def at_most(of: str, limit: float, statistic: str = "median") -> Goal:
    return Goal(of, limit, statistic)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of `build/bench.json`.

    Attributes:
        module: of `tests.bench`, that measures it.
        contenders: those without which the key is incomplete; there may be more.
        is_more_better: of the contenders that have the key's own unit.
        units: of contenders whose figures are of another kind, by the beginning of their names.
    """

    name: str
    module: str
    what: str
    unit: str
    contenders: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    is_more_better: bool = False
    units: Mapping[str, str] = field(default_factory=dict)

    def unit_of(self, contender: str) -> str:
        prefixes = [prefix for prefix in self.units if contender.startswith(prefix)]
        return self.units[max(prefixes, key=len)] if prefixes else self.unit


EVERYBODY = ("nats", "celery", "edge", "local")
PEERS = ("nats", "celery", "edge")
# `nats` itself has the default, which is to have none.
WITH_ZYGOTES = (*EVERYBODY, "nats-auto")

_KEYS = (
    Key(
        "e2e_tasks_per_s_4_slots", "whole", "200 mapped no-op tasks, 4 slots", "tasks/s", EVERYBODY,
        (at_least("nats", 12), at_least("nats/celery", 3)), is_more_better=True,
    ),
    Key(
        "slot_efficiency_1s", "whole", "200 mapped 1 s tasks, 4 slots: ideal time / measured time",
        "ratio", EVERYBODY, (at_least("nats", 0.9), at_least("nats/celery", 1.5)),
        is_more_better=True,
    ),
    Key(
        "e2e_tasks_per_s_16_slots", "whole", "200 mapped no-op tasks, 16 slots", "tasks/s",
        EVERYBODY, (at_least("nats", 12), at_least("nats/celery", 1.2)), is_more_better=True,
    ),
    Key(
        "e2e_vs_local_4_slots", "whole", "200 mapped no-op tasks, 4 slots, LocalExecutor beside it",
        "tasks/s", ("nats", "local"), (at_least("nats/local", 1.8),), is_more_better=True,
    ),
    Key(
        "slot_release_ms", "whole", "task process exit to slot free", "ms", PEERS,
        (at_most("nats", 100, "p99"),),
    ),
    Key(
        "worker_cpu_per_task", "whole", "CPU of all worker processes for each task", "s", PEERS,
        (at_most("nats", 0.04), at_most("nats/celery", 0.8)),
    ),
    Key(
        "worker_idle_pss", "whole", "a worker with 16 slots, idle after its start", "MB", PEERS,
        (at_most("nats/celery", 0.28),),
    ),
    Key(
        "worker_busy_pss", "whole", "a worker with 16 slots, after 500 tasks", "MB", PEERS,
        (at_most("nats/celery", 0.16),),
    ),
    Key(
        "worker_growth", "whole", "a worker's memory after 5,000 tasks / after 500", "ratio",
        PEERS, (at_most("nats", 1.05),),
    ),
    Key(
        "heavy_dag", "heavy", "100 mapped tasks of a Dag file with 2 s of imports, 4 slots",
        "tasks/s", (*WITH_ZYGOTES, *(f"start-{name}" for name in WITH_ZYGOTES)),
        (
            at_least("nats-auto/celery", 10), at_least("nats-auto/local", 10),
            at_most("start-nats-auto", 60, "p50"),
        ),
        is_more_better=True, units={"start": "ms"},
    ),
    Key(
        "tls_far", "tls_far", "200 mapped no-op tasks, 4 slots, TLS and 20 ms each way", "tasks/s",
        PEERS, (at_least("nats/celery", 2),), is_more_better=True,
    ),
    Key(
        "dispatch_per_s_10k", "dispatch", "10,000 queued workloads, one heartbeat()", "workloads/s",
        ("nats", "celery", "bare"), (at_least("nats/celery", 8), at_least("nats/bare", 0.7)),
        is_more_better=True,
    ),
    Key(
        "idle_sync_ms_10k", "dispatch", "sync() with 10,000 outstanding and nothing new", "ms",
        ("nats", "nats-100", "nats-100k", "nats-sweep", "celery"),
        (at_most("nats", 0.5, "p50"), at_most("nats-100k/nats-100", 1.5)),
    ),
    Key(
        "result_latency_ms", "latency", "a report's publish to the executor, and to its event",
        "ms", ("received", "event"), (at_most("received", 2, "p50"),),
    ),
    Key(
        "pickup_latency_ms", "latency", "a workload's publish to its supervisor, on an idle worker",
        "ms", ("supervisor", "claimed", "first-request"), (at_most("supervisor", 4, "p50"),),
    ),
    Key(
        "adopt_10k_s", "adoption", "adoption of 10,000 task instances of a dead scheduler", "s",
        ("nats", "nats-5k", "nats-1k"), (at_most("nats", 2), at_most("nats/nats-1k", 12)),
    ),
    Key(
        "backlog_100k", "backlog", "rates with 100,000 and with 1,000 messages waiting",
        "messages/s",
        ("publish-1k", "publish-100k", "pull-1k", "pull-100k", "lone-pull-1k", "lone-pull-100k"),
        (at_least("publish-100k/publish-1k", 0.8), at_least("pull-100k/pull-1k", 0.8)),
        is_more_better=True, units={"broker-rss": "MB"},
    ),
    Key(
        "why_p95_ms_100k", "why", "`airflow nats why` for one of 100,000 tasks that wait", "ms",
        ("nats",), (at_most("nats", 300, "p95"),),
    ),
    Key(
        "fleet_1000", "fleet", "simulated idle workers with 16 slots on one server", "messages/s",
        (), (),
        units={
            "broker-cpu": "% of a core", "worker-cpu": "% of a core", "broker-rss": "MB",
            "bytes": "kB/s", "workers-list": "s", "starting": "s",
        },
    ),
    Key(
        "command_cpu_s", "command_cpu", "CPU that commands add to that of `airflow version`", "s",
        ("version", *COMMANDS), tuple(at_most(name, 0.2) for name in COMMANDS),
        units={"version": "s in all"},
    ),
)  # fmt: skip

KEYS: Mapping[str, Key] = {key.name: key for key in _KEYS}
