"""All that is known of one queue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nats_executor.cli import commands

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
            "redelivered": 0, "slots": 8, "slots_in_use": 3, "limit": None,
            "workers": [
                "w1 (running, 3 of 4 slots in use)", "w2 (running, 0 of 4 slots in use)",
            ],
            "unserved_bands": [], "paused_until": None, "paused_by": None, "reason": None,
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
