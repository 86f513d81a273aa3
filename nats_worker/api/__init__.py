"""The way from a task to Airflow's API server, and the meaning of its answers."""

from __future__ import annotations
