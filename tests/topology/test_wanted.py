"""Every stream and consumer as it is made, literally: what changes here changes a deployment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nats_executor.topology.wanted import bounded, consumer_config, kept_for, stream_configs
from nats_executor.wire.names import Lane
from tests.support.fixtures import settings_for

URL = "nats://127.0.0.1:4222"
STREAMS: list[dict[str, Any]] = [
    {
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "name": "AIRFLOW_TASKS",
        "description": "Airflow: workloads waiting for a worker or running on one",
        "subjects": ["airflow.tasks.>"],
        "retention": "workqueue",
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
        "max_bytes": 536_870_912,
        "max_msg_size": 8_388_608,
        "duplicate_window": 120_000_000_000,
    },
    {
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "name": "AIRFLOW_RESULTS",
        "description": "Airflow: the last report of each workload",
        "subjects": ["airflow.results.>"],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "max_bytes": 536_870_912,
        "max_msgs": 2_097_152,
        "max_msg_size": 65_536,
        "discard": "old",
        "max_age": 86_400_000_000_000,
        "duplicate_window": 120_000_000_000,
    },
    {
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "name": "AIRFLOW_DEAD_LETTERS",
        "description": "Airflow: messages that no worker could handle",
        "subjects": ["airflow.dead.>"],
        "retention": "limits",
        "max_bytes": 134_217_728,
        "max_msgs": 524_288,
        "max_msg_size": 8_392_704,
        "discard": "old",
        "max_age": 604_800_000_000_000,
        "duplicate_window": 120_000_000_000,
    },
    {
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "name": "KV_airflow_workers",
        "description": "Airflow: presence of workers (a key-value bucket)",
        "subjects": ["$KV.airflow_workers.>"],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        "max_bytes": 16_777_216,
        "max_msgs": 65_536,
        "max_msg_size": 65_536,
        "discard": "old",
        "max_age": 3_600_000_000_000,
    },
    {
        "storage": "file",
        "num_replicas": 1,
        "allow_direct": True,
        "name": "KV_airflow_holds",
        "description": "Airflow: queues that operators have paused (a key-value bucket)",
        "subjects": ["$KV.airflow_holds.>"],
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        "max_bytes": 4_194_304,
        "max_msgs": 16_384,
        "max_msg_size": 16_384,
        "discard": "old",
    },
]
CONSUMER: dict[str, Any] = {
    "durable_name": "a--b1",
    "name": "a--b1",
    "filter_subject": "airflow.tasks.a--b1.*",
    "ack_policy": "explicit",
    "deliver_policy": "all",
    "ack_wait": 30_000_000_000,
    "max_deliver": -1,
    "max_ack_pending": -1,
    "max_waiting": 10_000,
    "metadata": {"airflow_queue": "a", "airflow_band": "1"},
}


def test_the_streams_are_these() -> None:
    assert stream_configs(settings_for(URL)) == STREAMS


def test_without_stored_logs_there_is_no_bucket_for_them() -> None:
    names = [one["name"] for one in stream_configs(settings_for(URL))]

    assert "OBJ_airflow_logs" not in names
    assert len(names) == 5


def test_a_consumer_is_this() -> None:
    assert consumer_config(settings_for(URL), Lane("a", 1)) == CONSUMER


def test_a_limited_queue_has_a_limit_at_the_server() -> None:
    limited = consumer_config(settings_for(URL, queue_limits="a=3"), Lane("a"))

    assert limited["max_ack_pending"] == 3
    assert limited["durable_name"] == "a"


@pytest.mark.parametrize(
    ("seconds", "window"), [(1, 1), (119, 119), (120, 120), (121, 120), (3600, 120)]
)
def test_the_window_for_duplicates_is_not_longer_than_what_is_kept(
    seconds: int, window: int
) -> None:
    assert kept_for(seconds) == {
        "max_age": seconds * 1_000_000_000,
        "duplicate_window": window * 1_000_000_000,
    }


@pytest.mark.parametrize(("size", "messages"), [(255, 0), (256, 1), (257, 1), (2560, 10)])
def test_a_stream_holds_a_message_for_each_256_bytes(size: int, messages: int) -> None:
    assert bounded(size, 7) == {
        "max_bytes": size,
        "max_msgs": messages,
        "max_msg_size": 7,
        "discard": "old",
    }


def test_stored_logs_have_a_stream_of_their_own() -> None:
    settings = replace(settings_for(URL), stores_logs=True)
    second = 1_000_000_000

    assert stream_configs(settings)[5:] == [
        {
            "storage": "file",
            "num_replicas": 1,
            "allow_direct": True,
            "name": "OBJ_airflow_logs",
            "description": "Airflow: logs of ended tasks (an object store)",
            "subjects": ["$O.airflow_logs.C.>", "$O.airflow_logs.M.>"],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "max_age": settings.log_retention_seconds * second,
            **bounded(settings.max_log_bucket_bytes, 135_168),
            "duplicate_window": second,
        }
    ]
