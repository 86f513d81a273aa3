"""The pure parts of the chaos driver: its plans, its judgement and its tables."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from nats_executor.broker.port import ConsumerInfo
from tests.chaos.database import Behaviour, Entry, Execution, Job, Row
from tests.chaos.evidence import BrokerContent, Evidence
from tests.chaos.injections import Injection, Span
from tests.chaos.invariants import RULES, Violation, violations
from tests.chaos.plan import (
    AT_ONCE,
    LIMITS,
    Fault,
    Kind,
    kinds_for,
    make_plan,
    rule_of,
)
from tests.chaos.report import MEANING, as_json, as_text, fault_rows, table, workload_rows

# Plans


def test_the_same_seed_gives_the_same_plan() -> None:
    assert make_plan(7, seconds=120, servers=1) == make_plan(7, seconds=120, servers=1)


def test_another_seed_gives_another_plan() -> None:
    assert make_plan(7, seconds=120, servers=1) != make_plan(8, seconds=120, servers=1)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = (make_plan(7, seconds=seconds, servers=1) for seconds in (60, 600))

    assert short
    assert long[: len(short)] == short


@pytest.mark.parametrize("servers", [1, 3])
def test_every_kind_that_makes_sense_comes_in_time_and_no_other(servers: int) -> None:
    plan = make_plan(7, seconds=600, servers=servers)

    assert {fault.kind for fault in plan} == set(kinds_for(servers))


def test_only_one_server_is_wiped_and_only_a_cluster_loses_its_quorum() -> None:
    assert Kind.BROKER_WIPED in set(kinds_for(1)) - set(kinds_for(3))
    assert Kind.QUORUM_LOST in set(kinds_for(3)) - set(kinds_for(1))


def test_what_the_last_release_cannot_take_does_not_come_where_it_runs() -> None:
    new = {kind for kind in Kind if rule_of(kind).is_new}

    assert new <= set(kinds_for(1)) & set(kinds_for(3))
    assert new.isdisjoint(kinds_for(1, is_mixed=True))


def test_members_are_replaced_only_where_two_releases_are_mixed() -> None:
    replaced = {Kind.WORKER_REPLACED, Kind.SCHEDULER_REPLACED}
    alone = make_plan(7, seconds=600, servers=1)
    mixed = make_plan(7, seconds=20, servers=1, is_mixed=True)

    assert {fault.kind for fault in alone}.isdisjoint(replaced)
    assert {fault.kind for fault in mixed} >= replaced


@pytest.mark.parametrize("seed", range(20))
def test_faults_overlap_within_their_limits_and_end_in_time(seed: int) -> None:
    plan = make_plan(seed, seconds=120, servers=1)

    assert plan == sorted(plan, key=lambda fault: fault.at)
    for fault in plan:
        low, high = rule_of(fault.kind).seconds
        under_way = [other for other in plan if other.at <= fault.at < other.until]
        groups = Counter(rule_of(other.kind).group for other in under_way)
        assert fault.at + fault.seconds <= 120
        assert low <= fault.seconds <= high
        assert len(under_way) <= AT_ONCE
        assert all(count <= LIMITS[group] for group, count in groups.items())


def test_a_plan_keeps_to_the_kinds_that_were_asked_for() -> None:
    plan = make_plan(7, seconds=60, servers=1, only=[Kind.TASK_KILLED, Kind.QUORUM_LOST])

    assert {fault.kind for fault in plan} == {Kind.TASK_KILLED}


def test_a_plan_of_nothing_that_makes_sense_is_empty() -> None:
    assert make_plan(7, seconds=60, servers=1, only=[Kind.QUORUM_LOST]) == []


# Invariants

WORKER, OTHER_WORKER = 100, 200
SUPERVISOR, TASK = 101, 102
FAULT = Fault(1.0, Kind.TASK_KILLED, 0, 0.0)


def row(number: int = 1, **fields: Any) -> Row:
    defaults: dict[str, Any] = {
        "number": number, "ti_id": "t", "behaviour": Behaviour.PLAIN, "queue": "default",
        "length": 0.1, "state": "success", "try_number": 1, "max_tries": 9, "dispatch": "d",
        "queued_by": 1,
    }  # fmt: skip
    return Row(**(defaults | fields))


def entry(what: str, number: int = 1, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "seq": 1, "number": number, "try_number": 1, "what": what, "dispatch": "d",
        "teller": "x", "at": 5.0, "info": "",
    }  # fmt: skip
    return Entry(**(defaults | fields))


def start(number: int = 1, **fields: Any) -> Entry:
    return entry("running", number, info=f"process {TASK} of {SUPERVISOR} of {WORKER}", **fields)


def ran(begin: float, end: float | None, **fields: Any) -> Execution:
    defaults: dict[str, Any] = {
        "seq": 1, "number": 1, "try_number": 1, "dispatch": "d", "worker": WORKER,
        "supervisor": SUPERVISOR, "pid": TASK, "outcome": "done",
    }  # fmt: skip
    return Execution(started_at=begin, ended_at=end, **(defaults | fields))


def job(**fields: Any) -> Job:
    defaults: dict[str, Any] = {
        "id": 1,
        "name": "scheduler-1",
        "pid": 1,
        "heartbeat": 0.0,
        "has_ended": 0,
    }
    return Job(**(defaults | {"running": 0, "ledger": 0} | fields))


def consumer(pending: int, in_flight: int) -> ConsumerInfo:
    return ConsumerInfo("c", "default", 0, pending, in_flight, 0, 0)


def letters(*task_ids: str) -> BrokerContent:
    return BrokerContent(dead_letters=[(task_id, "airflow.dead.x") for task_id in task_ids])


TWO_TRIES = [ran(1, 2, outcome="killed"), ran(2.5, 3, try_number=2, worker=OTHER_WORKER)]
TWICE = [ran(1, 3), ran(2, 4, try_number=2, worker=OTHER_WORKER)]
FROZEN = Span(WORKER, 1.5, 2.5)
POISON = row(behaviour=Behaviour.POISON, state="failed")
CALLBACK = row(behaviour=Behaviour.CALLBACK)
RECOVERED = Injection(FAULT, since=1.0, recovered=2.0, has_recovered=lambda _: True)

GOOD = {
    "every workload ends": [Evidence(rows=[row(), row(2, state="failed")])],
    "nothing waits for Airflow's time-out": [
        Evidence(history=[start(), entry("success")]),
        # Its report was lost with the broker's storage, beside a worker of an earlier release.
        Evidence(history=[start(at=5.0), entry("silent", at=9.0)], wiped_at=6.0, is_mixed=True),
    ],
    "ends once": [
        Evidence(history=[entry("queued"), entry("retry"), entry("queued"), entry("success")]),
        Evidence(rows=[CALLBACK], history=[entry("success"), entry("running"), entry("success")]),
    ],
    "ends as expected": [
        Evidence(rows=[row(), row(2, behaviour=Behaviour.FAILING, state="failed")]),
        Evidence(
            rows=[replace(CALLBACK, state="failed")], executions=[ran(1, 2, outcome="killed")]
        ),
        Evidence(
            rows=[replace(CALLBACK, state="failed")],
            executions=[ran(1, 2)],
            hurt=frozenset({WORKER}),
        ),
        # The report of its end was lost with the broker's storage.
        Evidence(rows=[replace(CALLBACK, state="failed")], executions=[ran(1, 2)], wiped_at=3.0),
    ],
    "never runs twice at a time": [
        Evidence(executions=TWO_TRIES),
        # Cut off alive, until its next heartbeat
        Evidence(executions=TWICE, cut_off=[FROZEN]),
        # which finds an API server only once that is back.
        Evidence(
            executions=[ran(1, 6), ran(2, 7, try_number=2)],
            cut_off=[FROZEN],
            api_outages=[Span(0, 2, 5)],
        ),
        Evidence(
            executions=[ran(1, 6), ran(2, 7, try_number=2)],
            cut_off=[FROZEN],
            api_outages=[Span(WORKER, 2, 5)],
        ),
        # A callback sends no heartbeats that could be refused.
        Evidence(rows=[CALLBACK], executions=[ran(1, 9), ran(2, 8)], cut_off=[FROZEN]),
        Evidence(executions=[ran(1, 9), ran(1, 9, number=2)]),
    ],
    "runs once for each try": [
        Evidence(rows=[row()], executions=TWO_TRIES),
        Evidence(rows=[CALLBACK], executions=[ran(1, 2, outcome="killed"), ran(3, 4)]),
    ],
    "no try is spent for nothing": [
        Evidence(rows=[row()], history=[start(), entry("retry")], hurt=frozenset({WORKER})),
        Evidence(rows=[row()], history=[start(), entry("retry")], hurt=frozenset({TASK})),
        Evidence(rows=[row()], history=[start(), entry("cleared"), entry("retry")]),
        Evidence(rows=[row(behaviour=Behaviour.FAILING)], history=[start(), entry("failed")]),
        Evidence(rows=[POISON], history=[entry("failed")]),
    ],
    "nothing is left in the broker": [Evidence(broker=BrokerContent(consumers=[consumer(0, 0)]))],
    "no slot is leaked": [Evidence(jobs=[job()])],
    "only living workers in the bucket": [
        Evidence(broker=BrokerContent(workers=["w1"]), worker_names=["w1"])
    ],
    "no orphan process": [Evidence()],
    "dead letters are the poison": [
        Evidence(rows=[POISON], broker=letters("w1")),
        # Lost with the broker's storage.
        Evidence(rows=[POISON], history=[entry("failed", at=5.0)], wiped_at=6.0),
    ],
    "every fault is recovered from": [
        Evidence(injections=[RECOVERED]),
        Evidence(injections=[Injection(FAULT, problem="nothing to hurt")]),
    ],
}

BAD = {
    "every workload ends": [Evidence(rows=[row(state="running")])],
    "nothing waits for Airflow's time-out": [
        Evidence(history=[start(at=5.0), entry("silent", at=9.0)]),
        Evidence(history=[start(at=5.0), entry("silent", at=9.0)], wiped_at=6.0),
        Evidence(history=[start(at=5.0), entry("silent", at=9.0)], wiped_at=4.0, is_mixed=True),
    ],
    "ends once": [
        Evidence(history=[entry("success"), entry("success")]),
        Evidence(rows=[CALLBACK], history=[entry("success"), entry("failed")]),
    ],
    "ends as expected": [
        Evidence(rows=[row(state="failed")]),
        Evidence(rows=[row(behaviour=Behaviour.FAILING)]),
        # Nothing had happened to what ran it.
        Evidence(rows=[replace(CALLBACK, state="failed")], executions=[ran(1, 2)]),
        Evidence(rows=[replace(CALLBACK, state="failed")], executions=[ran(1, 2)], wiped_at=1.5),
        Evidence(rows=[replace(CALLBACK, state="failed")]),
    ],
    "never runs twice at a time": [
        Evidence(executions=TWICE),
        # A worker that was frozen at another time explains nothing,
        Evidence(executions=TWICE, cut_off=[Span(WORKER, 5, 6)]),
        # an API server that was away for another worker only neither,
        Evidence(
            executions=[ran(1, 6), ran(2, 7, try_number=2)],
            cut_off=[FROZEN],
            api_outages=[Span(OTHER_WORKER, 2, 5)],
        ),
        Evidence(rows=[CALLBACK], executions=[ran(1, 9), ran(2, 8)]),
        # nor does the one that came second,
        Evidence(executions=TWICE, cut_off=[Span(OTHER_WORKER, 1, 5)]),
        # and a heartbeat does not take so long.
        Evidence(executions=[ran(1, 6), ran(2, 7, try_number=2)], cut_off=[FROZEN]),
        Evidence(executions=[ran(1, None), ran(2, None, try_number=2)], cut_off=[FROZEN]),
    ],
    "runs once for each try": [
        Evidence(rows=[row()], executions=[ran(1, 2, outcome="killed"), ran(3, 4)]),
        Evidence(rows=[CALLBACK], executions=[ran(1, 2), ran(3, 4)]),
    ],
    "no try is spent for nothing": [
        Evidence(rows=[row()], history=[entry("retry")], hurt=frozenset({WORKER})),
        Evidence(rows=[row()], history=[entry("failed")]),
        Evidence(rows=[row()], history=[start(), entry("retry")]),
        Evidence(
            rows=[row()],
            history=[start(), entry("retry", try_number=2)],
            hurt=frozenset({WORKER}),
        ),
    ],
    "nothing is left in the broker": [
        Evidence(broker=BrokerContent(tasks=["airflow.tasks.default.d"])),
        Evidence(broker=BrokerContent(consumers=[consumer(1, 0)])),
        Evidence(broker=BrokerContent(consumers=[consumer(0, 1)])),
    ],
    "no slot is leaked": [Evidence(jobs=[job(running=1)]), Evidence(jobs=[job(ledger=1)])],
    "only living workers in the bucket": [
        Evidence(broker=BrokerContent(workers=["w1", "w9"]), worker_names=["w1"]),
        Evidence(worker_names=["w1"]),
    ],
    "no orphan process": [Evidence(orphans={4711: "python -m tests.chaos.forkserver"})],
    "dead letters are the poison": [
        Evidence(rows=[row()], broker=letters("w1")),
        Evidence(rows=[POISON], history=[entry("failed", at=5.0)]),
        Evidence(rows=[POISON], history=[entry("failed", at=5.0)], wiped_at=4.0),
    ],
    "every fault is recovered from": [
        Evidence(injections=[Injection(FAULT, has_recovered=lambda _: False)]),
        Evidence(injections=[Injection(FAULT, problem="not carried out: OSError: no")]),
    ],
}


def test_every_rule_has_examples() -> None:
    assert list(GOOD) == list(BAD) == list(RULES)


@pytest.mark.parametrize(("rule", "evidence"), [(r, e) for r, es in GOOD.items() for e in es])
def test_what_keeps_a_rule_is_no_violation(rule: str, evidence: Evidence) -> None:
    assert not list(RULES[rule](evidence))


@pytest.mark.parametrize(("rule", "evidence"), [(r, e) for r, es in BAD.items() for e in es])
def test_what_breaks_a_rule_is_one_violation(rule: str, evidence: Evidence) -> None:
    found = [violation for violation in violations(evidence) if violation.rule == rule]

    assert len(found) == 1
    assert found[0].text
    assert found[0].look


def test_nothing_is_no_violation() -> None:
    assert violations(Evidence()) == []


# Reports

HURT = [
    Injection(FAULT, since=1.0, recovered=2.0, has_recovered=lambda _: True),
    Injection(FAULT, since=1.0, recovered=4.0, has_recovered=lambda _: True),
    Injection(FAULT, since=1.0, recovered=1.5, has_recovered=lambda _: True),
    Injection(FAULT, has_recovered=lambda _: False),
    Injection(FAULT, problem="nothing to hurt"),
    Injection(Fault(2.0, Kind.POISON, 0, 0.0), problem="nothing to hurt"),
]
SEEN = Evidence(
    rows=[row(), row(2, state="failed", behaviour=Behaviour.FAILING), row(3, state="queued")],
    history=[entry("retry"), entry("retry", try_number=2), entry("adopted", 3)],
    executions=[*TWO_TRIES, ran(1, 2, number=2)],
    injections=HURT,
)
FOUND = [Violation("ends once", "w1", "ended 2 times", "history of number 1")]


def test_faults_are_counted_and_timed_by_kind() -> None:
    killed, poisoned = fault_rows(HURT)

    assert killed == {
        "fault": "task killed", "planned": 5, "injected": 4, "recovered": 3,
        "median_seconds": 1.0, "maximum_seconds": 3.0,
    }  # fmt: skip
    assert poisoned["injected"] == 0
    assert poisoned["median_seconds"] is None


def test_workloads_are_counted_by_what_they_do() -> None:
    failing, plain = workload_rows(SEEN)

    assert (failing["submitted"], failing["failed"], failing["processes"]) == (1, 1, 1)
    assert plain == {
        "workloads": "plain", "submitted": 2, "succeeded": 1, "failed": 0, "unended": 1,
        "processes": 2, "tries_spent": 2, "adopted": 1, "reset": 0,
    }  # fmt: skip


def test_a_table_has_aligned_columns() -> None:
    rows: list[dict[str, Any]] = [
        {"fault": "task killed", "seconds": 1.5},
        {"fault": "x", "seconds": None},
    ]

    assert table(rows).splitlines() == [
        "fault        seconds",
        "-----------  -------",
        "task killed      1.5",
        "x                  -",
    ]


def test_a_table_of_nothing_is_empty() -> None:
    assert table([]) == ""


def test_the_text_shows_violations_the_legend_and_how_to_repeat_it() -> None:
    text = as_text(7, SEEN, FOUND, seconds=3.0, place="/somewhere")

    assert "ended 2 times" in text
    assert f"task killed: {MEANING[Kind.TASK_KILLED]}" in text
    assert "1 violations; repeat with --seed 7; logs and database in /somewhere" in text


def test_the_text_tells_what_happened_to_a_workload_that_broke_a_rule() -> None:
    again = ran(4.0, 5.0, try_number=2, pid=4712)
    evidence = replace(SEEN, executions=[again, *TWICE])
    found = [Violation("never runs twice at a time", "w1 (plain)", "ran twice", "history")]

    lines = as_text(7, evidence, found, seconds=3.0, place="").splitlines()

    told = [line for line in lines if " w1 " in line and ", process " in line]
    assert [line.split()[0] for line in told] == sorted(
        (line.split()[0] for line in told), key=float
    )
    assert sum("began to run" in line for line in told) == len(TWICE) + 1
    assert any("try 2, process 4712" in line for line in told)


def test_the_text_of_a_good_run_says_so() -> None:
    text = as_text(7, Evidence(rows=[row()]), [], seconds=3.0, place="")

    assert text.endswith(
        "1 workloads (0 poison), 0 faults, 3 s: no violation; repeat with --seed 7\n"
    )


def test_the_json_has_the_same_content() -> None:
    answer = json.loads(as_json(7, SEEN, FOUND, seconds=3.0, place=""))

    assert answer["seed"] == 7
    assert answer["faults"] == fault_rows(HURT)
    assert answer["workloads"] == workload_rows(SEEN)
    assert answer["injections"][0]["recovered_seconds"] == 1.0
    assert answer["violations"][0]["rule"] == "ends once"


def test_every_kind_of_fault_says_what_recovery_means() -> None:
    assert set(MEANING) == set(Kind)
