"""Write docs/reference/metrics.md from the tables of metrics: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from nats_executor.scheduler.metric_table import METRICS, PREFIX
from nats_worker.health.metric_table import WORKER_METRICS
from tests.tools.tables import cell, table

__all__ = ["document"]

HEAD = """\
# Metrics

Every metric of workers and schedulers. `make docs` writes this page from
`nats_worker/health/metric_table.py` and `nats_executor/scheduler/metric_table.py`.
[Observability](../how-to/observability.md) tells how to collect them, and has a dashboard and
alerts.

A unit of 1 stands for a number of things, or for yes (1) and no (0).
"""
OF_WORKERS = """\
## Metrics of a worker

A worker shows them as `/metrics` on `health_port`, in Prometheus's text format. Counters begin with
0 at each start of the worker. A histogram has three names: add `_bucket`, `_sum` and `_count`.
"""
BUCKETS = """\
The buckets end at, in seconds:
"""
OF_SCHEDULERS = """\
## Metrics of a scheduler

Each scheduler sends them through Airflow's metrics, to statsd or OpenTelemetry. Airflow puts
`[metrics] statsd_prefix` in front of each name. The second column is for a prefix of `airflow` and
`deploy/observability/statsd-mapping.yaml`, which makes histograms in seconds of the timers. Each
metric also has the tag `prefix`: the `subject_prefix`, which tells teams apart.
"""


def document() -> str:
    """Return the whole page."""
    parts = [HEAD, OF_WORKERS, workers(), "", BUCKETS, buckets(), "", OF_SCHEDULERS, schedulers()]
    return "\n".join([*parts, ""])


def names(labels: tuple[str, ...]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def workers() -> str:
    rows = [
        (f"`{m.exposed}`", m.kind, names(m.labels), m.unit, cell(m.text))
        for m in WORKER_METRICS.values()
    ]
    return table(("metric", "type", "labels", "unit", "meaning"), rows)


def buckets() -> str:
    rows = [
        (f"`{m.exposed}`", ", ".join(f"{end:g}" for end in m.buckets))
        for m in WORKER_METRICS.values()
        if m.buckets
    ]
    return table(("histogram", "buckets"), rows)


def schedulers() -> str:
    rows = []
    for name, metric in METRICS.items():
        kind = "timer" if metric.is_timer else "gauge"
        text = f"{metric.text[0].upper()}{metric.text[1:]}."
        full = f"{PREFIX}.{name}"
        made = f"airflow_{full.replace('.', '_')}{'_seconds' if metric.is_timer else ''}"
        tags = names(metric.tags)
        rows.append((f"`{full}`", f"`{made}`", kind, tags, metric.unit, cell(text)))
    head = ("metric", "in Prometheus, by statsd_exporter", "type", "tags", "unit", "meaning")
    return table(head, rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
