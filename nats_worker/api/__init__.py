"""Asks Airflow's API server for a task, and reads its answers."""

from __future__ import annotations
