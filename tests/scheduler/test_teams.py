"""Several executors: of a team, beside another one, and what operators see of each."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import defaultdict
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from airflow.executors import executor_loader
from airflow.models.team import Team
from airflow.utils.session import create_session
from sqlalchemy import delete

from nats_executor import NatsExecutor
from nats_executor.errors import ConfigError
from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from nats_executor.wire.names import Names
from tests.scheduler.stage import SECRET, callback_workload, events, queue_up, task_workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.scheduler.stage import FakeStage, RealStage, Stage


def test_a_team_has_streams_of_its_own(stage: Stage) -> None:
    """Its section does not inherit, so without a prefix the team's own name is in it."""
    servers = getattr(getattr(stage, "server", None), "url", "nats://127.0.0.1:4222")
    stage.configure(team="blue", servers=servers, subject_prefix=f"{stage.names.prefix}-blue")
    blue = Names(f"{stage.names.prefix}-blue")
    everybody, team = stage.executor(), stage.executor(team_name="blue")

    [ours] = stage.sent_by(everybody, task_workload("ours", dispatch_id="d-1"))
    queue_up(team, of_team := task_workload("theirs", dispatch_id="d-1"))
    team.heartbeat()

    [theirs] = stage.sent(blue)
    assert theirs.key[1] == "theirs"
    assert len(stage.sent()) == 1
    stage.report(theirs, State.SUCCESS, blue)
    assert list(events(team)) == [compat.key_of(of_team)]
    stage.seen(everybody)
    assert len(everybody.running) == 1
    assert dict(everybody.get_event_buffer()) == {}
    stage.report(ours, State.SUCCESS)
    assert len(events(everybody)) == 1


@pytest.fixture
def team_blue(airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001
    """A team in Airflow's database, an executor for it, and a loader that has read nothing yet."""
    for lookup in ("alias", "module", "classname"):
        monkeypatch.setattr(executor_loader, f"_{lookup}_to_executors_per_team", defaultdict(dict))
    monkeypatch.setattr(executor_loader, "_team_name_to_executors", defaultdict(list))
    monkeypatch.setattr(executor_loader, "_executor_names", [])
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor;blue=nats_executor.NatsExecutor")
    monkeypatch.setenv("AIRFLOW__BLUE___NATS_EXECUTOR__SERVERS", "nats://blue:4222")
    with create_session(scoped=False) as session:
        session.add(Team(name="blue"))
    yield
    with create_session(scoped=False) as session:
        session.execute(delete(Team))


@pytest.mark.usefixtures("team_blue")
def test_airflow_loads_a_teams_executor_with_the_teams_own_section() -> None:
    everybody, team = executor_loader.ExecutorLoader.init_executors()

    assert not isinstance(everybody, NatsExecutor)
    assert isinstance(team, NatsExecutor)
    assert team.team_name == "blue"
    assert team._settings.servers == ("nats://blue:4222",)
    assert team._settings.names.tasks_stream == "AIRFLOW-BLUE_TASKS"


def test_a_team_without_a_prefix_gets_one_with_its_name() -> None:
    assert NatsExecutor(team_name="Blue")._settings.subject_prefix.startswith("airflow-blue--")
    assert NatsExecutor(team_name="red")._settings.subject_prefix == "airflow-red"
    assert NatsExecutor()._settings.subject_prefix == "airflow"


def test_two_schedulers_side_by_side_keep_to_what_is_theirs(stage: Stage) -> None:
    one, two = stage.executor(job_id=1), stage.executor(job_id=2)
    stage.sent_by(one, of_one := task_workload("one"))
    sent = stage.sent_by(two, of_two := task_workload("two"))

    for workload in sent:
        stage.report(workload, State.SUCCESS)

    assert list(events(one)) == [compat.key_of(of_one)]
    assert list(events(two)) == [compat.key_of(of_two)]
    assert one._sender != two._sender


def test_the_repr_tells_what_it_holds(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor(parallelism=5)
    [sent] = fake_stage.sent_by(executor, task_workload())
    fake_stage.report(sent, State.RUNNING)
    fake_stage.seen(executor)

    assert repr(executor) == "NatsExecutor(parallelism=5, <Ledger [1 outstanding, 1 running]>)"
    assert "team_name='blue'" in repr(NatsExecutor(team_name="blue"))


def test_a_debug_dump_shows_everything_but_secrets(
    fake_stage: FakeStage, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_stage.configure(
        servers="nats://somebody:s3cret-in-url@127.0.0.1:4222", user="me", password="s3cret"
    )
    caplog.set_level(logging.DEBUG)
    executor = fake_stage.executor(parallelism=2)
    queue_up(executor, task_workload("out", dispatch_id="d-1"), callback_workload())
    executor.heartbeat()
    queue_up(executor, task_workload("waits"), callback_workload())
    caplog.clear()

    executor.debug_dump()

    shown = caplog.text + capsys.readouterr().out  # Airflow's own part goes to stdout
    assert "d-1 default sent - TaskInstanceKey(dag_id='a_dag', task_id='out'" in shown
    assert "waits" in shown
    assert "broker: connected; settings: Settings(" in shown
    assert "s3cret" not in shown
    assert SECRET not in shown


def test_a_debug_dump_of_an_executor_that_was_not_started_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The API server and the command line construct one and never start it."""
    caplog.set_level(logging.DEBUG)

    NatsExecutor(parallelism=2).debug_dump()

    assert "broker: not connected, because this executor was not started" in caplog.text
    assert "broker: connected" not in caplog.text


@pytest.mark.integration
def test_an_executor_may_be_pickled_before_its_start(real_stage: RealStage) -> None:
    """A process that is spawned, not forked, gets its objects so; the copy is as good."""
    copy = pickle.loads(pickle.dumps(NatsExecutor(parallelism=5)))  # noqa: S301 - our own

    copy.start()
    try:
        assert len(real_stage.sent_by(copy, task_workload())) == 1
        assert copy.get_task_log(Mock(external_executor_id="d-1", queue="default"), 1)
    finally:
        copy.end()
    assert copy.parallelism == 5


def test_no_log_line_ever_shows_a_token(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    executor = stage.executor()
    [sent] = stage.sent_by(executor, task_workload())
    stage.report(sent, State.EXPIRED)
    stage.seen(executor)

    assert SECRET not in caplog.text
    assert "eyJ" not in caplog.text  # how a JWT begins


def test_the_end_closes_the_connection_and_its_thread(stage: Stage) -> None:
    executor = stage.executor()
    [thread] = [t for t in threading.enumerate() if t.name == "nats-executor"]
    task = task_workload()
    stage.sent_by(executor, task)

    executor.end()
    executor.end()

    assert not thread.is_alive()
    queue_up(executor, task_workload("late"))
    executor.heartbeat()  # an executor that has ended takes nothing, and raises nothing
    executor.sync()
    assert executor.running == {compat.key_of(task)}
    assert len(stage.sent()) == 1


def test_an_end_right_after_the_start_ends(fake_stage: FakeStage) -> None:
    fake_stage.server.stop()
    fake_stage.configure(connect_timeout_seconds=0.01)
    executor = fake_stage.executor()

    executor.terminate()

    assert not [t for t in threading.enumerate() if t.name == "nats-executor"]


def test_a_setting_that_cannot_work_stops_the_start(
    fake_stage: FakeStage,
) -> None:
    fake_stage.configure(replicas=2)

    with pytest.raises(ConfigError, match=r"\[nats_executor\] replicas = 2: write 1, 3 or 5"):
        fake_stage.executor()


def test_a_queue_that_nobody_serves_is_reported_once(
    fake_stage: FakeStage, said: Callable[..., list[str]]
) -> None:
    fake_stage.configure(sweep_seconds=0.01)
    executor = fake_stage.executor()
    fake_stage.sent_by(executor, task_workload(queue="gpu"))

    for _ in range(5):
        fake_stage.seen(executor)

    lines = said("no worker serves queue 'gpu'", level=logging.WARNING)
    assert lines == [
        "no worker serves queue 'gpu', 1 workload waiting; remedy: airflow nats worker -q gpu"
    ]
