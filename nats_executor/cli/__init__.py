"""Defines and runs the `airflow nats` commands."""

from __future__ import annotations
