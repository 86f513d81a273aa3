"""The benchmark's arithmetic: what counts as measured, as met, and as missing."""

from __future__ import annotations

import json

import pytest

from tests.bench.goals import KEYS, Goal, Key
from tests.bench.report import (
    INCOMPLETE,
    MET,
    MISSED,
    Result,
    as_json,
    as_table,
    exit_code,
    percentile,
    results,
)
from tests.bench.sample import Sample

KEY = Key("k", "m", "what", "ms", ("nats", "celery"), units={"rss": "MB"})
HUNDRED = [float(n) for n in range(1, 101)]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.5, 3),
        ([3.0], 0.99, 3),
        ([2.0, 1.0], 0.5, 1),
        ([1.0, 2.0, 3.0], 0.5, 2),
        (HUNDRED, 0.5, 50),
        (HUNDRED, 0.99, 99),
        (HUNDRED[::-1], 1.0, 100),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("goal", "samples", "value", "is_met"),
    [
        (Goal("nats", 5), {"nats": [4, 5, 90]}, 5, True),
        (Goal("nats", 4.9), {"nats": [4, 5, 90]}, 5, False),
        (Goal("nats", 5, is_floor=True), {"nats": [4, 5, 90]}, 5, True),
        (Goal("nats", 5.1, is_floor=True), {"nats": [4, 5, 90]}, 5, False),
        (Goal("nats", 98, "p99"), {"nats": HUNDRED}, 99, False),
        (Goal("nats", 100, "max"), {"nats": HUNDRED}, 100, True),
        (Goal("nats/celery", 3, is_floor=True), {"nats": [1, 9, 100], "celery": [3]}, 3, True),
        (Goal("nats/celery", 0.8), {"nats": [9], "celery": [10, 10, 1]}, 0.9, False),
        (Goal("nats", 5), {"celery": [1]}, None, None),
        (Goal("nats", 5), {"nats": []}, None, None),
        (Goal("nats/celery", 5), {"nats": [1]}, None, None),
        (Goal("nats/celery", 5), {"nats": [1], "celery": [0]}, None, None),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(
    goal: Goal, samples: dict[str, list[float]], value: float | None, is_met: bool | None
) -> None:
    key = Key("k", "m", "what", "ms", ("nats",), (goal,))
    (judged,) = Result(key, samples).goals
    assert (judged.value, judged.is_met) == (value, is_met)


def measured(*values: float, key: str = "dispatch_per_s_10k", by: str = "nats") -> list[Sample]:
    return [Sample(key, by, value) for value in values]


FAST = [*measured(900), *measured(100, by="celery"), *measured(1000, by="bare")]
SLOW = [*measured(900), *measured(300, by="celery"), *measured(1000, by="bare")]


@pytest.mark.parametrize(
    ("samples", "missing", "code"),
    [
        (FAST, {}, MET),
        (SLOW, {}, MISSED),
        (measured(900), {}, INCOMPLETE),
        (measured(900), {"celery": "no Redis"}, INCOMPLETE),
        # Measured before it broke: figures, but not all that was asked for.
        (FAST, {"celery": "broke in round 2"}, INCOMPLETE),
        # What is missed stays missed, whatever else is missing.
        (SLOW, {"bare": "broke in round 2"}, MISSED),
        ([], {}, INCOMPLETE),
    ],
)
def test_the_exit_code_tells_missed_from_missing(
    samples: list[Sample], missing: dict[str, str], code: int
) -> None:
    whole = results(samples, ["dispatch_per_s_10k"], {"dispatch_per_s_10k": missing})
    assert exit_code(whole) == code


def test_a_key_without_goals_is_complete_once_there_is_anything() -> None:
    assert exit_code(results(measured(1, key="fleet_1000"), ["fleet_1000"], {})) == MET
    assert exit_code(results([], ["fleet_1000"], {})) == INCOMPLETE


def test_one_key_that_misses_spoils_the_run() -> None:
    worse = measured(200, key="slot_release_ms")
    whole = results([*FAST, *worse], ["dispatch_per_s_10k", "slot_release_ms"], {})
    assert exit_code(whole) == MISSED


def test_what_was_not_measured_is_named_with_its_remedy() -> None:
    reasons = {"dispatch_per_s_10k": {"celery": "no Redis: apt-get install redis-server"}}
    (result,) = results(measured(900), ["dispatch_per_s_10k"], reasons)
    assert result.missing == {
        "celery": "no Redis: apt-get install redis-server",
        "bare": "not measured",
    }
    table = as_table([result])
    assert "dispatch_per_s_10k, celery: no Redis: apt-get install redis-server" in table
    assert table.count("not measured") >= 2


def test_ratios_are_made_of_what_has_one_unit() -> None:
    key = Key("k", "m", "what", "ms", ("nats", "celery", "rss-1"), units={"rss": "MB"})
    result = Result(key, {"nats": [2.0], "celery": [8.0], "rss-1": [4.0]})
    assert result.ratios == {"nats/celery": 0.25}


def test_the_longest_beginning_decides_on_a_unit() -> None:
    key = Key("k", "m", "what", "ms", (), units={"rss": "MB", "rss-share": "%"})
    assert [key.unit_of(c) for c in ("nats", "rss-1", "rss-share-1")] == ["ms", "MB", "%"]


def test_the_json_form_is_for_scripts() -> None:
    whole = results(FAST, ["dispatch_per_s_10k"], {})
    document = json.loads(json.dumps(as_json({"cpus": 2}, whole)))
    assert document["environment"] == {"cpus": 2}
    entry = document["keys"]["dispatch_per_s_10k"]
    assert (entry["unit"], entry["better"], entry["missing"]) == ("workloads/s", "higher", {})
    assert entry["contenders"]["nats"] == {
        "unit": "workloads/s", "median": 900, "min": 900, "max": 900, "n": 1, "samples": [900],
    }  # fmt: skip
    assert entry["ratios"] == {"nats/celery": 9, "nats/bare": 0.9}
    assert entry["goals"][0] == {
        "of": "nats/celery", "statistic": "median", "bound": ">=", "limit": 8, "value": 9,
        "is_met": True,
    }  # fmt: skip


def test_many_samples_get_percentiles_and_are_thinned() -> None:
    samples = measured(*(float(n) for n in range(3000)), key="idle_sync_ms_10k")
    (result,) = results(samples, ["idle_sync_ms_10k"], {})
    figures = as_json({}, [result])["keys"]["idle_sync_ms_10k"]["contenders"]["nats"]
    assert (figures["n"], figures["p50"], figures["p99"]) == (3000, 1499, 2969)
    assert figures["samples"] == [float(n) for n in range(0, 3000, 3)]


def test_the_table_shows_figures_ratios_and_verdicts() -> None:
    table = as_table(results(SLOW, ["dispatch_per_s_10k"], {}))
    assert "nats/celery >= 8" in table
    assert "MISSED" in table
    assert "nats/bare >= 0.7" in table
    assert "not measured" not in table


def test_the_keys_are_those_of_the_goals() -> None:
    for name, key in KEYS.items():
        named = {part for goal in key.goals for part in goal.of.split("/")}
        assert named <= set(key.contenders), name
        for goal in key.goals:
            above, _, below = goal.of.partition("/")
            assert not below or key.unit_of(above) == key.unit_of(below), name
