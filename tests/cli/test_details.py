"""All that is known of one queue."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from nats_executor.cli import commands
from nats_executor.operations.details import last_hour
from nats_executor.wire.bounds import packed
from nats_executor.wire.history import Minute, extended
from nats_executor.wire.messages import as_map

if TYPE_CHECKING:
    from tests.cli.conftest import Console


def test_a_queue_is_described_in_full(console: Console) -> None:
    console.run(commands.setup, queues="default,gpu")
    console.announce("w1", "gpu", running=3)
    console.announce("w2", "gpu", running=0, bands=3)
    console.announce("leaving", "gpu", draining=True)
    console.send("gpu")

    code, output = console.run(commands.queues_show, queue="gpu", output="json")

    assert code == 0
    assert json.loads(output) == [
        {
            "queue": "gpu", "pending": 1, "pending_by_band": [1, 0, 0], "in_flight": 0,
            "in_per_s": 0.0, "out_per_s": 0.0, "redelivered": 0,
            "slots": 8, "slots_in_use": 3, "limit": None,
            "workers": [
                "w1 (running, 3 of 4 slots in use)", "w2 (running, 0 of 4 slots in use)",
            ],
            "unserved_bands": [], "paused_until": None, "paused_by": None, "reason": None,
            "oldest_seconds": 0,
            "deepest_last_hour": 0, "started_last_hour": 0, "ended_last_hour": 0,
            "mean_wait_seconds": None,
        }
    ]  # fmt: skip


def test_a_band_without_a_worker_and_a_limit_are_told(console: Console) -> None:
    console.configure(queue_limits="limited=2")
    console.run(commands.setup, queues="default,limited")
    console.announce("w1", "default", bands=1)

    code, output = console.run(commands.queues_show, queue="default", output="json")
    assert (code, json.loads(output)[0]["unserved_bands"]) == (0, [1, 2])
    code, output = console.run(commands.queues_show, queue="limited", output="json")
    [details] = json.loads(output)
    assert (details["limit"], details["workers"], details["unserved_bands"]) == (2, [], [0])


def test_people_get_one_line_for_each_fact(console: Console) -> None:
    console.run(commands.setup)

    code, output = console.run(commands.queues_show, queue="default", output="plain")

    assert code == 0
    lines = [line.split() for line in output.splitlines()]
    assert ["queue", "default"] in lines
    assert ["paused_until", "-"] in lines


def test_an_unknown_queue_is_told(console: Console) -> None:
    console.run(commands.setup)

    assert console.run(commands.queues_show, queue="gpu") == (2, "")
    assert console.error == "error: no queue is named 'gpu'; there are: default\n"


def test_the_last_hour_is_told(console: Console) -> None:
    console.run(commands.setup)
    now = int(time.time() // 60)
    history = None
    for minute, seen in [(now - 61, Minute(9, 9, 9, 9)), (now - 50, Minute(7, 3, 4500, 2)),
                         (now, Minute(1, 1, 500, 4, 70))]:  # fmt: skip
        history = extended(history, "default", minute, seen)
    console.publish(console.settings.names.queue_history("default"), packed(as_map(history)))

    console.send("default")
    code, output = console.run(commands.queues_show, queue="default", output="json")

    [details] = json.loads(output)
    assert code == 0
    assert {name: details[name] for name in last_hour(None, 0, 0)} == {
        "oldest_seconds": 70, "deepest_last_hour": 7, "started_last_hour": 4, "ended_last_hour": 6,
        "mean_wait_seconds": 1.25,
    }  # fmt: skip
