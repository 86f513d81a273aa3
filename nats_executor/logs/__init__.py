"""Task logs for Airflow's UI: of running workloads and of ended ones."""

from __future__ import annotations
