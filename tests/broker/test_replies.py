"""The meaning of JetStream's answers: each error code, and every field that is read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from nats_executor.broker.port import ConsumerInfo, Stored, Usage
from nats_executor.broker.quorum import Replication
from nats_executor.broker.replies import (
    AckSubject,
    api_error,
    consumer_info,
    header_bytes,
    sequence_in,
    stored,
    stream_info,
    timestamp,
    unheard,
    usage,
    why_unstored,
)
from nats_executor.errors import (
    BrokerError,
    BrokerUnavailable,
    LimitReached,
    MessageTooLarge,
    NoQuorum,
    NotFound,
    StreamFull,
    SubjectOccupied,
    TopologyMismatch,
    WrongSequence,
)
from nats_executor.wire.names import BAND, QUEUE


@dataclass
class Message:
    data: bytes = b""
    headers: dict[str, str] | None = None
    subject: str = "s"
    reply: str = field(default="")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0, BrokerUnavailable),
        (1, BrokerUnavailable),
        (10002, StreamFull),
        (10005, BrokerUnavailable),
        (10008, NoQuorum),
        (10012, TopologyMismatch),
        (10014, NotFound),
        (10023, StreamFull),
        (10028, BrokerUnavailable),
        (10037, NotFound),
        (10026, LimitReached),
        (10027, LimitReached),
        (10047, StreamFull),
        (10052, TopologyMismatch),
        (10054, MessageTooLarge),
        (10058, TopologyMismatch),
        (10059, NotFound),
        (10065, TopologyMismatch),
        (10071, WrongSequence),
        (10074, BrokerUnavailable),
        (10077, StreamFull),
        (10099, TopologyMismatch),
        (10100, TopologyMismatch),
        (10148, TopologyMismatch),
    ],
)
def test_each_code_has_its_error(code: int, kind: type[BrokerError]) -> None:
    found = api_error("what", {"err_code": code, "description": "why"})

    assert type(found) is kind
    if kind is not NoQuorum:
        assert str(found).startswith(f"what: why (NATS error {code})")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (10002, "or raise max_file of the account in the servers' configuration"),
        (10023, "or raise max_file_store in the servers' configuration"),
        (10026, "nats-server 2.15 and later allow 1000 where none is set"),
        (10027, "a deployment has 6, and each team has as many"),
        (10047, "raise [nats_executor] max_stream_bytes or make room on the server"),
        (10054, "make it smaller"),
        (10077, "raise [nats_executor] max_stream_bytes or make room on the server"),
    ],
)
def test_what_people_can_mend_comes_with_a_remedy(code: int, remedy: str) -> None:
    assert str(api_error("what", {"err_code": code})).endswith(remedy)
    assert ";" not in str(api_error("what", {"err_code": 10059}))


def test_an_error_without_anything_is_told() -> None:
    assert str(api_error("what", {})) == "what: unknown error (NATS error 0)"


def test_an_occupied_subject_is_known_by_its_text() -> None:
    full = {"err_code": 10077, "description": "maximum messages per subject exceeded"}

    assert type(api_error("what", full)) is SubjectOccupied
    assert type(api_error("what", full | {"err_code": 10047})) is StreamFull
    assert type(api_error("what", {"err_code": 10077, "description": "disk"})) is StreamFull


INSUFFICIENT = "no suitable peers for placement, insufficient storage"


@pytest.mark.parametrize(
    ("error", "limits"),
    [
        ({"err_code": 10047}, "raise max_file_store of the servers or max_file of the account"),
        ({"err_code": 10028}, "raise max_memory_store of the servers or max_memory of the account"),
        ({"err_code": 10005, "description": INSUFFICIENT}, "raise max_file_store of the servers"),
    ],
)
@pytest.mark.parametrize("size", [1, 512])
def test_a_size_that_cannot_be_set_aside_is_told(
    error: dict[str, Any], limits: str, size: int
) -> None:
    found = api_error("$JS.API.STREAM.CREATE.AIRFLOW_TASKS", error, replicas=3, size=size)

    assert type(found) is StreamFull
    assert str(found).startswith(
        f"[nats_executor] max_stream_bytes = {size}: NATS has no room to set {size} bytes aside "
        "for stream AIRFLOW_TASKS ("
    )
    assert f"set a smaller number, or {limits}" in str(found)


@pytest.mark.parametrize("size", [0, -1])
def test_a_stream_without_a_size_has_no_room_to_set_aside(size: int) -> None:
    found = api_error("STREAM.CREATE.S", {"err_code": 10047, "description": "why"}, size=size)

    assert "set aside" not in str(found)
    assert "bytes aside" not in str(found)


@pytest.mark.parametrize(
    ("stream", "option"),
    [
        ("AIRFLOW_TASKS", "max_stream_bytes"),
        ("AIRFLOW_RESULTS", "max_results_bytes"),
        ("AIRFLOW_DEAD_LETTERS", "max_dead_letters_bytes"),
        ("OBJ_airflow_logs", "max_log_bucket_bytes"),
    ],
)
def test_each_stream_has_its_option(stream: str, option: str) -> None:
    text = str(api_error(f"STREAM.CREATE.{stream}", {"err_code": 10047}, size=5))

    assert text.startswith(f"[nats_executor] {option} = 5: ")


def test_a_stream_without_an_option_is_told_without_one() -> None:
    text = str(api_error("STREAM.CREATE.KV_airflow_workers", {"err_code": 10047}, size=5))

    assert text.startswith("NATS has no room to set 5 bytes aside for stream KV_airflow_workers")
    assert "smaller number" not in text


@pytest.mark.parametrize(
    ("code", "replicas", "kind"),
    [
        (10005, 3, TopologyMismatch),
        (10074, 3, TopologyMismatch),
        (10005, 0, BrokerUnavailable),
        (10074, 0, BrokerUnavailable),
    ],
)
def test_too_few_servers_matter_to_a_stream_that_is_made(
    code: int, replicas: int, kind: type[BrokerError]
) -> None:
    found = api_error("what", {"err_code": code}, replicas=replicas, size=9)

    assert type(found) is kind


def ack(**values: Any) -> Message:
    return Message(json.dumps(values).encode())


def test_a_confirmation_has_a_sequence_or_an_error() -> None:
    assert sequence_in("s", ack(seq=7)) == 7
    assert why_unstored("s", ack(seq=7)) is None
    with pytest.raises(WrongSequence):
        sequence_in("s", ack(error={"err_code": 10071}))
    assert isinstance(why_unstored("s", ack(error={"err_code": 10071})), WrongSequence)


def test_a_subject_that_no_stream_takes_is_told() -> None:
    gone = BrokerUnavailable("gone")

    assert why_unstored("s", gone) is gone
    assert "no stream takes s" in str(why_unstored("s", Message(headers={"Status": "503"})))
    assert why_unstored("s", Message(b'{"seq": 1}', {"Status": "200"})) is None
    assert why_unstored("s", Message(b'{"seq": 1}', {"Other": "503"})) is None


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        (None, 0),
        ({}, 0),
        ({"a": "b"}, len(b"NATS/1.0\r\na: b\r\n\r\n")),
        ({"a": "b", "größe": "ü"}, len("NATS/1.0\r\na: b\r\ngröße: ü\r\n\r\n".encode())),
    ],
)
def test_headers_have_a_length(headers: dict[str, str] | None, size: int) -> None:
    assert header_bytes(headers) == size


HEADERS = {
    "Nats-Subject": "airflow.tasks.a.d",
    "Nats-Sequence": "12",
    "Nats-Time-Stamp": "1970-01-01T00:00:01.5Z",
}


def test_a_stored_message_is_read_and_cut_one_byte_after_its_bound() -> None:
    assert stored(Message(b"abc", HEADERS), 3) == Stored(
        subject="airflow.tasks.a.d", sequence=12, body=b"abc", at=1.5
    )
    for body in (b"abcd", b"abcde"):
        cut = stored(Message(body, HEADERS), 3)
        assert cut is not None
        assert cut.body == b"abcd"


@pytest.mark.parametrize("status", ["204", "404"])
def test_there_may_be_no_message(status: str) -> None:
    assert stored(Message(headers={"Status": status})) is None


def test_another_status_is_a_failure() -> None:
    with pytest.raises(BrokerUnavailable, match="direct get: 408 Bad"):
        stored(Message(headers={"Status": "408", "Description": "Bad"}))


INFO: dict[str, Any] = {
    "ts": "1970-01-01T00:00:09Z",
    "created": "1970-01-01T00:00:01Z",
    "state": {
        "messages": 1,
        "bytes": 2,
        "first_seq": 2,
        "last_seq": 3,
        "first_ts": "1970-01-01T00:00:02Z",
        "last_ts": "1970-01-01T00:00:08Z",
    },
    "config": {"num_replicas": 3, "max_bytes": 7, "metadata": {"_nats.ver": "2.15.1"}},
}


def test_a_streams_state_is_read() -> None:
    found = stream_info("S", INFO)

    assert (found.time, found.created, found.first_at, found.replicas) == (9.0, 1.0, 2.0, 3)
    assert (found.first_sequence, found.last_sequence, found.last_at) == (2, 3, 8.0)
    assert (found.max_bytes, found.server_version) == (7, "2.15.1")
    assert found.replication == Replication()
    assert timestamp("1970-01-01T00:00:01.25Z") == 1.25


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": {}}])
def test_an_older_server_names_neither_a_limit_nor_itself(metadata: dict[str, Any]) -> None:
    found = stream_info("S", INFO | {"config": {"num_replicas": 1, **metadata}})

    assert (found.max_bytes, found.server_version) == (-1, "")


def tier(used: int, limit: int, kind: str = "storage") -> dict[str, Any]:
    return {kind: used, "limits": {f"max_{kind}": limit}}


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ({}, Usage(0, -1)),
        ({"storage": 5}, Usage(5, -1)),
        (tier(5, 10), Usage(5, 10)),
        (tier(5, 0), Usage(5, 0)),
        (tier(5, 10, "memory"), Usage(5, 10)),
        ({"storage": 1, "memory": 5, "limits": {"max_storage": 10, "max_memory": 6}}, Usage(5, 6)),
        ({"tiers": {"R1": tier(1, 10), "R3": tier(2, 3)}}, Usage(2, 3)),
        ({"tiers": {"R1": tier(9, 10), "R3": tier(2, 30)}}, Usage(9, 10)),
        ({"tiers": {"R1": tier(9, 0), "R3": tier(2, 30)}}, Usage(2, 30)),
        ({"tiers": {"R1": tier(9, -1), "R3": tier(1, 1)}}, Usage(1, 1)),
        ({"tiers": None, "storage": 4, "limits": None}, Usage(4, -1)),
        # One byte of one: full, as a limit is a limit from the first byte on.
        ({"tiers": {"R1": tier(1, 2), "R3": tier(1, 1)}}, Usage(1, 1)),
    ],
)
def test_the_fullest_part_of_an_account_counts(response: dict[str, Any], found: Usage) -> None:
    assert usage(response)._replace(has_tiers=False) == found


def counted(streams: int, most: int, consumers: int) -> dict[str, Any]:
    return {"streams": streams, "limits": {"max_streams": most, "max_consumers": consumers}}


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ({}, (0, -1, -1)),
        (counted(6, 20, 2000), (6, 20, 2000)),
        (counted(6, -1, -1), (6, -1, -1)),
        (counted(1, 1, 1), (1, 1, 1)),
        ({"tiers": {"R1": counted(9, 10, 50), "R3": counted(8, 20, 40)}}, (9, 10, 40)),
        ({"tiers": {"R1": counted(9, 20, -1), "R3": counted(8, 10, 70)}}, (8, 10, 70)),
        ({"tiers": {"R1": counted(9, -1, 0), "R3": counted(1, 10, 1)}}, (1, 10, 1)),
        ({"tiers": {"R1": counted(2, 0, 3), "R3": counted(1, 10, 2)}}, (1, 10, 2)),
    ],
)
def test_the_limits_of_an_account_are_read(
    response: dict[str, Any], found: tuple[int, int, int]
) -> None:
    read = usage(response)

    assert (read.streams, read.max_streams, read.max_consumers) == found
    assert read.has_tiers is ("tiers" in response)


def entry(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "num_pending": 1,
        "num_ack_pending": 2,
        "num_redelivered": 3,
        "num_waiting": 4,
    }
    counts["delivered"] = {"consumer_seq": 5, "stream_seq": 6}
    return {"name": "c", "config": config, **counts, **more}


@pytest.mark.parametrize(
    ("metadata", "queue", "band"),
    [
        ({"airflow_queue": "größe", "airflow_band": "2"}, "größe", 2),
        ({"airflow_queue": "a"}, "a", 0),
        ({"airflow_queue": "a", "airflow_band": "-1"}, "a", 0),
        ({"airflow_queue": "a", "airflow_band": "x"}, "a", 0),
        ({}, "c", 0),
        (None, "c", 0),
    ],
)
def test_a_consumer_is_read(metadata: dict[str, str] | None, queue: str, band: int) -> None:
    names = {"airflow_queue": QUEUE, "airflow_band": BAND}
    made = None if metadata is None else {names[k]: v for k, v in metadata.items()}

    assert consumer_info(entry({"metadata": made})) == ConsumerInfo(
        name="c",
        queue=queue,
        band=band,
        pending=1,
        in_flight=2,
        redelivered=3,
        waiting=4,
        paused_until=0.0,
        delivered=5,
    )


def test_only_a_pause_that_lasts_counts() -> None:
    config = {"pause_until": "1970-01-01T00:00:09Z"}

    assert consumer_info(entry(config, paused=True)).paused_until == 9.0
    assert consumer_info(entry(config, paused=False)).paused_until == 0.0
    assert consumer_info(entry(config)).paused_until == 0.0
    assert consumer_info(entry({}, paused=True)).paused_until == 0.0


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.ACK.AIRFLOW_TASKS.a.2.30.4.1500000000.6",
        "$JS.ACK.hub.HASH.AIRFLOW_TASKS.a.2.30.4.1500000000.6",
        "$JS.ACK.hub.HASH.AIRFLOW_TASKS.a.2.30.4.1500000000.6.token",
    ],
)
def test_an_ack_subject_tells_of_its_delivery(subject: str) -> None:
    assert AckSubject.parse(subject) == AckSubject(2, 30, 4, 1.5)


@pytest.mark.parametrize("code", [10047, 10028, 10099, 10004, 10006])
def test_only_one_code_has_a_text_that_says_more(code: int) -> None:
    """By another code neither an occupied subject nor a want of room is meant."""
    occupied = {"err_code": code, "description": "maximum messages per subject exceeded"}
    crowded = {"err_code": code, "description": INSUFFICIENT}

    assert type(api_error("what", occupied)) is not SubjectOccupied
    is_room = code in {10047, 10028}
    assert ("set 9 bytes aside" in str(api_error("S", crowded, size=9))) is is_room


def test_the_first_of_several_options_is_named() -> None:
    text = str(api_error("STREAM.CREATE.X_DEAD_LETTERS", {"err_code": 10047}, size=5))

    assert text.startswith("[nats_executor] max_dead_letters_bytes = 5: ")


def test_an_api_without_an_answer_is_told_with_its_domain() -> None:
    assert "JetStream domain 'hub' does not answer INFO" in str(unheard("INFO", "hub"))
    assert "NATS has no JetStream that answers INFO" in str(unheard("INFO", None))
    assert "NATS has no JetStream that answers INFO" in str(unheard("INFO", ""))
