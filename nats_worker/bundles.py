"""Keeps the disk of a worker from filling up with versions of Dag bundles."""

from __future__ import annotations

__all__ = ["clean_up"]


def clean_up() -> int:
    """Remove the bundle versions that no task uses any more, as Airflow asks of every worker."""
    from airflow.dag_processing.bundles.base import BundleUsageTrackingManager

    BundleUsageTrackingManager().remove_stale_bundle_versions()
    return 0
