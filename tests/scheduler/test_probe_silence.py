"""Why a probe has no end, each cause with its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nats_executor.fleet.presences import Seen
from nats_executor.fleet.queues import UNTIL_RESUMED
from nats_executor.scheduler.probe_silence import UnendedProbe, in_probe_words, nothing_known
from nats_executor.wire.messages import Presence
from nats_executor.wire.names import Lane
from tests.support.fixtures import settings_for

SETTINGS = settings_for("nats://nats-1:4222", worker_lost_seconds=60)


def worker(name: str = "w1", age: float = 1.0, **changes: Any) -> Seen:
    facts: dict[str, Any] = {
        "worker": f"{name}.1", "name": name, "host": "h", "pid": 7, "queues": ["gpu"],
        "concurrency": 4, "running": 1, "draining": False, "started_at": 0.0, "at": 0.0,
        "version": "2", "bands": 3,
    }  # fmt: skip
    return Seen(Presence(**(facts | changes)), age)


SILENCE = UnendedProbe(
    lane=Lane("gpu", 2), seconds=10.0, claimant="", was_there=True, paused_until=0.0, workers=[],
    version="2",
)  # fmt: skip
CASES: list[tuple[dict[str, Any], str]] = [
    (
        {"claimant": "w9", "was_there": False, "paused_until": 9e9},
        "worker w9 has claimed it, and not ended it within 10 s: look into its log",
    ),
    (
        {"was_there": False, "workers": [worker(version="1"), worker("w2")]},
        "worker w1 took it and knows no probes (release 1); update the workers",
    ),
    (
        {"was_there": False, "workers": [worker()], "paused_until": UNTIL_RESUMED},
        "a worker took it and knows no probes (release unknown); update the workers",
    ),
    (
        {"paused_until": UNTIL_RESUMED, "workers": [worker()]},
        "queue 'gpu' is paused until it is resumed; run: airflow nats queues resume gpu",
    ),
    (
        {},
        (
            "no worker takes workloads of priority band 2 of queue 'gpu'; "
            "run: airflow nats worker -q gpu"
        ),
    ),
    (
        {"workers": [worker(age=61.0), worker("w2", draining=True)]},
        (
            "no worker takes workloads of priority band 2 of queue 'gpu' (w1 is lost, w2 is "
            "draining); run: airflow nats worker -q gpu"
        ),
    ),
    (
        {"workers": [worker(bands=2)]},
        (
            "no worker takes workloads of priority band 2 of queue 'gpu'; "
            "start its workers with the scheduler's [nats_executor] priority_bands"
        ),
    ),
    (
        {"workers": [worker(paused="no memory"), worker("w2", paused="no memory")]},
        "workers w1, w2 of queue 'gpu' took nothing within 10 s: no memory",
    ),
    (
        {"workers": [worker(running=4), worker("w2", running=4)]},
        (
            "workers w1, w2 of queue 'gpu' had no free slot within 10 s (8 of 8 in use): wait for "
            "tasks to end, or start another worker"
        ),
    ),
    (
        {"workers": [worker(running=4), worker("w2", running=3)]},
        "workers w1, w2 of queue 'gpu' did not take it within 10 s; run: airflow nats check",
    ),
    (
        {"workers": [worker(), worker("w2", paused="no memory")]},
        "workers w1, w2 of queue 'gpu' did not take it within 10 s; run: airflow nats check",
    ),
    (
        {"workers": [worker(f"w{number}") for number in range(6)]},
        "the 6 workers of queue 'gpu' did not take it within 10 s; run: airflow nats check",
    ),
    (
        {"workers": [worker("\x1b[2Jevil")], "seconds": 0.5},
        (
            "worker \N{REPLACEMENT CHARACTER}[2Jevil of queue 'gpu' did not take it within 0.5 s; "
            "run: airflow nats check"
        ),
    ),
]


@pytest.mark.parametrize(("facts", "text"), CASES)
def test_a_cause_and_its_remedy(facts: dict[str, Any], text: str) -> None:
    assert in_probe_words(replace(SILENCE, **facts), SETTINGS) == text


def test_a_queue_that_is_not_known_is_named_with_some_that_are() -> None:
    assert nothing_known("typo", []) == (
        "queue 'typo' never had a task, and no worker serves it (queues with tasks: none); "
        "check its name, or run: airflow nats worker -q typo"
    )
    assert "tasks: a,b,c,d,e)" in nothing_known("a b", list("abcdefg"))
    assert nothing_known("a b", []).endswith("run: airflow nats worker -q 'a b'")
