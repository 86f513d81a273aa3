"""Defines the `airflow nats` commands, and runs them."""

from __future__ import annotations
