"""Keeps OpenTelemetry's threads out of the processes that fork.

Airflow starts one for spans when it is imported, and one for metrics when the first is counted,
which an import does as well. OpenTelemetry starts each again in every process that is forked. A
task may then hang on a lock that such a thread held in its parent, and a supervisor with a thread
of its own takes no second workload. So Airflow is imported as if both were off, and each task's
process starts its own. Looked at: Airflow 3.3.2 and 3.4.0b2, OpenTelemetry 1.45.2.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["prepare_exporters", "send_spans_from_tasks", "switched_off", "tell_threads"]

log = logging.getLogger(__name__)

METRICS_SWITCH = ("metrics", "otel_on")
SPANS_SWITCH = ("traces", "otel_on")


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Have Airflow take OpenTelemetry for off meanwhile, whatever is configured."""
    names = [
        f"AIRFLOW__{section}__{option}".upper()
        for section, option in (METRICS_SWITCH, SPANS_SWITCH)
    ]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "False"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def options_on() -> list[tuple[str, str]]:
    from airflow.configuration import conf

    return [
        option
        for option in (METRICS_SWITCH, SPANS_SWITCH)
        if conf.getboolean(*option, fallback=False)
    ]


def prepare_exporters() -> None:
    """Import the exporters of tasks, and set up the metrics that Airflow took for off."""
    steps = {METRICS_SWITCH: prepare_metrics, SPANS_SWITCH: prepare_spans}
    for section, option in options_on():
        try:
            steps[section, option]()
        except Exception:
            what = "cannot prepare [%s] %s before the forks; next: each task tries to"
            log.warning(what, section, option, exc_info=True)


def prepare_metrics() -> None:
    """Have a process that is forked start the thread when it counts something."""
    from airflow.configuration import conf
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics import stats_utils

    of_metrics = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
    protocol = of_metrics or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    way = "grpc" if protocol == "grpc" else "http"
    importlib.import_module(f"opentelemetry.exporter.otlp.proto.{way}.metric_exporter")
    stats.initialize(
        factory=stats_utils.get_stats_factory(),
        export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
    )


def prepare_spans() -> None:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    for exporter in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter.load()


@functools.cache
def send_spans_from_tasks() -> None:
    """Have each task that this process, a supervisor, forks from now on send its spans."""
    if SPANS_SWITCH not in options_on():
        return
    from airflow import settings
    from airflow.configuration import conf

    is_task: list[bool] = []

    def configure() -> None:
        if is_task:
            return  # what a task forks is OpenTelemetry's own business
        is_task.append(True)
        try:
            vars(settings)["configure_otel"](conf)
        except Exception:
            log.warning("[traces] otel_on: next: this task sends no spans", exc_info=True)

    os.register_at_fork(after_in_child=configure)


def tell_threads() -> None:
    """Warn of threads in this process, which forks, and of what has probably started them."""
    others = len(list(Path("/proc/self/task").iterdir())) - 1
    if not others:
        return
    names = [thread.name for thread in threading.enumerate()[1:]]
    options = [f"[{section}] {option}" for section, option in options_on()]
    cause = "a plugin or local settings"
    if any(name.startswith("Otel") for name in names):
        cause = " and ".join(options) or "something that uses OpenTelemetry"
    log.warning(
        "threads run in the fork server: %s; started by %s; next: forked tasks may hang on locks "
        "that these threads held",
        ", ".join(names) or f"{others} without a name",
        cause,
    )
