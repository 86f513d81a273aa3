"""Values of the official chart."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.migration.chart import chart_values_in, is_chart, options_of_chart


@pytest.mark.parametrize(
    ("tree", "is_so"),
    [
        ({"workers": {"replicas": 2}}, True),
        ({"executor": "CeleryExecutor"}, True),
        ({"services": {}, "executor": "x"}, False),
        ({"services": {}}, False),
        (["workers"], False),
        ({}, False),
    ],
)
def test_values_are_told_from_other_yaml(tree: Any, is_so: bool) -> None:
    assert is_chart(tree) is is_so


@pytest.mark.parametrize(
    ("tree", "path", "row"),
    [
        ({"workers": {"replicas": 2}}, "workers.replicas", "workers.replicas"),
        ({"workers": {"celery": {"replicas": 2}}}, "workers.celery.replicas", "workers.replicas"),
        ({"workers": {"keda": {"minReplicaCount": 1}}}, "workers.keda.minReplicaCount", None),
        ({"workers": {"keda": {"advanced": 1}}}, "workers.keda.advanced", "workers.keda"),
        ({"workers": {"tolerations": []}}, "workers.tolerations", "workers"),
        ({"redis": {"enabled": True}}, "redis.enabled", "redis"),
        ({"workers": {"resources": {}}}, "workers.resources", "workers.resources"),
    ],
)
def test_the_nearest_row_is_about_a_value(tree: dict[str, Any], path: str, row: str | None) -> None:
    [(found, _, about)] = chart_values_in(tree)

    assert (found, about.path) == (path, row or path)


@pytest.mark.parametrize("tree", [{"webserver": {"replicas": 2}}, {"redistribute": 1}])
def test_other_values_are_left_out(tree: dict[str, Any]) -> None:
    assert list(chart_values_in(tree)) == []


@pytest.mark.parametrize(
    ("tree", "options"),
    [
        ({"config": {"celery": {"pool": "solo"}}}, {("celery", "pool"): "solo"}),
        ({"config": {"celery": {"sync_parallelism": 2}}}, {("celery", "sync_parallelism"): "2"}),
        ({"config": {"celery": None}}, {}),
        ({"config": None}, {}),
        ({}, {}),
    ],
)
def test_the_options_of_a_chart_are_read(
    tree: dict[str, Any], options: dict[tuple[str, str], str]
) -> None:
    assert options_of_chart(tree) == options
