"""Changes to streams and consumers in use: the possible ones, the others, and their cost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import nats  # noqa: TID251 - what others read it with
import pytest

from nats_executor.errors import BrokerUnavailable, SubjectOccupied, TopologyMismatch
from nats_executor.topology import drift, setup
from nats_executor.topology.wanted import SECOND, consumer_config, stream_configs
from nats_executor.wire.names import Lane
from tests.contract.stage import FakeStage, RealStage, open_streams, soon
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nats_executor.broker.port import Broker, Config, ConsumerInfo
    from nats_executor.wire.names import Names
    from tests.contract.stage import Stage
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.anyio

QUEUE = "default"


@pytest.fixture
async def stage(bare_stage: Stage) -> Stage:
    """A broker with the streams and consumers that `setup` makes."""
    await set_up(bare_stage)
    return bare_stage


@pytest.fixture
async def real(nats_server: NatsServer, names: Names, exits: AsyncExitStack) -> RealStage:
    """The same on a real server, for what only that can answer."""
    stage = RealStage(names, nats_server, exits)
    await stage.open()
    await set_up(stage)
    return stage


async def set_up(stage: Stage, *, may_drop: bool = False, **options: Any) -> list[drift.Drift]:
    settings = dataclasses.replace(stage.settings, **options)
    return await setup.apply(stage.broker, settings, [QUEUE], may_drop=may_drop)


async def inspect(stage: Stage, **options: Any) -> list[drift.Drift]:
    settings = dataclasses.replace(stage.settings, **options)
    return await setup.inspect(stage.broker, settings, [QUEUE])


async def config_of(stage: Stage, stream: str) -> Config:
    config = await stage.broker.stream_config(stream)
    assert config is not None
    return config


async def change(stage: Stage, stream: str, **settings: Any) -> None:
    """Have a stream as another program made it."""
    await stage.broker.update_stream(await config_of(stage, stream) | settings)


async def api(stage: RealStage, verb: str) -> dict[str, Any]:
    """Call JetStream's own API, for what this project never does."""
    domain = stage.settings.jetstream_domain
    subject = f"$JS.{domain}.API.{verb}" if domain else f"$JS.API.{verb}"
    answer: dict[str, Any] = json.loads(await stage.broker.request(subject, b"", timeout=5.0))
    assert "error" not in answer
    return answer


async def info_of(broker: Broker, stream: str, name: str = QUEUE) -> ConsumerInfo:
    infos = {info.name: info for info in await broker.consumer_infos(stream)}
    return infos[name]


# What stays as it is


@pytest.mark.integration
@pytest.mark.parametrize(
    ("stream", "setting"),
    [
        ("results", {"storage": "memory"}),
        ("results", {"retention": "workqueue"}),
        ("tasks", {"retention": "limits"}),
        ("tasks", {"retention": "interest"}),
    ],
)
async def test_a_server_refuses_what_a_stream_keeps(
    real: RealStage, stream: str, setting: Config
) -> None:
    name = getattr(real, stream)
    assert setting.keys() <= drift.FIXED

    with pytest.raises(TopologyMismatch, match="can not change"):
        await change(real, name, **setting)


@pytest.mark.integration
@pytest.mark.parametrize(
    "setting", [{"ack_policy": "all"}, {"deliver_policy": "new"}, {"max_waiting": 100}]
)
async def test_a_server_refuses_what_a_consumer_keeps(real: RealStage, setting: Config) -> None:
    config = await real.broker.consumer_config(real.tasks, QUEUE)
    assert config is not None
    assert setting.keys() <= drift.FIXED

    with pytest.raises(TopologyMismatch, match="can not be updated"):
        await real.broker.update_consumer(real.tasks, config | setting)


@pytest.mark.integration
async def test_a_filter_is_fixed_because_what_waits_under_the_old_one_would_wait_for_ever(
    real: RealStage,
) -> None:
    await real.send("d1")
    await real.offers(1)
    config = await real.broker.consumer_config(real.tasks, QUEUE)
    assert config is not None

    elsewhere = real.names.tasks(Lane("elsewhere"))
    await real.broker.update_consumer(real.tasks, config | {"filter_subject": elsewhere})

    pulls = await real.pulls(real.broker)
    with pytest.raises(TimeoutError):
        await soon(pulls.wait())
    (found,) = [found for found in await inspect(real) if found.setting == "filter_subject"]
    assert "nats consumer rm" in found.caution


async def test_a_consumer_that_cannot_be_changed_says_so_and_keeps_no_executor_from_sending(
    stage: Stage,
) -> None:
    await remake_consumer(stage, max_waiting=512)
    expected = "max_waiting is 512, should be 10000; that cannot be changed in place: delete it"

    with pytest.raises(TopologyMismatch, match=expected):
        await set_up(stage, ack_wait_seconds=60.0)
    found = await setup.open_queue(stage.broker, stage.settings, QUEUE)

    assert [drift.setting for drift in found] == ["max_waiting"]
    config = await stage.broker.consumer_config(stage.tasks, QUEUE)
    assert config is not None
    assert config["ack_wait"] == 30 * SECOND


async def remake_consumer(stage: Stage, **settings: Any) -> None:
    await delete_consumer(stage)
    config = consumer_config(stage.settings, Lane(QUEUE)) | settings
    await stage.broker.create_consumer(stage.tasks, config)


async def delete_consumer(stage: Stage) -> None:
    """As `nats consumer rm` does it; this project deletes none."""
    if isinstance(stage, RealStage):
        await api(stage, f"CONSUMER.DELETE.{stage.tasks}.{QUEUE}")
    else:
        assert isinstance(stage, FakeStage)
        stage.server.streams[stage.tasks].consumers.pop(QUEUE)


async def test_the_remedy_of_a_consumer_keeps_its_messages(stage: Stage) -> None:
    """Delete it and run `setup`: what waits is there, and what runs is offered again."""
    await remake_consumer(stage, max_waiting=512)
    pulls = await stage.pulls(stage.broker)
    for dispatch_id in ("running", "waiting"):
        await stage.send(dispatch_id)
    running = await soon(pulls.wait())
    assert running.body == b"running"

    await delete_consumer(stage)
    await set_up(stage)

    assert await inspect(stage) == []
    again = await stage.pulls(stage.broker)
    assert [(await soon(again.wait())).body for _ in range(2)] == [b"running", b"waiting"]


# What can be changed, and what it costs


async def test_a_shorter_retention_says_what_it_drops_and_waits_for_a_word(stage: Stage) -> None:
    await stage.broker.publish(stage.names.result(QUEUE, "d1"), b"a report")
    await stage.elapse(1.5)
    await stage.broker.publish(stage.names.result(QUEUE, "d2"), b"a later report")
    shorter: dict[str, Any] = {"result_retention_seconds": 1}

    (found,) = [found for found in await inspect(stage, **shorter) if found.setting == "max_age"]
    assert "drops messages that are older than 1 s; the oldest one is" in found.caution
    with pytest.raises(TopologyMismatch, match="--may-drop") as caught:
        await set_up(stage, **shorter)
    assert found.caution in str(caught.value)
    assert len(await stage.broker.scan(stage.results, stage.names.results())) == 2

    await set_up(stage, may_drop=True, **shorter)
    assert await inspect(stage, **shorter) == []
    await stage.elapse(0)
    first = stage.names.result(QUEUE, "d1")

    async def is_gone() -> bool:
        return await stage.broker.last(stage.results, first) is None

    await wait_until(is_gone, 10, "the old report to go")


async def test_a_shorter_retention_that_drops_nothing_needs_no_word(stage: Stage) -> None:
    await stage.broker.publish(stage.names.result(QUEUE, "d1"), b"a report")

    await set_up(stage, result_retention_seconds=3600)

    assert await inspect(stage, result_retention_seconds=3600) == []
    assert len(await stage.broker.scan(stage.results, stage.names.results())) == 1


@pytest.mark.integration
async def test_a_limit_below_what_the_task_stream_holds_drops_nothing(real: RealStage) -> None:
    """It refuses new ones, and schedulers keep them: `test_a_full_stream`."""
    for number in range(5):
        await real.broker.publish(real.names.task(QUEUE, f"d{number}"), b"x" * 1000)

    done = await set_up(real, max_stream_bytes=3000)

    assert [(d.setting, d.wanted, d.caution) for d in done] == [("max_bytes", 3000, "")]
    assert len(await real.broker.scan(real.tasks, real.names.tasks())) == 5
    assert (await info_of(real.broker, real.tasks)).pending == 5


@pytest.mark.integration
async def test_one_message_for_each_subject_keeps_the_last_one(real: RealStage) -> None:
    """All messages of a subject are of one dispatch, so the older ones are no loss."""
    loose = {"discard_new_per_subject": False, "discard": "old", "max_msgs_per_subject": -1}
    await change(real, real.tasks, **loose)
    first = real.names.task(QUEUE, "d1")
    for body in (b"1", b"2"):
        await real.broker.publish(first, body)
    await real.send("d2")

    await set_up(real)

    kept = await real.broker.last_of_each(real.tasks, [first, real.names.task(QUEUE, "d2")])
    assert {message.body for message in kept} == {b"2", b"d2"}
    with pytest.raises(SubjectOccupied):
        await real.send("d1")


async def test_a_subject_that_somebody_added_stays(stage: Stage) -> None:
    """A release after this one may have; without it its messages would reach no worker."""
    more = f"{stage.names.prefix}.more.>"
    await change(stage, stage.tasks, subjects=[stage.names.tasks(), more])

    assert await inspect(stage) == []
    assert await set_up(stage, max_stream_bytes=10_000_000)
    config = await config_of(stage, stage.tasks)
    assert set(config["subjects"]) == {stage.names.tasks(), more}


async def test_a_subject_that_is_missing_is_added_beside_the_others(stage: Stage) -> None:
    earlier = f"{stage.names.prefix}.earlier.>"
    await change(stage, stage.tasks, subjects=[earlier])
    await stage.broker.publish(f"{stage.names.prefix}.earlier.d1", b"waits")

    assert [drift.setting for drift in await set_up(stage)] == ["subjects"]

    await stage.send("d2")
    found = await stage.broker.scan(stage.tasks, ">")
    assert [message.body for message in found] == [b"waits", b"d2"]


async def test_a_retention_below_the_duplicate_window_can_be_set_and_taken_back(
    stage: Stage,
) -> None:
    """NATS refuses a window that is longer than messages live."""
    await set_up(stage, result_retention_seconds=60)
    assert await inspect(stage, result_retention_seconds=60) == []

    await set_up(stage)

    assert await inspect(stage) == []


async def test_a_change_keeps_what_a_consumer_knows(stage: Stage) -> None:
    pulls = await stage.pulls(stage.broker)
    for number in range(3):
        await stage.send(f"d{number}")
    done, _running = [await soon(pulls.wait()) for _ in range(2)]
    await done.ack()

    await set_up(stage, ack_wait_seconds=60.0, queue_limits=None, max_stream_bytes=10_000_000)

    info = await info_of(stage.broker, stage.tasks)
    assert (info.pending, info.in_flight) == (1, 1)


async def test_an_executor_of_another_release_leaves_a_queue_as_it_is(stage: Stage) -> None:
    """Otherwise two schedulers would take a setting from each other at every reconnect."""
    other = dataclasses.replace(stage.settings, ack_wait_seconds=77.0)
    before = await stage.broker.consumer_config(stage.tasks, QUEUE)

    found = await setup.open_queue(stage.broker, other, QUEUE)

    assert {(drift.setting, drift.wanted) for drift in found} == {("ack_wait", 77 * SECOND)}
    assert await stage.broker.consumer_config(stage.tasks, QUEUE) == before
    created = await setup.open_queue(stage.broker, other, "new")
    assert created == []
    assert await stage.broker.consumer_config(stage.tasks, "new") is not None


# Copies


async def test_copies_need_a_cluster_and_an_executor_goes_on_without(stage: Stage) -> None:
    """2.11 takes the number and makes none."""
    with pytest.raises(TopologyMismatch, match="in no cluster"):
        await set_up(stage, replicas=3)

    config = await config_of(stage, stage.tasks)
    assert config["num_replicas"] == 1
    found = await open_streams(stage.broker, dataclasses.replace(stage.settings, replicas=3))
    assert {drift.setting for drift in found} == {"num_replicas"}


@pytest.mark.integration
async def test_a_cluster_makes_more_copies_in_place_and_fewer_again(
    nats_cluster_of_three: Sequence[NatsServer], names: Names, exits: AsyncExitStack
) -> None:
    stage = RealStage(names, nats_cluster_of_three[0], exits)
    await stage.open()
    await wait_until(lambda: is_set_up(stage), 60, "the streams")
    pulls = await stage.pulls(stage.broker)
    await wait_until(lambda: is_taken(stage, "d0"), 20, "the servers to know of the stream")
    for number in range(1, 4):
        await stage.send(f"d{number}")
    done, running = [await soon(pulls.wait()) for _ in range(2)]
    await done.ack()

    await wait_until(lambda: is_set_up(stage, replicas=3), 60, "three servers that are online")

    await wait_until(lambda: are_three(stage), 60, "three copies that are current")
    await running.ack()
    assert await delivered(stage) == {b"d2", b"d3"}
    await wait_until(lambda: is_set_up(stage), 60, "one copy again")
    assert (await config_of(stage, stage.tasks))["num_replicas"] == 1


async def is_set_up(stage: RealStage, **options: Any) -> bool:
    """Set it up, unless a server counts as gone, or is slow to answer, as an operator asks again.

    Before 2.12 one counts as gone that is late with its news. One that elects a leader is slow.
    """
    try:
        await set_up(stage, **options)
    except (BrokerUnavailable, TopologyMismatch):
        return False
    return True


async def is_taken(stage: RealStage, body: str) -> bool:
    """Send it, unless the stream's server has not told this one of it yet."""
    try:
        await stage.send(body)
    except BrokerUnavailable:
        return False
    return True


async def are_three(stage: RealStage) -> bool:
    """Whether every stream has a leader and two followers that have everything."""
    for wanted in stream_configs(stage.settings):
        try:
            cluster = (await api(stage, f"STREAM.INFO.{wanted['name']}"))["cluster"]
        except BrokerUnavailable:  # it changes its leader
            return False
        followers = [copy for copy in cluster.get("replicas", []) if copy["current"]]
        if not cluster.get("leader") or len(followers) != 2:
            return False
    return True


async def delivered(stage: RealStage) -> set[bytes]:
    """Take and ack all that waits."""
    bodies = set()
    pulls = await stage.pulls(stage.broker)
    while (await info_of(stage.broker, stage.tasks)).pending:
        delivery = await soon(pulls.wait())
        bodies.add(delivery.body)
        await delivery.ack()
    return bodies


@pytest.mark.integration
async def test_a_smaller_bucket_of_logs_drops_the_oldest_and_waits_for_a_word(
    real: RealStage,
) -> None:
    await set_up(real, stores_logs=True)
    subjects = [real.names.log_chunk(QUEUE, "a.log", "p", number) for number in range(5)]
    for subject in subjects:
        await real.broker.publish(subject, b"x" * 1000)
    smaller: dict[str, Any] = {"stores_logs": True, "max_log_bucket_bytes": 3000}

    with pytest.raises(
        TopologyMismatch, match=r"drops the oldest messages; 5\d+ bytes.*--may-drop"
    ):
        await set_up(real, **smaller)
    assert len(await real.broker.scan(real.names.logs_stream, real.names.log_chunks())) == 5

    await set_up(real, may_drop=True, **smaller)
    left = await real.broker.scan(real.names.logs_stream, real.names.log_chunks())
    assert [message.subject for message in left] == subjects[-len(left) :]
    assert 0 < len(left) < 5


@pytest.mark.integration
async def test_the_tools_of_nats_find_a_bucket_in_the_records_of_workers(real: RealStage) -> None:
    """Though it allows no rollups: with one of those a worker could empty it."""
    await set_up(real)
    await real.broker.publish(real.names.presence("a", "w1"), b"here")
    await real.broker.publish(real.names.presence("a", "w2"), b"here")

    client = await nats.connect(real.server.url)
    try:
        store = await client.jetstream().key_value(real.names.workers_bucket)
        assert sorted(await store.keys()) == ["a.w1", "a.w2"]
        assert (await store.get("a.w1")).value == b"here"
        await store.put("a.w3", b"there")
        await store.delete("a.w3")
        with pytest.raises(nats.js.errors.APIError, match="rollup"):
            await store.purge("a.w1")
    finally:
        await client.close()

    assert (
        await real.broker.last(real.names.workers_stream, real.names.presence("a", "w2"))
        is not None
    )
