"""The parts of the chaos driver that hurt processes: whom they choose, and who cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from nats_worker.api.answers import NO_ANSWER, Answer
from tests.chaos import api
from tests.chaos.api import ask
from tests.chaos.database import Behaviour, Database
from tests.chaos.plan import Kind, rule_of
from tests.chaos.processes import MARK, Member
from tests.chaos.stage import QUICK_OPTIONS
from tests.chaos.supervision import Ailment, Unanswered, ailing, answer_of, place_of
from tests.chaos.victims import Victims
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

CABLED, UNCABLED, IDLE = 100, 200, 300
LONG, SHORT = 10.0, 0.1
ROOT = Path(__file__).parents[2]

DRIVER = """
import subprocess, time
from tests.chaos.reaper import reaping
with reaping():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "database", teller="test")
    database.create()
    yield database
    database.close()


def victims(database: Database) -> Victims:
    workers: list[Any] = [
        SimpleNamespace(
            name=f"w{pid}", pid=pid, is_kept=True, is_alive=True, is_patient=pid != CABLED
        )
        for pid in (CABLED, UNCABLED, IDLE)
    ]
    stage: Any = SimpleNamespace(workers=workers, cables={f"w{CABLED}": [], f"w{IDLE}": []})
    return Victims(stage, database)


def run(database: Database, worker: int, length: float, *, ago: float = 0.0) -> None:
    number = database.submit(Behaviour.PLAIN, "default", length, max_tries=0)
    database.do(
        "INSERT INTO executions (number, try_number, dispatch, worker, supervisor, pid, started_at,"
        " outcome) VALUES (?, 1, 'd', ?, 1, 1, ?, 'running')",
        number, worker, time.monotonic() - ago,
    )  # fmt: skip


def pids(members: Any) -> list[int]:
    return [member.pid for member in members]


def test_a_worker_that_runs_something_is_hurt_rather_than_an_idle_one(database: Database) -> None:
    assert pids(victims(database).busy_workers()) == [CABLED, UNCABLED, IDLE]

    run(database, UNCABLED, SHORT)

    assert pids(victims(database).busy_workers()) == [UNCABLED]


def test_only_a_patient_worker_that_has_run_something_is_drained(database: Database) -> None:
    run(database, CABLED, SHORT)
    assert pids(victims(database).patient_workers()) == []

    run(database, IDLE, SHORT)
    database.do("UPDATE executions SET outcome = 'done'")
    run(database, UNCABLED, SHORT)
    assert pids(victims(database).patient_workers()) == [UNCABLED]

    database.do("UPDATE executions SET outcome = 'done'")
    assert pids(victims(database).patient_workers()) == [UNCABLED, IDLE]


def test_a_successor_starts_under_another_name_while_its_predecessor_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member("w1", "worker", ["w1", "default", "8"], tmp_path / "log", is_patient=True)
    assert member.command[-3:] == ["w1", "default", "8"]
    monkeypatch.setattr(Member, "command", property(lambda _: ["sleep", "600"]))
    member.start()
    try:
        first = member.replace()

        assert first.wait(20) == -signal.SIGTERM
        assert member.pids == [first.pid, member.pid]
        monkeypatch.undo()
        assert (member.alias, member.command[-3:]) == ("w1-1", ["w1-1", "default", "8"])
    finally:
        member.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("manner", "answers", "carried_out"),
    [
        ("", [200, 200], 2),
        ("late", [None, None], 2),
        ("mute", [None, None], 2),
        ("proxy", [502, 502], 1),
    ],
)
def test_the_api_server_behaves_as_it_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    manner: str,
    answers: list[int | None],
    carried_out: int,
) -> None:
    """What its clients hear, and what it does all the same."""
    monkeypatch.setattr(api, "ANSWER_SECONDS", 1.0 if None in answers else 60.0)
    done: list[str] = []

    def carry_out(request: dict[str, Any]) -> dict[str, Any]:
        done.append(request["op"])
        return {"status": 200}

    rules: Any = SimpleNamespace(answer=carry_out)
    server = api.Server(tmp_path / "api", rules)
    threading.Thread(target=server.serve, daemon=True).start()
    address = str(tmp_path / "api")
    assert ask(address, op="behave", manner=manner) == {"status": 200}

    heard: list[int | None] = []
    for _ in answers:
        try:
            heard.append(ask(address, op="run")["status"])
        except TimeoutError:
            heard.append(None)

    assert heard == answers
    assert done == ["run"] * carried_out


def test_what_a_supervisor_hears_is_what_the_product_would_hear() -> None:
    assert answer_of(ValueError()) is None
    assert answer_of(ConnectionRefusedError()) == Answer("/run", NO_ANSWER)
    assert answer_of(TimeoutError()) == Answer("/run", NO_ANSWER)
    assert answer_of(Unanswered()) == Answer("/run", 502)


def test_only_a_cabled_worker_is_cut_off_for_a_moment_and_only_if_its_task_outlives_that(
    database: Database,
) -> None:
    run(database, UNCABLED, LONG)
    run(database, CABLED, SHORT)
    run(database, CABLED, LONG, ago=60.0)
    assert pids(victims(database).workers_to_offer()) == []

    run(database, CABLED, LONG)

    assert pids(victims(database).workers_to_offer()) == [CABLED]


def test_a_worker_is_lost_with_a_long_task_if_there_is_one(database: Database) -> None:
    assert pids(victims(database).workers_to_lose()) == [CABLED, IDLE]

    run(database, CABLED, LONG)

    assert pids(victims(database).workers_to_lose()) == [CABLED]


def test_cuts_are_as_long_as_they_are_to_be() -> None:
    """The short one is over before its worker counts as lost, and the others are not."""
    lost = QUICK_OPTIONS["worker_lost_seconds"]
    shortest, longest = rule_of(Kind.WORKER_CUT_SHORT).seconds

    assert QUICK_OPTIONS["ack_wait_seconds"] < shortest
    # Its last record may be a heartbeat old, and it needs a second or two to be back.
    assert longest + QUICK_OPTIONS["heartbeat_seconds"] + 1.5 < lost
    assert rule_of(Kind.WORKER_CUT_OFF).seconds[0] > lost
    assert rule_of(Kind.WORKER_FROZEN).seconds[0] > lost


def test_a_worker_without_api_server_finds_nobody_there(tmp_path: Path) -> None:
    barrier = place_of(Ailment.NO_API, tmp_path, 7)
    with ailing(Ailment.NO_API, tmp_path, 7):
        assert barrier.exists()
        assert not place_of(Ailment.NO_API, tmp_path, 8).exists()
        with pytest.raises(ConnectionRefusedError):
            ask(str(barrier), op="run")

    assert not barrier.exists()


def test_a_driver_that_is_killed_leaves_no_process_behind() -> None:
    environment = {**os.environ, MARK: f"test-{os.getpid()}", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, env=environment
    ) as driver:
        assert driver.stdout is not None
        child = Path("/proc", driver.stdout.readline().decode().strip())
        assert child.exists()

        driver.kill()

    def is_gone() -> bool:
        # Perhaps no process waits for an orphan, so a zombie counts as gone.
        return not child.exists() or ") Z " in (child / "stat").read_text()

    block_until(is_gone, 20.0, "the driver's child to be gone")
