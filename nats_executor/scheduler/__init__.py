"""The executor: what runs in Airflow's scheduler."""

from __future__ import annotations
