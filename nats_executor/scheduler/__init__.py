"""Holds the executor: the part of this project that runs in Airflow's scheduler."""

from __future__ import annotations
