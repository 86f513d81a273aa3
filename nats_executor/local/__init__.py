"""Runs everything on one machine: an embedded server, Airflow's components, a demo."""

from __future__ import annotations
