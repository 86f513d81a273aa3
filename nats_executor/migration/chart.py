"""Lists the values of Airflow's official Helm chart with what takes their place in our chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.migration.counterparts import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chart_values_in", "is_chart", "options_of_chart"]


class ChartValue(NamedTuple):
    """One value, or all below it, of the official chart.

    Attributes:
        path: without the `celery` that newer charts have behind `workers`.
        ours: the value of our chart, below `workerDefaults`, or what else takes its place.
    """

    path: str
    change: Change
    ours: str = ""
    note: str = ""


VALUES = (
    ChartValue(
        "executor",
        Change.SET,
        "executor: CeleryExecutor,nats_executor.NatsExecutor",
        "Later nats_executor.NatsExecutor alone: docs/how-to/kubernetes.md.",
    ),
    ChartValue("workers.replicas", Change.SET, "replicas", "It counts where KEDA is switched off."),
    ChartValue("workers.queue", Change.SET, "workers[].queues"),
    ChartValue("workers.sets", Change.DECIDE, "workers", "Write one set for each of them."),
    ChartValue("workers.keda.enabled", Change.SET, "keda.enabled"),
    ChartValue("workers.keda.minReplicaCount", Change.SET, "keda.min"),
    ChartValue("workers.keda.maxReplicaCount", Change.SET, "keda.max"),
    ChartValue("workers.keda.pollingInterval", Change.SET, "keda.pollingSeconds"),
    ChartValue("workers.keda.cooldownPeriod", Change.SET, "keda.cooldownSeconds"),
    ChartValue(
        "workers.keda.query",
        Change.DROP,
        "keda.workloads",
        "KEDA asks NATS how much waits and runs, and no database.",
    ),
    ChartValue("workers.keda", Change.DECIDE, "keda", "Compare it with the values of our chart."),
    ChartValue("workers.hpa", Change.DECIDE, "keda", "Our chart scales by KEDA, not by CPU."),
    ChartValue(
        "workers.terminationGracePeriodSeconds",
        Change.SET,
        "drainSeconds",
        "After SIGTERM running tasks have this time to end.",
    ),
    ChartValue("workers.resources", Change.SET, "resources"),
    ChartValue(
        "workers.persistence",
        Change.DECIDE,
        "",
        "Our workers keep nothing. Store logs of ended tasks in NATS: docs/how-to/logs.md.",
    ),
    ChartValue(
        "workers.args", Change.SET, "extraArgs", "Translate the flags of the worker that it starts."
    ),
    ChartValue("workers.command", Change.DECIDE, "extraArgs", "Our chart starts the worker."),
    ChartValue("workers", Change.DECIDE, "", "Look for it among the values of our chart."),
    ChartValue("redis", Change.DROP, "redis.enabled: false", "Once Celery has nothing left."),
    ChartValue("flower", Change.DROP, "", "The page is part of Airflow's UI."),
    ChartValue("data.brokerUrl", Change.SET, "nats.servers"),
    ChartValue("data.brokerUrlSecretName", Change.SET, "loginSecret"),
    ChartValue("data.resultBackendConnection", Change.DROP),
    ChartValue("data.resultBackendSecretName", Change.DROP),
)
MARKS = frozenset({"workers", "executor", "redis", "flower", "config", "airflowVersion"})


def is_chart(tree: Any) -> bool:
    """Whether a YAML file has values of the official chart in it."""
    is_compose = isinstance(tree, dict) and "services" in tree
    return isinstance(tree, dict) and not is_compose and bool(MARKS & tree.keys())


def chart_values_in(tree: dict[str, Any]) -> Iterator[tuple[str, Any, ChartValue]]:
    """Yield each value that one of `VALUES` is about: its path, itself and that row."""
    for path, value in leaves_of(tree):
        usual = path.replace("workers.celery.", "workers.")
        rows = [row for row in VALUES if f"{usual}.".startswith(f"{row.path}.")]
        if rows:
            yield path, value, max(rows, key=lambda row: len(row.path))


def leaves_of(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from leaves_of(value, f"{path}.")
        else:
            yield path, value


def options_of_chart(tree: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Return Airflow's options that the chart's `config` sets."""
    config = tree.get("config")
    sections = config.items() if isinstance(config, dict) else ()
    return {
        (str(section), str(option)): str(value)
        for section, options in sections
        if isinstance(options, dict)
        for option, value in options.items()
    }
