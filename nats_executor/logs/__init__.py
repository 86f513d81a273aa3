"""Reads task logs for Airflow's UI, of running workloads and of ended ones, and stores them."""

from __future__ import annotations
