"""Streams that lose their leader: each holds up its own work alone, and no longer than need be.

In most of these tests the clock of the executor's pauses stands still: a pause that ends was ended.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.connection import connect
from nats_executor.broker.jetstream import JetStream
from nats_executor.errors import BrokerUnavailable
from nats_executor.retrying import Outage
from nats_executor.scheduler import compat
from nats_executor.wire.messages import State
from tests.scheduler.stage import RealStage, events, queue_up, task_workload
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from airflow.executors.workloads import ExecutorWorkload

    from nats_executor import NatsExecutor
    from nats_executor.broker.port import Broker, StreamInfo
    from nats_executor.wire.names import Names
    from tests.scheduler.stage import FakeStage
    from tests.support.nats_server import NatsServer

# Of looks that a leader may be overlooked by: some are under way while it is elected.
MOST_LOOKS = 10


class ClusterStage(RealStage):
    """Three nats-server processes, each stream on all of them."""

    def __init__(
        self, names: Names, monkeypatch: pytest.MonkeyPatch, servers: Sequence[NatsServer]
    ) -> None:
        super().__init__(names, monkeypatch, servers[0])
        self.servers = servers
        urls = ",".join(server.url for server in servers)
        self.configure(servers=urls, replicas=3, publish_timeout_seconds=2)

    def connection(self) -> AbstractAsyncContextManager[Broker]:
        urls = [server.url for server in self.servers]
        settings = settings_for(*urls, subject_prefix=self.names.prefix)
        return connect(settings, role="peer")

    def leader_of(self, stream: str) -> NatsServer:
        def find() -> NatsServer | None:
            with contextlib.suppress(BrokerUnavailable):  # it is being elected
                info = self.ask("stream_info", stream)
                return next((s for s in self.servers if s.name == info.replication.leader), None)
            return None

        found: NatsServer = block_until(find, 60, f"a leader of {stream}")
        return found

    def takes(self, subject: str) -> bool:
        """Whether a stream takes a message now."""
        with contextlib.suppress(BrokerUnavailable):
            self.ask("publish", subject, b"", timeout=1.0)
            return True
        return False


@pytest.fixture
def cluster_stage(
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    nats_cluster_of_three: Sequence[NatsServer],
) -> Iterator[ClusterStage]:
    with ClusterStage(names, monkeypatch, nats_cluster_of_three) as built:
        yield built


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often executors have looked at each stream."""
    counted: Counter[str] = Counter()
    look = JetStream.stream_info

    async def count(broker: JetStream, stream: str) -> StreamInfo | None:
        counted[stream] += 1
        return await look(broker, stream)

    monkeypatch.setattr(JetStream, "stream_info", count)
    return counted


def without_time(executor: NatsExecutor) -> None:
    """Let no pause of an executor end by itself."""
    executor._outage = Outage(lambda: 0.0)


def sends(executor: NatsExecutor, *items: ExecutorWorkload) -> Callable[[], bool]:
    keys = {compat.key_of(item) for item in items}

    def beat() -> bool:
        executor.heartbeat()
        return bool(keys <= executor.running)

    return beat


def scheduler_of(stage: FakeStage) -> FakeBroker:
    """The executor's own connection."""
    return next(broker for broker in stage.server.brokers if broker is not stage.broker)


@pytest.mark.integration
def test_workloads_are_sent_once_a_leader_is_elected(
    cluster_stage: ClusterStage, looks: Counter[str]
) -> None:
    stage, tasks = cluster_stage, cluster_stage.names.tasks_stream
    executor = stage.executor()
    queue_up(executor, first := task_workload("first"))
    block_until(sends(executor, first), 60, "the first workload to be sent")
    without_time(executor)

    stage.leader_of(tasks).kill()
    queue_up(executor, second := task_workload("second"))
    probe = stage.names.task("probe", "d")

    def elected() -> bool:
        executor.heartbeat()
        return stage.takes(probe)

    block_until(elected, 60, "the election")
    before = looks[tasks]
    block_until(sends(executor, second), 60, "the second workload to be sent")

    assert looks[tasks] - before <= MOST_LOOKS


@pytest.mark.integration
def test_workloads_are_sent_while_the_reports_have_no_leader(cluster_stage: ClusterStage) -> None:
    """A scheduler that starts in this moment reads all reports once they are there again."""
    stage, names = cluster_stage, cluster_stage.names
    results = {
        "name": names.results_stream, "subjects": [names.results()], "storage": "file",
        "retention": "limits", "max_msgs_per_subject": 1, "allow_direct": True, "num_replicas": 1,
        "max_age": 86400 * 10**9,
    }  # fmt: skip
    stage.ask("create_stream", results)
    earlier = stage.executor()
    queue_up(earlier, first := task_workload("first"))
    block_until(sends(earlier, first), 60, "the first workload to be sent")
    only = stage.leader_of(names.results_stream)

    only.kill()
    later = stage.executor(job_id=8)
    queue_up(earlier, second := task_workload("second"))
    queue_up(later, third := task_workload("third"))

    block_until(sends(earlier, second), 60, "the second workload to be sent")
    block_until(sends(later, third), 60, "the third workload to be sent")
    only.launch()
    stage.leader_of(names.results_stream)
    for sent in stage.sent():
        stage.report(sent, State.SUCCESS)
    assert list(events(later)) == [compat.key_of(third)]
    assert set(events(earlier, 2)) == {
        compat.key_of(first),
        compat.key_of(second),
    }


def test_a_new_connection_ends_the_pause(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor()
    without_time(executor)
    fake_stage.server.stop()
    queue_up(executor, task := task_workload())
    executor.heartbeat()
    assert executor._outage.is_waiting(executor._connected.recoveries)

    fake_stage.server.start()

    block_until(sends(executor, task), 20, "the workload to be sent")


def test_a_stream_that_answers_again_ends_the_pause(fake_stage: FakeStage) -> None:
    executor = fake_stage.executor()
    without_time(executor)
    scheduler_of(fake_stage).fail_next("publish")
    scheduler_of(fake_stage).fail_next("stream_info", 9)
    queue_up(executor, task := task_workload())
    executor.heartbeat()
    assert executor.running == set()

    block_until(sends(executor, task), 20, "the workload to be sent")


def test_a_stream_that_answers_all_the_time_does_not_end_the_pause(fake_stage: FakeStage) -> None:
    """Where looks work and sending does not, each heartbeat would wait for one more time-out."""
    executor = fake_stage.executor()
    without_time(executor)
    scheduler = scheduler_of(fake_stage)
    scheduler.fail_next("publish", 1000)
    asked: list[str] = []
    look = scheduler.stream_info

    async def note(stream: str) -> StreamInfo | None:
        asked.append(stream)
        return await look(stream)

    fake_stage.monkeypatch.setattr(scheduler, "stream_info", note)
    queue_up(executor, task_workload())
    executor.heartbeat()
    block_until(lambda: fake_stage.names.tasks_stream in asked, 20, "a look")

    for _ in range(50):
        executor.heartbeat()

    assert len(scheduler.failures["publish"]) == 999


@pytest.mark.parametrize("stream", ["results_stream", "workers_stream", "dead_letters_stream"])
def test_a_stream_without_a_leader_keeps_nothing_from_the_workloads(
    fake_stage: FakeStage, stream: str, said: Callable[..., list[str]]
) -> None:
    silent = getattr(fake_stage.names, stream)
    look = FakeBroker.stream_info

    async def look_in_vain(broker: FakeBroker, name: str) -> StreamInfo | None:
        if name == silent:
            raise BrokerUnavailable("no leader")
        return await look(broker, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeBroker, "stream_info", look_in_vain)
        executor = fake_stage.executor()
        queue_up(executor, task := task_workload())
        block_until(sends(executor, task), 20, "the workload to be sent")
        assert (
            str(executor._connected.dispatcher and executor._connected.dispatcher.trouble)
            == "no leader"
        )

    [sent] = fake_stage.sent()
    block_until(
        lambda: executor._connected.dispatcher and not executor._connected.dispatcher.trouble,
        20,
        "recovery",
    )
    fake_stage.report(sent, State.SUCCESS)
    assert list(events(executor)) == [compat.key_of(task)]
    lines = said(f"stream {silent}: no leader; next: asking again until it answers")
    assert len(lines) == 1
