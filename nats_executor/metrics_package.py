"""Looks for the package that the metrics of `[metrics]` need."""

from __future__ import annotations

from airflow.configuration import conf
from airflow.observability.metrics.stats_utils import get_stats_factory

from nats_executor.errors import ConfigError

__all__ = ["SWITCHES", "missing_package", "require_metrics"]

# Airflow's extra for each switch, in the order in which Airflow looks at them.
SWITCHES = {"statsd_datadog_enabled": "datadog", "statsd_on": "statsd", "otel_on": "otel"}


def missing_package() -> str:
    """Return what `[metrics]` asks for and is not installed, with the remedy; '' for nothing.

    Airflow 3.4 imports the package wherever it sets its metrics up, in each task, too, and ends
    there. 3.3 writes an error to its log and goes on without metrics, so nothing is missing there.
    """
    try:
        get_stats_factory()
    except ImportError as exc:
        switch = next(name for name in SWITCHES if conf.getboolean("metrics", name, fallback=False))
        return (
            f"[metrics] {switch} = True, but a package is not installed ({exc}), and this Airflow "
            "starts neither scheduler, API server nor tasks without it; run: pip install "
            f"'apache-airflow[{SWITCHES[switch]}]' everywhere, or set [metrics] {switch} = False"
        )
    return ""


def require_metrics() -> None:
    """Raise `ConfigError` when Airflow cannot set its metrics up."""
    if text := missing_package():
        raise ConfigError(text)
