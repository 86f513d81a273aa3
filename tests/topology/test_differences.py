"""Differences of streams: which count, which may be mended in place, and what that would drop."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.port import StreamInfo
from nats_executor.broker.quorum import Replication
from nats_executor.errors import TopologyMismatch
from nats_executor.topology.drift import (
    FIXED,
    Drift,
    bearable,
    compare,
    matches,
    overflowing,
    require_changeable,
    require_no_loss,
    with_additions,
    with_state,
)


@pytest.mark.parametrize(
    ("found", "wanted", "is_same"),
    [
        (1, 1, True),
        (1, 2, False),
        (2, 1, False),
        (None, 1, False),
        # NATS leaves out what is false.
        (None, False, True),
        (None, True, False),
        (True, False, False),
        (None, "", False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 2}, {"a": 1}, False),
        (None, {"a": 1}, False),
        ([("a", 1)], {"a": 1}, False),
        (["a"], ["a"], True),
        (["b", "a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["b"], ["a"], False),
        (None, ["a"], False),
        ("a", ["a"], False),
    ],
)
def test_a_setting_is_as_it_should_be(found: Any, wanted: Any, is_same: bool) -> None:
    assert matches(found, wanted) is is_same


def test_what_is_not_as_it_should_be_is_named_and_some_of_it_has_a_remedy() -> None:
    existing = {"retention": "limits", "max_age": 5, "max_msgs": 7, "added": 1}
    wanted = {"retention": "workqueue", "max_age": 6, "max_msgs": 7}

    assert compare("stream A", existing, wanted, "make it anew") == [
        Drift("stream A", "retention", "limits", "workqueue", remedy="make it anew"),
        Drift("stream A", "max_age", 5, 6),
    ]
    assert compare("stream A", {}, {}, "make it anew") == []
    assert compare("stream A", None, wanted, "x") == [
        Drift("stream A", "existence", None, "exists")
    ]


@pytest.mark.parametrize("setting", sorted(FIXED))
def test_each_fixed_setting_has_the_remedy(setting: str) -> None:
    assert compare("a", {setting: 1}, {setting: 2}, "why")[0].remedy == "why"


def test_what_others_have_added_stays() -> None:
    existing = {"subjects": ["x", "a"], "metadata": {"m": "1", "n": "2"}, "max_age": 1, "extra": 3}
    wanted = {"subjects": ["a", "b"], "metadata": {"n": "9"}, "max_age": 5}

    assert with_additions(existing, wanted) == {
        "subjects": ["a", "b", "x"],
        "metadata": {"m": "1", "n": "9"},
        "max_age": 5,
        "extra": 3,
    }


@pytest.mark.parametrize("nothing", [{}, {"subjects": None, "metadata": None}])
def test_where_nothing_was_it_is_as_wanted(nothing: dict[str, Any]) -> None:
    wanted = {"subjects": ["a"], "metadata": {"n": "9"}}

    assert with_additions(nothing, wanted) == wanted
    assert with_additions({"subjects": ["x"], "metadata": {"m": "1"}}, {"a": 1}) == {
        "subjects": ["x"],
        "metadata": {"m": "1"},
        "a": 1,
    }


def info(*, is_clustered: bool = False, **state: Any) -> StreamInfo:
    made = {"messages": 10, "bytes": 1000, "time": 1000.0, "first_at": 900.0} | state
    return StreamInfo(
        "A",
        made["messages"],
        made["bytes"],
        made["messages"],
        time=made["time"],
        created=0.0,
        first_at=made["first_at"],
        replicas=1,
        replication=Replication(is_clustered=is_clustered),
        max_bytes=-1,
        server_version="",
    )


OLD, NEW = {"discard": "old"}, {"discard": "new"}
OVERFLOW = "the oldest messages; 1000 bytes are stored"


@pytest.mark.parametrize(
    ("wanted", "config", "drops"),
    [
        (999, OLD, OVERFLOW),
        (1000, OLD, ""),
        (1001, OLD, ""),
        (1, OLD, OVERFLOW),
        (0, OLD, ""),
        (-1, OLD, ""),
        (999, NEW, ""),
        (999, {"discard": "a"}, ""),
        (999, {"discard": "z"}, ""),
    ],
)
def test_a_smaller_size_drops_the_oldest_where_they_make_room(
    wanted: int, config: dict[str, Any], drops: str
) -> None:
    assert with_state(Drift("A", "max_bytes", 5000, wanted), info(), config).drops == drops


@pytest.mark.parametrize(("wanted", "drops"), [(9, True), (10, False), (11, False), (-1, False)])
def test_a_smaller_number_drops_the_oldest(wanted: int, drops: bool) -> None:
    found = with_state(Drift("A", "max_msgs", 50, wanted), info(), NEW).drops

    assert found == ("the oldest messages; 10 messages are stored" if drops else "")


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("wanted", "messages", "drops"),
    [
        (99 * SECOND, 10, "messages that are older than 99 s; the oldest one is 100 s old"),
        (100 * SECOND - 1, 10, "messages that are older than 100 s; the oldest one is 100 s old"),
        (100 * SECOND, 10, ""),
        (101 * SECOND, 10, ""),
        (99 * SECOND, 1, "messages that are older than 99 s; the oldest one is 100 s old"),
        (99 * SECOND, 0, ""),
        (101 * SECOND, 0, ""),
    ],
)
def test_a_smaller_age_drops_what_is_older(wanted: int, messages: int, drops: str) -> None:
    drift = Drift("A", "max_age", 5000, wanted)

    assert with_state(drift, info(messages=messages), OLD).drops == drops


def test_no_limit_drops_nothing() -> None:
    assert overflowing(0, 5, "bytes") == ""
    assert overflowing(1, 2, "bytes") == "the oldest messages; 2 bytes are stored"


@pytest.mark.parametrize(
    ("wanted", "is_clustered", "has_remedy"),
    [(3, False, True), (2, False, True), (1, False, False), (0, False, False), (3, True, False)],
)
def test_more_replicas_need_a_cluster(wanted: int, is_clustered: bool, has_remedy: bool) -> None:
    found = with_state(Drift("A", "num_replicas", 1, wanted), info(is_clustered=is_clustered), OLD)

    assert ("is in no cluster" in found.remedy) is has_remedy
    assert found.drops == ""


@pytest.mark.parametrize(
    "setting", ["aaa", "max_ageless", "max_b", "max_bytesize", "max_n", "nun", "num_s", "zzz"]
)
def test_any_other_setting_is_what_it_is(setting: str) -> None:
    drift = Drift("A", setting, 5, 3)

    assert with_state(drift, info(), OLD) == drift


@pytest.mark.parametrize(
    ("drift", "text"),
    [
        (Drift("A", "zzz", 2, 1), "A: zzz is 2, should be 1: run `airflow nats setup`"),
        (Drift("A", "aaa", 2, 1), "A: aaa is 2, should be 1: run `airflow nats setup`"),
        (Drift("A", "aaa", "x", None), "A: aaa is 'x', should be None: run `airflow nats setup`"),
        (
            Drift("A", "num_replicas", 0, 1),
            "A has 0 replicas, [nats_executor] replicas is 1: run `airflow nats setup`",
        ),
        (
            Drift("A", "num_replicas", None, 0),
            "A has None replicas, [nats_executor] replicas is 0: run `airflow nats setup`",
        ),
        (
            Drift("A", "num_replicas", 2, 2),
            "A has 2 replicas, [nats_executor] replicas is 2: run `airflow nats setup`",
        ),
    ],
)
def test_a_difference_is_told_with_its_advice(drift: Drift, text: str) -> None:
    assert drift.advice == text


DROPS = Drift("A", "max_age", 9, 5, drops="old ones")
FIRM = Drift("A", "retention", "limits", "workqueue", remedy="make it anew")
PLAIN = Drift("A", "max_age", 5, 9)
MISSING = Drift("A", "existence", None, "exists")
WAITING = Drift("A", "max_waiting", 1, 2, remedy="why")


def test_caution_is_for_what_drops_or_cannot_be_changed() -> None:
    assert PLAIN.caution == ""
    assert DROPS.caution == "changing it drops old ones"
    assert FIRM.caution == "that cannot be changed in place: make it anew"


def test_what_cannot_be_changed_is_refused() -> None:
    require_changeable([PLAIN, DROPS, MISSING])
    with pytest.raises(TopologyMismatch, match="cannot be changed in place: make it anew"):
        require_changeable([PLAIN, FIRM])


def test_what_drops_messages_is_refused() -> None:
    require_no_loss([PLAIN, FIRM, MISSING])
    with pytest.raises(TopologyMismatch, match=r"changing it drops old ones\. Nothing was changed"):
        require_no_loss([PLAIN, DROPS])


def test_an_executor_bears_what_another_release_wants() -> None:
    replicas = Drift("A", "num_replicas", 1, 3, remedy="no cluster")

    assert bearable([MISSING, WAITING, PLAIN, replicas]) == [WAITING, PLAIN, replicas]
    with pytest.raises(TopologyMismatch, match="retention"):
        bearable([WAITING, FIRM])
