"""Publishing, reading back and purging."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.port import Outgoing
from nats_executor.errors import (
    BrokerUnavailable,
    MessageTooLarge,
    NotFound,
    SubjectOccupied,
    WrongSequence,
)
from tests.contract.stage import soon

if TYPE_CHECKING:
    from tests.contract.stage import Stage

pytestmark = pytest.mark.anyio


# publish


async def test_publishing_returns_the_sequence_in_the_stream(stage: Stage) -> None:
    first = await stage.send("d1")
    second = await stage.send("d2")

    assert (first, second) == (1, 2)


async def test_a_message_id_is_stored_once(stage: Stage) -> None:
    subject = stage.names.result("default", "d1")
    first = await stage.broker.publish(subject, b"one", message_id="m1")

    again = await stage.broker.publish(subject, b"two", message_id="m1")

    assert again == first
    stored = await stage.broker.last(stage.results, subject)
    assert stored is not None
    assert stored.body == b"one"


async def test_a_message_id_is_stored_once_even_after_the_message_was_consumed(
    stage: Stage,
) -> None:
    pulls = await stage.queue()
    subject = stage.names.task("default", "d1")
    await stage.broker.publish(subject, b"", message_id="m1")
    await (await soon(pulls.wait())).ack()

    await stage.broker.publish(subject, b"", message_id="m1")

    assert await stage.broker.scan(stage.tasks, stage.names.tasks()) == []


async def test_a_repeated_message_id_on_an_occupied_subject_is_no_error(stage: Stage) -> None:
    """A publisher that lost the answer repeats itself and learns that all is well."""
    subject = stage.names.task("default", "d1")
    first = await stage.broker.publish(subject, b"", message_id="m1")

    assert await stage.broker.publish(subject, b"", message_id="m1") == first


async def test_a_subject_of_the_task_stream_holds_one_message(stage: Stage) -> None:
    await stage.send("d1")

    with pytest.raises(SubjectOccupied):
        await stage.send("d1")


async def test_a_subject_stays_occupied_while_its_message_is_in_flight(stage: Stage) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    with pytest.raises(SubjectOccupied):
        await stage.send("d1")
    await delivery.ack()
    assert await stage.send("d1") == 2


async def test_the_result_stream_keeps_the_last_message_of_a_subject(stage: Stage) -> None:
    subject = stage.names.result("default", "d1")
    await stage.broker.publish(subject, b"running")

    sequence = await stage.broker.publish(subject, b"success")

    assert await stage.broker.scan(stage.results, stage.names.results()) == [
        await stage.broker.last(stage.results, subject)
    ]
    info = await stage.broker.stream_info(stage.results)
    assert info is not None
    assert (info.messages, info.last_sequence) == (1, sequence)


async def test_of_five_concurrent_claims_exactly_one_wins(stage: Stage) -> None:
    subject = stage.names.result("default", "d1")
    brokers = [await stage.another() for _ in range(5)]

    outcomes = await asyncio.gather(
        *(
            broker.publish(subject, str(number).encode(), expected_last=0)
            for number, broker in enumerate(brokers)
        ),
        return_exceptions=True,
    )

    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, WrongSequence) for outcome in outcomes) == 4
    stored = await stage.broker.last(stage.results, subject)
    assert stored is not None
    assert stored.body == str(winners[0]).encode()


async def test_many_messages_are_stored_in_their_order(stage: Stage) -> None:
    sent = [Outgoing(stage.names.task("default", f"d{n}"), b"%d" % n) for n in range(600)]

    outcomes = await stage.broker.publish_all(sent, timeout=5.0)

    assert outcomes == [None] * len(sent)
    stored = await stage.broker.scan(stage.tasks, stage.names.tasks())
    assert [message.body for message in stored] == [message.body for message in sent]
    assert await stage.broker.publish_all([], timeout=5.0) == []


async def test_each_of_many_messages_has_its_own_outcome(stage: Stage) -> None:
    """Also where the answers come in another order than the questions."""
    await stage.send("d2")
    known = Outgoing(stage.names.result("default", "d9"), b"", "m1")
    await stage.broker.publish(known.subject, b"", message_id="m1")

    outcomes = await stage.broker.publish_all(
        [
            Outgoing(stage.names.task("default", "d1"), b"first"),
            Outgoing(stage.names.task("default", "d2"), b"there already"),
            Outgoing(stage.names.task("default", "d3"), b"x" * 1_048_577),
            Outgoing("nobody.listens.here", b""),
            known,
            Outgoing(stage.names.task("default", "d4"), b"last", "m2"),
        ],
        timeout=5.0,
    )

    kinds = [type(None), SubjectOccupied, MessageTooLarge, BrokerUnavailable, type(None)]
    assert [type(outcome) for outcome in outcomes] == [*kinds, type(None)]
    assert "nobody.listens.here" in str(outcomes[3])
    stored = await stage.broker.scan(stage.tasks, stage.names.tasks())
    assert [message.body for message in stored][1:] == [b"first", b"last"]


async def test_a_claim_is_followed_up_with_its_own_sequence_only(stage: Stage) -> None:
    subject = stage.names.result("default", "d1")
    claim = await stage.broker.publish(subject, b"claimed", expected_last=0)
    takeover = await stage.broker.publish(subject, b"claimed by 2", expected_last=claim)

    with pytest.raises(WrongSequence):
        await stage.broker.publish(subject, b"success", expected_last=claim)
    await stage.broker.publish(subject, b"success", expected_last=takeover)


async def test_the_expected_sequence_is_that_of_the_subject_not_of_the_stream(
    stage: Stage,
) -> None:
    claim = await stage.broker.publish(stage.names.result("q", "d1"), b"", expected_last=0)
    await stage.broker.publish(stage.names.result("q", "d2"), b"", expected_last=0)

    await stage.broker.publish(stage.names.result("q", "d1"), b"", expected_last=claim)


async def test_a_body_over_the_servers_limit_is_too_large(stage: Stage) -> None:
    with pytest.raises(MessageTooLarge, match="1048577"):
        await stage.broker.publish(stage.names.task("q", "d1"), bytes(1024 * 1024 + 1))

    assert stage.broker.is_connected


async def test_a_body_that_is_over_the_limit_with_its_headers_is_too_large(stage: Stage) -> None:
    """nats-py looks at the body alone, and the server closes the connection for it."""
    with pytest.raises(MessageTooLarge):
        await stage.broker.publish(
            stage.names.task("q", "d1"), bytes(1024 * 1024 - 20), headers={"Airflow-Reason": "why"}
        )

    assert stage.broker.is_connected


async def test_a_body_over_the_streams_limit_is_too_large(stage: Stage) -> None:
    with pytest.raises(MessageTooLarge):
        await stage.broker.publish(stage.names.result("q", "d1"), bytes(2000))


async def test_publishing_where_no_stream_listens_is_unavailable(stage: Stage) -> None:
    """Not an error of its own: a stream without a leader looks the same."""
    with pytest.raises(BrokerUnavailable, match=stage.names.prefix):
        await stage.broker.publish(f"{stage.names.prefix}.nowhere", b"")


async def test_headers_do_no_harm(stage: Stage) -> None:
    subject = stage.names.result("q", "d1")

    await stage.broker.publish(subject, b"body", headers={"Airflow-Reason": "undecodable"})

    stored = await stage.broker.last(stage.results, subject)
    assert stored is not None
    assert stored.body == b"body"


# last, last_of_each, scan


async def test_last_returns_what_the_stream_keeps(stage: Stage) -> None:
    subject = stage.names.result("default", "d1")
    await stage.broker.publish(stage.names.result("default", "d0"), b"other")
    sequence = await stage.broker.publish(subject, b"running")

    stored = await stage.broker.last(stage.results, subject)

    assert stored is not None
    assert (stored.subject, stored.sequence, stored.body) == (subject, sequence, b"running")


async def test_messages_carry_the_servers_time(stage: Stage) -> None:
    subject = stage.names.result("q", "d1")
    await stage.broker.publish(subject, b"")
    await stage.elapse(0.1)
    await stage.broker.publish(stage.names.result("q", "d2"), b"")

    first, second = await stage.broker.scan(stage.results, stage.names.results())
    assert first.at > 1_700_000_000
    assert 0.09 < second.at - first.at < 5


async def test_an_empty_body_is_a_message(stage: Stage) -> None:
    subject = stage.names.result("q", "d1")
    await stage.broker.publish(subject, b"")

    stored = await stage.broker.last(stage.results, subject)
    assert stored is not None
    assert stored.body == b""


async def test_last_of_a_subject_without_messages_is_none(stage: Stage) -> None:
    assert await stage.broker.last(stage.results, stage.names.result("q", "none")) is None


async def test_last_sees_a_queued_task(stage: Stage) -> None:
    await stage.send("d1")

    stored = await stage.broker.last(stage.tasks, stage.names.task("default", "d1"))

    assert stored is not None
    assert stored.body == b"d1"


async def test_last_of_each_takes_any_number_of_subjects_and_leaves_out_missing_ones(
    stage: Stage,
) -> None:
    subjects = [stage.names.result("q", f"d{n}") for n in range(1100)]
    await asyncio.gather(*(stage.broker.publish(s, s.encode()) for s in subjects))
    missing = [stage.names.result("q", f"missing{n}") for n in range(50)]

    found = await stage.broker.last_of_each(stage.results, [*missing, *subjects])

    assert {stored.subject: stored.body for stored in found} == {s: s.encode() for s in subjects}
    assert len(found) == len(subjects)


async def test_occupied_names_the_subjects_with_a_message_many_or_few(stage: Stage) -> None:
    """Many are listed by the server, which counts others under the same queue, too."""
    here = [stage.names.result("a", f"d{n}") for n in range(1100)]
    few = [stage.names.result("b", f"d{n}") for n in range(3)]
    await asyncio.gather(*(stage.broker.publish(s, b"") for s in [*here, *few]))
    missing = [stage.names.result(q, f"missing{n}") for q in ("a", "b", "c") for n in range(50)]
    found = await stage.broker.occupied(stage.results, [*here[:1000], *few[:2], *missing])
    assert found == {*here[:1000], *few[:2]}
    assert await stage.broker.occupied(stage.results, []) == set()


async def test_occupied_sees_what_is_delivered_and_not_what_is_acked(stage: Stage) -> None:
    pulls = await stage.queue()
    subjects = [stage.names.task("default", f"d{n}") for n in range(600)]
    # An empty message would end a pull from another account, which no workload is.
    await asyncio.gather(*(stage.broker.publish(s, b"x") for s in subjects))
    await stage.offers(600)
    first, second = await pulls.take(2)
    await first.ack()

    found = await stage.broker.occupied(stage.tasks, subjects)

    assert found == set(subjects) - {first.subject} >= {second.subject}


async def test_last_of_no_subjects_is_nothing(stage: Stage) -> None:
    assert await stage.broker.last_of_each(stage.results, []) == []


async def test_scan_returns_everything_under_a_wildcard_oldest_first(stage: Stage) -> None:
    subjects = [stage.names.result("a", f"d{n}") for n in range(2100)]
    await asyncio.gather(
        *(stage.broker.publish(s, b"") for s in subjects),
        *(stage.broker.publish(stage.names.result("b", f"d{n}"), b"") for n in range(3)),
    )

    found = await stage.broker.scan(stage.results, f"{stage.names.prefix}.results.a.*")

    assert {stored.subject for stored in found} == set(subjects)
    sequences = [stored.sequence for stored in found]
    assert sequences == sorted(set(sequences))
    assert len(await stage.broker.scan(stage.results, stage.names.results())) == 2103


async def test_a_scan_of_exactly_one_page_ends(stage: Stage) -> None:
    """1000 messages are one page of the server's batched get: the next one is empty."""
    subjects = [stage.names.result("a", f"d{n}") for n in range(1000)]
    await asyncio.gather(*(stage.broker.publish(s, b"") for s in subjects))

    assert len(await stage.broker.scan(stage.results, stage.names.results())) == 1000


async def test_a_scan_of_an_empty_stream_is_empty(stage: Stage) -> None:
    assert await stage.broker.scan(stage.results, stage.names.results()) == []


async def test_a_page_has_messages_with_their_headers_from_a_sequence_on(stage: Stage) -> None:
    names, stream = stage.names, stage.results
    for number in range(1, 6):
        subject = names.result("a", f"d{number}")
        await stage.broker.publish(subject, b"body" * number, headers={"Reason": f"{number} ä"})
    await stage.broker.purge(stream, names.result("a", "d3"))

    found = await stage.broker.page(stream, start=2, most=2, largest=5)

    assert [message.sequence for message in found] == [2, 4]
    assert [message.headers["Reason"] for message in found] == ["2 ä", "4 ä"]
    assert found[0].body == b"bodybo"
    assert len(await stage.broker.page(stream, start=1, most=9)) == 4
    assert await stage.broker.page(stream, start=6, most=9) == []
    info = await stage.broker.stream_info(stream)
    assert info
    assert (info.first_sequence, info.last_sequence) == (1, 5)
    assert info.last_at >= info.first_at > 0


async def test_reading_a_stream_that_is_not_there_is_unavailable(stage: Stage) -> None:
    """Direct gets are answered by the stream itself: without it there is silence, not an error."""
    with pytest.raises(BrokerUnavailable, match="NONE"):
        await stage.broker.last("NONE", "x.y")
    with pytest.raises(BrokerUnavailable, match="NONE"):
        await stage.broker.last_of_each("NONE", ["x.y"])
    for subjects in (["x.y"], [f"x.y{n}" for n in range(600)]):
        with pytest.raises(BrokerUnavailable, match="NONE"):
            await stage.broker.occupied("NONE", subjects)
    with pytest.raises(BrokerUnavailable, match="NONE"):
        await stage.broker.scan("NONE", "x.>")


# remove


async def test_remove_takes_a_queued_message_out_and_says_so(stage: Stage) -> None:
    await stage.send("d1")
    await stage.send("d2")
    subject = stage.names.task("default", "d1")

    assert await stage.broker.remove(stage.tasks, subject)

    assert not await stage.broker.remove(stage.tasks, subject)
    left = await stage.broker.scan(stage.tasks, stage.names.tasks())
    assert [stored.body for stored in left] == [b"d2"]


async def test_a_removed_message_in_flight_frees_its_subject_and_can_still_be_acked(
    stage: Stage,
) -> None:
    pulls = await stage.queue()
    await stage.send("d1")
    delivery = await soon(pulls.wait())

    assert await stage.broker.remove(stage.tasks, delivery.subject)

    await delivery.in_progress()
    await delivery.ack()
    (consumer,) = await stage.broker.consumer_infos(stage.tasks)
    assert consumer.in_flight == 0
    await stage.send("d1")
    assert (await soon(pulls.wait())).body == b"d1"


async def test_removing_from_a_stream_that_is_not_there_says_so(stage: Stage) -> None:
    with pytest.raises(BrokerUnavailable, match="NONE"):
        await stage.broker.remove("NONE", "x")


# stream_info, consumer_infos


async def test_a_stream_that_is_not_there_has_no_info(stage: Stage) -> None:
    assert await stage.broker.stream_info("NONE") is None
    assert await stage.broker.stream_config("NONE") is None


async def test_stream_info_counts_what_is_stored(stage: Stage) -> None:
    await stage.send("d1")
    await stage.send("d2")
    await stage.broker.remove(stage.tasks, stage.names.task("default", "d1"))

    info = await stage.broker.stream_info(stage.tasks)

    assert info is not None
    assert (info.name, info.messages, info.last_sequence) == (stage.tasks, 1, 2)
    assert info.bytes > 0


async def test_consumer_infos_count_pending_and_in_flight(stage: Stage) -> None:
    pulls = await stage.queue("a")
    await stage.queue("b")
    for dispatch_id in ("d1", "d2", "d3"):
        await stage.send(dispatch_id, queue="a")
    await soon(pulls.wait())
    await stage.offers(2, "a")

    infos = {info.name: info for info in await stage.broker.consumer_infos(stage.tasks)}

    assert (infos["a"].pending, infos["a"].in_flight, infos["a"].redelivered) == (2, 1, 0)
    assert (infos["b"].pending, infos["b"].in_flight, infos["b"].waiting) == (0, 0, 0)
    assert (infos["a"].delivered, infos["b"].delivered) == (1, 0)


async def test_consumer_infos_tell_airflows_name_of_the_queue(stage: Stage) -> None:
    config = stage.consumer_config("übergroß", ack_wait=30)
    await stage.broker.create_consumer(
        stage.tasks, config | {"metadata": {"airflow_queue": "übergroß"}}
    )
    await stage.queue("plain")

    infos = await stage.broker.consumer_infos(stage.tasks)

    assert {info.name: info.queue for info in infos} == {
        stage.names.consumer("übergroß"): "übergroß",
        "plain": "plain",
    }


@pytest.mark.parametrize(("seconds", "is_paused"), [(3600, True), (-3600, False)])
async def test_consumer_infos_tell_of_a_pause_as_long_as_it_lasts(
    stage: Stage, seconds: int, *, is_paused: bool
) -> None:
    info = await stage.broker.stream_info(stage.tasks)
    assert info
    until = math.floor(info.time) + seconds
    config = stage.consumer_config("a", ack_wait=30)
    config["pause_until"] = datetime.fromtimestamp(until, UTC).isoformat()
    await stage.broker.create_consumer(stage.tasks, config)

    (found,) = await stage.broker.consumer_infos(stage.tasks)

    assert found.paused_until == (until if is_paused else 0.0)
    await stage.send("d1", queue="a")
    await stage.offers(1, "a")
    pulls = await stage.pulls(stage.broker, "a")
    assert len(await pulls.take(1)) == (0 if is_paused else 1)


async def test_a_consumer_is_paused_and_resumed_with_deliveries_in_hand(stage: Stage) -> None:
    """Neither disturbs them, and a pull that waits gets its message as soon as the pause ends."""
    pulls = await stage.queue("a")
    await stage.send("d1", queue="a")
    held = await soon(pulls.wait())
    name = stage.names.consumer("a")
    info = await stage.broker.stream_info(stage.tasks)
    assert info
    until = math.floor(info.time) + 3600

    await stage.broker.pause_consumer(stage.tasks, name, until)

    await stage.send("d2", queue="a")
    await stage.offers(1, "a")
    (found,) = await stage.broker.consumer_infos(stage.tasks)
    assert (found.paused_until, found.pending, found.in_flight) == (until, 1, 1)
    await held.in_progress()
    await held.ack()
    assert await pulls.take(1) == []
    waiting = asyncio.ensure_future(pulls.wait())
    await stage.broker.pause_consumer(stage.tasks, name, 0)
    assert (await soon(waiting, 30)).subject == stage.names.task("a", "d2")
    (found,) = await stage.broker.consumer_infos(stage.tasks)
    assert found.paused_until == 0


async def test_a_pause_outlives_a_restart_of_the_server(fragile_stage: Stage) -> None:
    await fragile_stage.queue("a")
    name = fragile_stage.names.consumer("a")
    await fragile_stage.broker.pause_consumer(fragile_stage.tasks, name, 4e9)

    await fragile_stage.restart_server()
    await fragile_stage.broker.ready(30)

    (found,) = await fragile_stage.broker.consumer_infos(fragile_stage.tasks)
    assert found.paused_until == 4e9


async def test_no_consumer_is_paused_that_is_not_there(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.broker.pause_consumer(stage.tasks, "missing", 4e9)


async def test_a_deleted_consumer_leaves_its_messages(stage: Stage) -> None:
    await stage.queue("a")
    await stage.send("d1", queue="a")
    name = stage.names.consumer("a")

    await stage.broker.delete_consumer(stage.tasks, name)

    assert await stage.broker.consumer_infos(stage.tasks) == []
    with pytest.raises(NotFound):
        await stage.broker.delete_consumer(stage.tasks, name)
    again = await stage.queue("a")
    assert (await soon(again.wait())).subject == stage.names.task("a", "d1")


async def test_consumer_infos_list_many_queues(stage: Stage) -> None:
    """The server answers in pages of 256."""
    for number in range(300):
        config = stage.consumer_config(f"q{number}", ack_wait=30)
        await stage.broker.create_consumer(stage.tasks, config)

    infos = await stage.broker.consumer_infos(stage.tasks)

    assert {info.name for info in infos} == {f"q{n}" for n in range(300)}
    assert len(infos) == 300


# How full a stream is, and emptying it


async def test_subjects_are_counted(stage: Stage) -> None:
    names = stage.names
    for queue, id_ in (("a", "d1"), ("a", "d2"), ("b", "d3")):
        await stage.broker.publish(names.result(queue, id_), b"report")

    found = await stage.broker.subjects(stage.results, names.results("a"))

    assert found.is_whole
    assert found.messages == {names.result("a", "d1"): 1, names.result("a", "d2"): 1}


async def test_a_purge_removes_what_is_under_a_subject_and_nothing_else(stage: Stage) -> None:
    names = stage.names
    for queue, id_ in (("a", "d1"), ("a", "d2"), ("b", "d3")):
        await stage.broker.publish(names.result(queue, id_), b"report")

    assert await stage.broker.purge(stage.results, names.results("a")) == 2
    assert await stage.broker.purge(stage.results, names.results("a")) == 0

    left = await stage.broker.scan(stage.results, names.results())
    assert [message.subject for message in left] == [names.result("b", "d3")]
    assert await stage.broker.last(stage.results, names.result("a", "d1")) is None


async def test_what_does_not_exist_is_neither_counted_nor_purged(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await stage.broker.subjects("NOTHING", ">")
    with pytest.raises(NotFound):
        await stage.broker.purge("NOTHING", ">")


async def test_the_account_tells_how_full_it_is(stage: Stage) -> None:
    before = await stage.broker.usage()
    await stage.broker.publish(stage.names.result("a", "d1"), b"x" * 900)

    after = await stage.broker.usage()

    assert after.used >= before.used + 900
    assert after.limit == -1


async def test_a_stream_tells_its_size(stage: Stage) -> None:
    config = await stage.broker.stream_config(stage.results)
    assert config is not None
    await stage.broker.update_stream(config | {"max_bytes": 1_000_000})

    info = await stage.broker.stream_info(stage.results)

    assert info is not None
    assert info.max_bytes == 1_000_000
