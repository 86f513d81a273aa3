"""The room that teams and queues need, and what is said before it runs out."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.broker.port import Usage
from nats_executor.errors import ConfigError, LimitReached
from nats_executor.topology.drift import Drift
from nats_executor.topology.room import (
    as_block,
    as_variables,
    limit_findings,
    require_room,
    room_for,
)
from tests.support.fixtures import settings_for

STREAM = "AIRFLOW_TASKS"
GIB = 2**30


def computed(teams: int = 0, queues: int = 1, **options: Any) -> Any:
    settings = settings_for("nats://127.0.0.1:4222", **options)
    return room_for(settings, teams=teams, queues=queues)


def test_the_room_grows_with_teams_and_queues() -> None:
    one, many = computed(), computed(teams=20, queues=1000)

    assert (one.streams, one.consumers) == (6, 100)
    assert (many.streams, many.consumers) == (126, 3000)
    assert (many.file, many.file_store) == (one.file, 21 * one.file)
    assert (many.memory, many.memory_store) == (one.memory, 21 * one.memory)
    assert one.memory == 3 * 8 * 2**20


def test_the_room_follows_the_settings() -> None:
    assert computed(queues=110, priority_bands="none").consumers == 110
    # Of the readers of reports.
    assert computed(queues=99, priority_bands="none").consumers == 100
    assert computed(replicas=5).file == 15 * GIB
    assert computed(replicas=1).file == computed(replicas=3).file == 9 * GIB
    large = computed(max_stream_bytes=10 * GIB)
    assert large.file == 3 * 15 * GIB  # 11.6 GiB of all streams and a quarter more, rounded up
    in_memory = computed(storage="memory")
    assert in_memory.file == 3 * GIB  # records of workers and holds stay on disk
    assert in_memory.memory > 3 * 2 * GIB


def test_a_stream_without_a_size_has_no_bound() -> None:
    with pytest.raises(ConfigError, match="max_stream_bytes = -1: write a size"):
        computed(max_stream_bytes=-1)


def test_every_stream_fits_with_room_to_spare() -> None:
    """Those of the defaults set 2196 MiB aside."""
    assert computed().file >= 3 * 1.25 * 2196 * 2**20


def test_limits_are_written_for_a_server() -> None:
    room = computed(teams=20, queues=1000)

    assert as_variables(room).splitlines() == [
        "MAX_FILE_STORE: 189GB",
        "MAX_MEMORY_STORE: 504MB",
        "MAX_FILE: 9GB",
        "MAX_MEMORY: 24MB",
        "MAX_STREAMS: 126",
        "MAX_CONSUMERS: 3000",
    ]
    assert as_block(room) == [
        "jetstream {",
        "  max_file: 9GB",
        "  max_memory: 24MB",
        "  max_streams: 126",
        "  max_consumers: 3000",
        "}",
    ]


@pytest.mark.parametrize(
    ("usage", "consumers", "version", "told"),
    [
        (None, 10**6, "2.15.1", []),
        (Usage(0), 799, "2.15.1", []),
        (Usage(0), 800, "2.15.1", ["800 of 1000 (80%) consumers of stream AIRFLOW_TASKS"]),
        (Usage(0), 1000, "2.15.1", ["1000 of 1000 (100%) consumers"]),
        (Usage(0), 1001, "2.15.1", []),
        (Usage(0), 10**6, "2.14.6", []),
        (Usage(0), 10**6, "", []),
        (Usage(0, max_consumers=0), 900, "2.15.1", ["900 of 1000 (90%) consumers"]),
        (Usage(0, max_consumers=0), 1001, "2.15.1", []),
        (Usage(0, max_consumers=1), 2, "2.15.1", ["2 of 1 (200%) consumers"]),
        (Usage(0, max_consumers=10), 7, "2.15.1", []),
        (Usage(0, max_consumers=10), 8, "2.11.0", ["8 of 10 (80%) consumers"]),
        (Usage(0, max_consumers=1), 1, "2.11.0", ["1 of 1 (100%) consumers"]),
        (Usage(0, max_consumers=2000), 1001, "2.15.1", []),
        (Usage(0, streams=79, max_streams=100), 0, "2.15.1", []),
        (Usage(0, streams=80, max_streams=100), 0, "2.15.1", ["80 of 100 (80%) streams"]),
        (Usage(0, streams=1, max_streams=1), 0, "2.15.1", ["1 of 1 (100%) streams"]),
        (Usage(0, streams=10**6), 0, "2.15.1", []),
        (Usage(0, streams=1, max_streams=0), 0, "2.15.1", []),
        (
            Usage(0, -1, 9, 10, 10), 9, "2.15.1", ["9 of 10 (90%) streams", "9 of 10 (90%) cons"],
        ),
    ],
)  # fmt: skip
def test_a_limit_is_told_from_four_fifths_on(
    usage: Usage | None, consumers: int, version: str, told: list[str]
) -> None:
    rows = limit_findings(usage, consumers, STREAM, version)

    assert [row["details"][: len(text)] for row, text in zip(rows, told, strict=True)] == told
    assert all((row["check"], row["status"]) == ("account", "full") for row in rows)


def test_a_finding_names_what_to_raise() -> None:
    [streams, consumers] = limit_findings(Usage(0, -1, 9, 10, 10), 9, STREAM, "2.15.1")
    [by_default] = limit_findings(Usage(0), 999, STREAM, "2.15.1")

    assert "raise max_streams of the account in the servers' configuration" in streams["details"]
    assert "raise max_consumers of the account in the servers'" in consumers["details"]
    assert "raise jetstream { limits { default_max_consumers } } in" in by_default["details"]


def missing(streams: int, consumers: int) -> list[Drift]:
    return [
        *(Drift(f"stream S{n}", "existence", None, "exists") for n in range(streams)),
        *(Drift(f"consumer of queue {n}", "existence", None, "exists") for n in range(consumers)),
    ]


@pytest.mark.parametrize(
    ("usage", "there", "wanted", "line"),
    [
        (None, 10**6, (1, 1), ""),
        (Usage(0), 999, (5, 1), ""),
        (Usage(0), 10**6, (5, 1), ""),
        (Usage(0, max_consumers=3), 0, (0, 3), ""),
        (
            Usage(0, max_consumers=3), 2, (0, 3),
            ("max_consumers of the account = 3: 2 are there, and 3 consumers more cannot be made; "
             "set it to 5 or more in"),
        ),
        (Usage(0, max_consumers=2), 0, (5, 2), ""),
        # Over a limit that was made smaller, nothing more is wanted.
        (Usage(0, max_consumers=3), 9, (0, 0), ""),
        (Usage(0, max_consumers=1), 0, (0, 2), "max_consumers of the account = 1: 0 are"),
        (Usage(0, streams=0, max_streams=5), 0, (5, 0), ""),
        (
            Usage(0, streams=6, max_streams=7), 0, (5, 0),
            ("max_streams of the account = 7: 6 are there, and 5 streams more cannot be made; set "
             "it to 11 or more in"),
        ),
        (Usage(0, streams=6, max_streams=7), 0, (1, 0), ""),
        (Usage(0, streams=9, max_streams=7), 0, (0, 1), ""),
        (Usage(0, streams=9, max_streams=0), 0, (1, 0), ""),
        (Usage(0, streams=1, max_streams=1), 0, (1, 0), "max_streams of the account = 1: 1 "),
        # The tier of one replica is full, and three are wanted.
        (Usage(0, -1, 9, 9, 2, has_tiers=True), 9, (5, 3), ""),
    ],
)  # fmt: skip
def test_what_has_no_room_is_refused_before_anything_is_made(
    usage: Usage | None, there: int, wanted: tuple[int, int], line: str
) -> None:
    found = missing(*wanted)
    if not line:
        require_room(usage, there, found)
        return
    with pytest.raises(LimitReached) as caught:
        require_room(usage, there, found)
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith("(`airflow nats limits` computes it). Nothing was changed")
