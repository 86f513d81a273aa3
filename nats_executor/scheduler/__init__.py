"""Hands the workloads of Airflow's scheduler to NATS, and reports back: the executor."""

from __future__ import annotations
