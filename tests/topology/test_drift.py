"""The advice about a difference is what mends it."""

from __future__ import annotations

import pytest

from nats_executor.topology.drift import Drift


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (Drift("stream A", "existence", None, "exists"),
         "stream A: does not exist: run `airflow nats setup`"),
        (Drift("stream A", "num_replicas", 1, 3),
         "stream A has 1 replica, [nats_executor] replicas is 3: run `airflow nats setup`"),
        (Drift("stream A", "num_replicas", 3, 1),
         ("stream A has 3 replicas, [nats_executor] replicas is 1: set replicas = 3, or run "
         "`airflow nats setup` to have fewer")),
        (Drift("stream A", "num_replicas", 1, 3, remedy="have a cluster"),
         ("stream A has 1 replica, [nats_executor] replicas is 3; that cannot be changed in place: "
         "have a cluster")),
        (Drift("stream A", "max_age", 9, 5, drops="old ones"),
         ("stream A: max_age is 9, should be 5: run `airflow nats setup --may-drop`; changing it "
         "drops old ones")),
    ],
)  # fmt: skip
def test_the_advice_on_a_difference(drift: Drift, expected: str) -> None:
    assert drift.advice == expected
