"""The conditions that hold at the end of every run, whatever its faults were. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from tests.chaos.database import FINAL, Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.chaos.database import Execution, Row
    from tests.chaos.evidence import Evidence
    from tests.chaos.injections import Span

__all__ = ["RULES", "Violation", "violations"]

# A worker that was cut off goes on until its supervisor's next heartbeat is refused, and then
# gives its task a moment to stop.
HEARTBEAT_SECONDS = 1.0
STOP_SECONDS = 1.0
# Both ends of an overlap are taken down by one process, within this time of the event.
CLOCK_SECONDS = 0.05
EXPECTED_END = {
    Behaviour.PLAIN: "success",
    Behaviour.OLD_TOKEN: "success",
    Behaviour.CALLBACK: "success",
    Behaviour.FAILING: "failed",
    Behaviour.POISON: "failed",
}
# Poison is to fail before it starts; a callback has no start that anybody accepts.
UNLOCKED = {Behaviour.POISON, Behaviour.CALLBACK}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that should not be; `look` says where it can be seen."""

    rule: str
    about: str
    text: str
    look: str


def violations(evidence: Evidence) -> list[Violation]:
    """Return everything that breaks a rule, rule by rule."""
    return [
        Violation(rule, about, text, look)
        for rule, check in RULES.items()
        for about, text, look in check(evidence)
    ]


Finding = tuple[str, str, str]


# Workloads


def unended(e: Evidence) -> Iterator[Finding]:
    for row in e.rows:
        if not row.is_over:
            text = f"{row.state} still, dispatch {row.dispatch}, job {row.queued_by}"
            yield name(row), text, in_history(row.number)


def given_up(e: Evidence) -> Iterator[Finding]:
    """What Airflow's own heartbeat time-out had to end, 300 s later in real life.

    A worker of an earlier release does not say what it does not have. Beside one an executor does
    not conclude that a task runs nowhere after the broker has lost its reports.
    """
    forgiven = e.wiped_at if e.is_mixed else 0.0
    started_at = {(x.number, x.try_number): x.at for x in e.history if x.what == "running"}
    for entry in e.history:
        this_try = (entry.number, entry.try_number)
        if entry.what == "silent" and started_at.get(this_try, 0.0) >= forgiven:
            text = f"try {entry.try_number} waited for Airflow's heartbeat time-out"
            yield f"w{entry.number}", text, in_history(entry.number)


def ended_twice(e: Evidence) -> Iterator[Finding]:
    """A callback may end the same way again.

    Every scheduler tells what it reads of it, and Airflow believes each: one that lags has it
    running once more, until it has read of the end as well.
    """
    callbacks = {row.number for row in e.rows if row.is_callback}
    ends: dict[int, list[str]] = defaultdict(list)
    for entry in e.history:
        if entry.what in FINAL:
            ends[entry.number].append(entry.what)
    for number, found in ends.items():
        if len(set(found) if number in callbacks else found) > 1:
            text = f"ended {len(found)} times: {', '.join(found)}"
            yield f"w{number}", text, in_history(number)


def ended_otherwise(e: Evidence) -> Iterator[Finding]:
    ran = by_number(e.executions)
    for row in e.rows:
        expected = EXPECTED_END[row.behaviour]
        if not row.is_over or row.state == expected:
            continue
        if row.is_callback and any(was_hurt(e, execution) for execution in ran[row.number]):
            continue  # it has no lock but the claim, so it is not repeated
        if row.is_callback and any(x.ended_at < e.wiped_at for x in ran[row.number] if x.ended_at):
            continue  # only the broker knew its end, and has lost it
        yield name(row), f"{row.state}, expected {expected}", in_history(row.number)


def was_hurt(e: Evidence, execution: Execution) -> bool:
    """Whether a fault may have ended it, or what was to tell of its end."""
    pids = {execution.worker, execution.supervisor, execution.pid}
    return execution.outcome != "done" or bool(pids & e.hurt)


def overlaps(e: Evidence) -> Iterator[Finding]:
    callbacks = {row.number for row in e.rows if row.is_callback}
    for number, ran in by_number(e.executions).items():
        for first, second in combinations(sorted(ran, key=lambda x: x.started_at), 2):
            seconds = overlap(first, second)
            if number in callbacks and was_cut_off(e, first):
                continue  # no scheduler tells it to stop
            if seconds > CLOCK_SECONDS + allowed_overlap(e, first):
                text = (
                    f"ran twice at a time for {seconds:.2f} s: process {first.pid} of worker"
                    f" {first.worker} and {second.pid} of {second.worker}"
                )
                yield f"w{number}", text, in_history(number)


def overlap(first: Execution, second: Execution) -> float:
    ends = [x.ended_at for x in (first, second) if x.ended_at is not None]
    return min(ends, default=float("inf")) - second.started_at


def allowed_overlap(e: Evidence, execution: Execution) -> float:
    """A worker that was cut off alive stops at its next heartbeat that is answered."""
    if not was_cut_off(e, execution):
        return 0.0
    around = [s for s in e.api_outages if s.pid in {0, execution.worker}]
    outages = [s.end - s.begin for s in around if touches(s, execution)]
    return HEARTBEAT_SECONDS + STOP_SECONDS + sum(outages)


def was_cut_off(e: Evidence, execution: Execution) -> bool:
    return any(s.pid == execution.worker and touches(s, execution) for s in e.cut_off)


def touches(span: Span, execution: Execution) -> bool:
    ended_at = execution.ended_at if execution.ended_at is not None else float("inf")
    return span.begin <= ended_at and execution.started_at <= span.end


def ran_twice_in_a_try(e: Evidence) -> Iterator[Finding]:
    """A callback that is cut off before its start was reported is started once more."""
    callbacks = {row.number for row in e.rows if row.is_callback}
    for number, ran in by_number(e.executions).items():
        for try_number, count in Counter(x.try_number for x in ran).items():
            is_allowed = number in callbacks and all(was_hurt(e, x) for x in ran[:-1])
            if count > 1 and not is_allowed:
                yield f"w{number}", f"try {try_number} ran {count} times", in_history(number)


def spent_for_nothing(e: Evidence) -> Iterator[Finding]:
    """A try that failed without a start, or though nothing had happened to what was started."""
    behaviours = {row.number: row.behaviour for row in e.rows}
    starts = {(x.number, x.try_number): pids_in(x.info) for x in e.history if x.what == "running"}
    cleared = {(x.number, x.try_number) for x in e.history if x.what == "cleared"}
    for entry in e.history:
        this_try = (entry.number, entry.try_number)
        behaviour = behaviours.get(entry.number)
        if entry.what not in {"retry", "failed"} or behaviour in UNLOCKED or this_try in cleared:
            continue
        if this_try not in starts:
            text = f"try {entry.try_number} spent where nothing had started: {entry.info}"
            yield f"w{entry.number}", text, in_history(entry.number)
        elif entry.what == "retry" and not starts[this_try] & e.hurt:
            text = f"try {entry.try_number} spent though nothing happened to it: {entry.info}"
            yield f"w{entry.number}", text, in_history(entry.number)


def pids_in(info: str) -> set[int]:
    return {int(word) for word in info.split() if word.isdecimal()}


# What is left


def left_in_broker(e: Evidence) -> Iterator[Finding]:
    for subject in e.broker.tasks:
        yield subject, "left in the task stream", "the logs, by its last token"
    for consumer in e.broker.consumers:
        if consumer.pending or consumer.in_flight:
            text = f"{consumer.pending} pending, {consumer.in_flight} in flight"
            yield f"queue {consumer.queue}", text, "logs/worker-*.log"


def slots_leaked(e: Evidence) -> Iterator[Finding]:
    for job in e.jobs:
        if job.running or job.ledger:
            text = f"{job.running} running and {job.ledger} in the ledger at the end"
            yield f"{job.name} (job {job.id})", text, f"logs/{job.name}.log"


def strange_keys(e: Evidence) -> Iterator[Finding]:
    for key in set(e.broker.workers) ^ set(e.worker_names):
        text = "in the workers bucket" if key in e.broker.workers else "not in the workers bucket"
        yield key, text, f"logs/{key}.log"


def orphans(e: Evidence) -> Iterator[Finding]:
    for pid, command in e.orphans.items():
        yield f"process {pid}", f"outlived its worker: {command[:100]}", "executions, by pid"


def dead_letters(e: Evidence) -> Iterator[Finding]:
    """Exactly the poison workloads, as far as the broker did not lose them."""
    poison = {f"w{row.number}" for row in e.rows if row.behaviour == Behaviour.POISON}
    ended_at = {f"w{entry.number}": entry.at for entry in e.history if entry.what in FINAL}
    found = {task_id for task_id, _ in e.broker.dead_letters}
    for task_id, subject in e.broker.dead_letters:
        if task_id not in poison:
            yield task_id, f"a dead letter that is not poison: {subject}", f"history of {task_id}"
    for task_id in poison - found:
        if ended_at.get(task_id, 0.0) > e.wiped_at:
            yield task_id, "poison without a dead letter", f"history of {task_id}"


def unrecovered(e: Evidence) -> Iterator[Finding]:
    for injection in e.injections:
        about = f"{injection.fault.kind} at {injection.fault.at:.1f} s"
        if injection.has_recovered is not None and injection.recovered is None:
            yield about, f"not recovered: {injection.victim}", "logs"
        elif injection.problem.startswith("not carried out"):
            yield about, injection.problem, "logs"


RULES: dict[str, Callable[[Evidence], Iterable[Finding]]] = {
    "every workload ends": unended,
    "nothing waits for Airflow's time-out": given_up,
    "ends once": ended_twice,
    "ends as expected": ended_otherwise,
    "never runs twice at a time": overlaps,
    "runs once for each try": ran_twice_in_a_try,
    "no try is spent for nothing": spent_for_nothing,
    "nothing is left in the broker": left_in_broker,
    "no slot is leaked": slots_leaked,
    "only living workers in the bucket": strange_keys,
    "no orphan process": orphans,
    "dead letters are the poison": dead_letters,
    "every fault is recovered from": unrecovered,
}


def name(row: Row) -> str:
    return f"w{row.number} ({row.behaviour})"


def in_history(number: int) -> str:
    return f"history and executions of number {number}"


def by_number(executions: Iterable[Execution]) -> dict[int, list[Execution]]:
    found: dict[int, list[Execution]] = defaultdict(list)
    for execution in executions:
        found[execution.number].append(execution)
    return found
