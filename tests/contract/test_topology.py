"""The changes of `airflow nats setup` to a broker: create, tell, update in place, never delete."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.errors import NotFound, TopologyMismatch
from nats_executor.topology import drift, setup
from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.names import Lane
from tests.contract.stage import open_streams, soon

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from tests.contract.stage import Stage

pytestmark = pytest.mark.anyio

QUEUES = ["default", "große Modelle"]


@pytest.fixture
def stage(bare_stage: Stage) -> Stage:
    """A broker without streams: here they come from `topology` itself."""
    return bare_stage


def changed(settings: Settings, **options: Any) -> Settings:
    return dataclasses.replace(settings, **options)


@pytest.fixture
async def built_stage(bare_stage: Stage) -> Stage:
    """A broker with the streams of the contract's other tests."""
    await bare_stage.build()
    return bare_stage


async def set_up(stage: Stage, **options: Any) -> list[setup.Drift]:
    return await setup.apply(stage.broker, changed(stage.settings, **options), QUEUES)


async def inspect(stage: Stage, **options: Any) -> list[setup.Drift]:
    return await setup.inspect(stage.broker, changed(stage.settings, **options), QUEUES)


async def everything(broker: Broker, settings: Settings) -> list[object]:
    """Every configuration as the server has it."""
    names = settings.names
    found: list[object] = [
        await broker.stream_config(wanted["name"]) for wanted in stream_configs(settings)
    ]
    for queue in QUEUES:
        consumer = names.consumer(queue)
        found.append(await broker.consumer_config(names.tasks_stream, consumer))
    return found


def test_only_what_changes_meaning_is_fixed() -> None:
    assert {"retention", "storage"} <= drift.FIXED
    assert not {"max_age", "max_bytes", "ack_wait", "num_replicas"} & drift.FIXED


async def test_setup_creates_every_stream_and_consumer(stage: Stage) -> None:
    done = await set_up(stage)

    assert None not in await everything(stage.broker, stage.settings)
    assert [drift.setting for drift in done] == ["existence"] * (5 + 3 * len(QUEUES))
    assert await setup.known_queues(stage.broker, stage.settings) == sorted(
        QUEUES, key=stage.names.consumer
    )


async def test_what_setup_created_carries_a_task(stage: Stage) -> None:
    await set_up(stage)
    pulls = await stage.pulls(stage.broker, "große Modelle")
    await stage.send("d1", queue="große Modelle")
    delivery = await soon(pulls.wait())
    claim = await stage.broker.publish(
        stage.names.result("große Modelle", "d1"), b"claimed", expected_last=0
    )
    await stage.broker.publish(
        stage.names.result("große Modelle", "d1"), b"success", expected_last=claim
    )
    await delivery.ack()
    await stage.broker.publish(stage.names.presence("a", "w1"), b"here")
    await stage.broker.publish(stage.names.presence("a", "w1"), b"still here")
    await stage.broker.publish(stage.names.dead_letter("q", "d9"), b"undecodable")

    presences = await stage.broker.scan(stage.names.workers_stream, stage.names.presences())
    assert [stored.body for stored in presences] == [b"still here"]


async def test_a_second_setup_does_nothing(stage: Stage) -> None:
    await set_up(stage)
    before = await everything(stage.broker, stage.settings)

    assert await set_up(stage) == []
    assert await everything(stage.broker, stage.settings) == before


async def test_a_second_setup_does_nothing_with_other_options_either(stage: Stage) -> None:
    options = {"storage": "memory", "max_stream_bytes": 10_000_000, "ack_wait_seconds": 2.5}
    await set_up(stage, **options)

    assert await set_up(stage, **options) == []


async def test_a_check_before_setup_tells_everything_that_is_missing(stage: Stage) -> None:
    found = await inspect(stage)

    assert [drift.setting for drift in found] == ["existence"] * (5 + 3 * len(QUEUES))
    queue = QUEUES[0]
    bands = ["priority band 2 of ", "priority band 1 of ", ""]
    assert [drift.where for drift in found][5:8] == [
        f"consumer of {band}queue {queue!r}" for band in bands
    ]
    assert any("große Modelle" in str(drift) for drift in found)
    assert await stage.broker.stream_info(stage.tasks) is None


async def test_a_check_after_setup_finds_nothing(stage: Stage) -> None:
    await set_up(stage)

    assert await inspect(stage) == []


async def test_a_check_names_setting_wanted_and_found_value_and_changes_nothing(
    stage: Stage,
) -> None:
    await set_up(stage)
    before = await everything(stage.broker, stage.settings)

    found = await inspect(stage, result_retention_seconds=7200, ack_wait_seconds=60.0)

    in_stream, *in_consumers = found
    assert (in_stream.where, in_stream.setting) == (f"stream {stage.results}", "max_age")
    assert (in_stream.found, in_stream.wanted) == (86400 * 10**9, 7200 * 10**9)
    assert str(in_stream) == (
        f"stream {stage.results}: max_age is 86400000000000, should be 7200000000000"
    )
    assert [(drift.setting, drift.wanted) for drift in in_consumers] == [
        ("ack_wait", 60 * 10**9)
    ] * (3 * len(QUEUES))
    assert await everything(stage.broker, stage.settings) == before


async def test_a_check_tells_what_cannot_be_changed_too(stage: Stage) -> None:
    await set_up(stage)

    found = await inspect(stage, storage="memory")

    assert {drift.setting for drift in found} == {"storage"}


async def test_a_stray_setting_of_somebody_else_is_found_and_mended(stage: Stage) -> None:
    """Without `discard new` the server would drop the oldest queued task to make room."""
    await set_up(stage)
    config = await stage.broker.stream_config(stage.tasks)
    assert config is not None
    await stage.broker.update_stream(config | {"discard": "old", "discard_new_per_subject": False})

    found = await inspect(stage)
    assert {(d.setting, d.wanted) for d in found} == {
        ("discard", "new"),
        ("discard_new_per_subject", True),
    }
    assert await set_up(stage) == found
    assert await inspect(stage) == []


async def test_setup_updates_in_place_and_keeps_the_messages(stage: Stage) -> None:
    await set_up(stage)
    await stage.send("d1")
    options = {
        "max_stream_bytes": 50_000_000,
        "result_retention_seconds": 7200,
        "dead_letter_retention_seconds": 3600,
        "ack_wait_seconds": 60.0,
    }
    expected = await inspect(stage, **options)

    done = await set_up(stage, **options)

    assert {drift.setting for drift in done} == {"max_bytes", "max_age", "ack_wait"}
    assert done == expected
    assert await inspect(stage, **options) == []
    pulls = await stage.pulls(stage.broker)
    assert (await soon(pulls.wait())).body == b"d1"


async def test_a_bucket_for_logs_is_made_only_where_logs_are_stored(stage: Stage) -> None:
    await set_up(stage)
    stream = stage.settings.names.logs_stream
    assert await stage.broker.stream_config(stream) is None

    assert {drift.where for drift in await set_up(stage, stores_logs=True)} == {f"stream {stream}"}
    assert await inspect(stage, stores_logs=True) == []
    options = {"log_retention_seconds": 60, "max_log_bucket_bytes": 5_000_000}
    changes = await set_up(stage, stores_logs=True, **options)

    assert {drift.setting for drift in changes} == {"max_age", "max_bytes", "max_msgs"}
    await set_up(stage)
    assert await inspect(stage, stores_logs=True, **options) == []


async def test_setup_keeps_what_an_operator_added(stage: Stage) -> None:
    """A server, or a person, knows settings that this release does not."""
    await set_up(stage)
    config = await stage.broker.stream_config(stage.results)
    assert config is not None
    await stage.broker.update_stream(config | {"compression": "s2"})

    assert await set_up(stage) == []
    await set_up(stage, result_retention_seconds=7200)

    config = await stage.broker.stream_config(stage.results)
    assert config is not None
    assert config["compression"] == "s2"


@pytest.mark.parametrize(
    ("options", "named"), [({"storage": "memory"}, "storage is 'file', should be 'memory'")]
)
async def test_what_cannot_be_changed_is_refused_with_a_remedy_and_nothing_is_deleted(
    stage: Stage, options: dict[str, Any], named: str
) -> None:
    await set_up(stage)
    await stage.send("d1")
    before = await everything(stage.broker, stage.settings)

    with pytest.raises(TopologyMismatch, match=named) as caught:
        await set_up(stage, **options)

    assert "airflow nats setup" in str(caught.value)
    assert stage.tasks in str(caught.value)
    assert await everything(stage.broker, stage.settings) == before
    assert len(await stage.broker.scan(stage.tasks, stage.names.tasks())) == 1


async def test_a_task_stream_of_another_kind_is_refused(stage: Stage) -> None:
    await stage.broker.create_stream(stage.tasks_config() | {"retention": "limits"})

    with pytest.raises(TopologyMismatch, match="retention is 'limits', should be 'workqueue'"):
        await set_up(stage)
    with pytest.raises(TopologyMismatch, match="retention"):
        await open_streams(stage.broker, stage.settings)


async def test_a_mismatch_leaves_everything_else_alone_too(stage: Stage) -> None:
    """Half a setup would be neither the old nor the new one."""
    await stage.broker.create_stream(
        {"name": stage.names.workers_stream, "subjects": [stage.names.presences()]}
        | {"storage": "memory", "retention": "limits"}
    )

    with pytest.raises(TopologyMismatch, match="storage"):
        await set_up(stage)

    assert await stage.broker.stream_info(stage.tasks) is None


async def test_an_executors_start_creates_streams_but_updates_nothing(stage: Stage) -> None:
    """During an upgrade two releases may disagree; the operator's `setup` decides."""
    assert await open_streams(stage.broker, stage.settings) == []
    before = await everything(stage.broker, stage.settings)
    assert None not in before[:4]

    newer = changed(stage.settings, result_retention_seconds=7200)
    found = await open_streams(stage.broker, newer)

    assert [drift.setting for drift in found] == ["max_age"]
    assert await everything(stage.broker, stage.settings) == before


async def test_a_queues_consumer_is_created_once_and_updated_later(stage: Stage) -> None:
    await open_streams(stage.broker, stage.settings)

    created = await setup.ensure_consumer(stage.broker, stage.settings, Lane("gpu"))
    again = await setup.ensure_consumer(stage.broker, stage.settings, Lane("gpu"))
    slower = changed(stage.settings, ack_wait_seconds=60.0)
    updated = await setup.ensure_consumer(stage.broker, slower, Lane("gpu"))

    assert [drift.setting for drift in created] == ["existence"]
    assert again == []
    assert [drift.setting for drift in updated] == ["ack_wait"]


async def test_a_consumer_needs_its_stream(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await setup.ensure_consumer(stage.broker, stage.settings, Lane("gpu"))


async def test_without_streams_no_queue_is_known(stage: Stage) -> None:
    assert await setup.known_queues(stage.broker, stage.settings) == []


async def test_more_replicas_than_servers_is_a_mismatch_that_names_the_reason(
    stage: Stage,
) -> None:
    with pytest.raises(TopologyMismatch, match="replicas"):
        await set_up(stage, replicas=3)


# Of the release before, which gave nothing but the task stream and the bucket of logs a size.
UNLIMITED = {"max_bytes": -1, "max_msgs": -1, "max_msg_size": -1}


async def test_streams_without_sizes_get_them_in_place_and_keep_their_messages(
    stage: Stage,
) -> None:
    names = stage.names
    for wanted in stream_configs(stage.settings):
        is_bucket = wanted["name"] == names.workers_stream
        rollups = {"allow_rollup_hdrs": True} if is_bucket else {}
        await stage.broker.create_stream(wanted | UNLIMITED | rollups)
    subjects = [names.result("q", "d1"), names.dead_letter("q", "d1"), names.presence("a", "w1")]
    for subject in subjects:
        await stage.broker.publish(subject, b"here")

    found = await set_up(stage)

    changed_settings = {d.setting for d in found if d.where.startswith("stream")}
    assert changed_settings == {*UNLIMITED, "allow_rollup_hdrs"}
    assert not any(drift.caution for drift in found)
    assert await inspect(stage) == []
    streams = (stage.results, names.dead_letters_stream, names.workers_stream)
    for stream, subject in zip(streams, subjects, strict=True):
        message = await stage.broker.last(stream, subject)
        assert message is not None
        assert message.body == b"here"


@pytest.mark.parametrize("size", [1, 300], ids=["too many", "too large"])
async def test_a_stream_that_holds_more_than_its_size_waits_for_a_word(
    stage: Stage, size: int
) -> None:
    small = changed(stage.settings, max_results_bytes=2 * 256)
    await set_up(stage)
    for number in range(3):
        await stage.broker.publish(stage.names.result("q", f"d{number}"), b"x" * size)

    with pytest.raises(TopologyMismatch, match=r"drops the oldest messages.*--may-drop"):
        await setup.apply(stage.broker, small, QUEUES)

    assert len(await stage.broker.scan(stage.results, stage.names.results())) == 3


async def test_every_stream_has_a_size_of_its_own(stage: Stage) -> None:
    await set_up(stage, stores_logs=True)

    for wanted in stream_configs(changed(stage.settings, stores_logs=True)):
        config = await stage.broker.stream_config(wanted["name"])
        assert config is not None
        assert config["max_bytes"] > 0
        assert 0 < config["max_msg_size"] < config["max_bytes"]


# What the broker itself says to streams that are not as they should be


async def test_creating_what_exists_already_does_nothing(built_stage: Stage) -> None:
    await built_stage.queue()
    await built_stage.send("d1")

    await built_stage.broker.create_stream(built_stage.tasks_config())
    await built_stage.queue()

    assert len(await built_stage.broker.scan(built_stage.tasks, built_stage.names.tasks())) == 1


async def test_creating_a_stream_that_exists_with_other_settings_is_a_mismatch(
    built_stage: Stage,
) -> None:
    with pytest.raises(TopologyMismatch, match=built_stage.tasks):
        await built_stage.broker.create_stream(built_stage.tasks_config() | {"retention": "limits"})


@pytest.mark.parametrize("change", [{"storage": "memory"}, {"retention": "workqueue"}])
async def test_what_a_server_cannot_change_is_a_mismatch(
    built_stage: Stage, change: dict[str, str]
) -> None:
    before = await built_stage.broker.stream_config(built_stage.results)

    with pytest.raises(TopologyMismatch, match=built_stage.results):
        await built_stage.broker.update_stream(built_stage.results_config() | change)

    assert await built_stage.broker.stream_config(built_stage.results) == before


async def test_creating_a_consumer_that_exists_with_other_settings_is_a_mismatch(
    built_stage: Stage,
) -> None:
    await built_stage.queue(ack_wait=30)

    with pytest.raises(TopologyMismatch, match="default"):
        await built_stage.broker.create_consumer(
            built_stage.tasks, built_stage.consumer_config("default", ack_wait=5)
        )


async def test_a_consumer_is_updated_in_place(built_stage: Stage) -> None:
    pulls = await built_stage.queue(ack_wait=30)
    await built_stage.send("d1")
    await built_stage.send("d2")
    await soon(pulls.wait())
    await built_stage.offers(1)

    await built_stage.broker.update_consumer(
        built_stage.tasks, built_stage.consumer_config("default", ack_wait=5)
    )

    config = await built_stage.broker.consumer_config(built_stage.tasks, "default")
    assert config is not None
    assert config["ack_wait"] == 5_000_000_000
    (info,) = await built_stage.broker.consumer_infos(built_stage.tasks)
    assert (info.pending, info.in_flight) == (1, 1)
