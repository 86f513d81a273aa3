"""The pure parts of the rolling restart, and the balancer in front of its API servers."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.rolling.balancer import Balancer
from tests.rolling.judgement import (
    Done,
    Execution,
    TaskKey,
    Wait,
    causes,
    judge,
    read_runs,
    too_long,
    waits_in,
)
from tests.rolling.plan import COMPONENTS, Kind, make_plan
from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = TaskKey("run-1", 0)
RAN = Execution(KEY, 1, 50, has_ended=True)


def row(**changes: Any) -> dict[str, Any]:
    return {"run_id": "run-1", "map_index": 0, "state": "success", "try_number": 1} | changes


# The plan


def test_ten_minutes_restart_everything_with_sigterm_and_all_but_the_workers_with_sigkill() -> None:
    plan = make_plan(1, seconds=600, every=20)

    assert len(plan) == 30
    everything = {(kind, number) for kind, count in COMPONENTS.items() for number in range(count)}
    assert {(r.kind, r.number) for r in plan[:10]} == everything
    assert {r.how for r in plan[:10]} == {signal.SIGTERM}
    killed = [(r.kind, r.number) for r in plan if r.how is signal.SIGKILL]
    assert sorted(killed) == sorted(c for c in everything if c[0] is not Kind.WORKER)
    assert {(r.kind, r.how) for r in plan[17:]} == {(Kind.WORKER, signal.SIGTERM)}
    assert Counter(r.number for r in plan[17:]).keys() == {0, 1, 2}
    assert [round(b.at - a.at) for a, b in pairwise(plan)] == [20] * 29


def test_a_short_run_restarts_some_of_every_kind_each_way() -> None:
    plan = make_plan(1, seconds=90, every=8)

    ways = Counter((r.how, r.kind) for r in plan)
    assert len(plan) == 10
    assert {kind for how, kind in ways if how is signal.SIGTERM} == set(Kind)
    assert {kind for how, kind in ways if how is signal.SIGKILL} == set(Kind) - {Kind.WORKER}
    assert plan[-1].at <= 90


def test_the_same_seed_plans_the_same_restarts() -> None:
    assert make_plan(5, seconds=300, every=10) == make_plan(5, seconds=300, every=10)
    assert make_plan(5, seconds=300, every=10) != make_plan(6, seconds=300, every=10)


# The judgement


@pytest.mark.parametrize(
    ("rows", "history", "executions", "found"),
    [
        ([row()], [], [RAN], []),
        ([row(state="queued")], [], [], ["run-1[0]: left queued"]),
        ([row(state=None)], [], [], ["run-1[0]: left None"]),
        ([row(state="failed")], [], [RAN], ["run-1[0]: lost, failed at try 1"]),
        ([row()], [], [], ["run-1[0]: says success, but it did not run to its end"]),
        (
            [row()],
            [],
            [RAN._replace(has_ended=False)],
            ["run-1[0]: says success, but it did not run to its end"],
        ),
        ([row(try_number=2)], [], [RAN], ["run-1[0]: needed 2 tries"]),
        ([row()], [row()], [RAN], ["run-1[0]: try 1 was spent"]),
        (
            [row()],
            [],
            [RAN, RAN._replace(pid=51, has_ended=False)],
            ["run-1[0]: ran 2 times, as processes 50, 51"],
        ),
    ],
)
def test_what_is_lost_spent_or_run_twice_is_found(
    rows: list[dict[str, Any]],
    history: list[dict[str, Any]],
    executions: list[Execution],
    found: list[str],
) -> None:
    assert judge(rows, history, executions) == found


def test_the_notes_of_tasks_are_read_without_a_half_line() -> None:
    text = "start run-1 0 1 50\nstart run-1 1 1 51\nend run-1 0 1 50\nend run-1 1 1 5"

    assert read_runs(text) == [RAN, Execution(TaskKey("run-1", 1), 1, 51, has_ended=False)]


def test_waits_are_those_of_what_has_started() -> None:
    def at(seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    rows = [
        row(queued_dttm=at(10), start_date=at(14)),
        row(map_index=1, queued_dttm=at(10), start_date=at(11)),
        row(map_index=2, queued_dttm=at(10), start_date=None),
        row(map_index=3, queued_dttm=None, start_date=None),
    ]

    assert [(w.key.map_index, w.seconds) for w in waits_in(rows)] == [(1, 1.0), (0, 4.0)]


def test_a_wait_is_longer_than_allowed_unless_a_nats_server_was_killed_meanwhile() -> None:
    kill = Done(Kind.NATS_SERVER, "nats-1", signal.SIGKILL, began=100, back=102)
    stop = Done(Kind.SCHEDULER, "scheduler-1", signal.SIGTERM, began=200, back=210)
    done = [kill, stop]
    waits = [Wait(KEY, 101, 108), Wait(KEY, 95, 104), Wait(KEY, 209, 215), Wait(KEY, 50, 56)]

    assert [causes(wait, done) for wait in waits] == [[kill], [kill], [stop], []]
    assert too_long(waits, done, 5) == [
        "run-1[0]: queued for 9.0 s, more than 8 (SIGKILL to nats-1)",
        "run-1[0]: queued for 6.0 s, more than 5 (SIGTERM to scheduler-1)",
        "run-1[0]: queued for 6.0 s, more than 5 (no restart at that time)",
    ]


# The balancer


@pytest.fixture
def server() -> Iterator[int]:
    """A server that says its own port to every client, and ends."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port = int(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:  # the test is over
                    return
                with closing(line):
                    line.sendall(str(port).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield port
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def answer(balancer: Balancer) -> str:
    with socket.create_connection(("127.0.0.1", balancer.port), timeout=30) as line:
        return line.recv(100).decode()


def test_a_connection_that_is_refused_goes_to_the_next_one(server: int) -> None:
    with Balancer([free_port(), server]) as balancer:
        assert [answer(balancer) for _ in range(4)] == [str(server)] * 4


def test_a_target_that_is_taken_out_gets_no_connection(server: int) -> None:
    with Balancer([server]) as balancer:
        balancer.take_out(server)
        assert answer(balancer) == ""

        balancer.put_in(server)

        assert answer(balancer) == str(server)
