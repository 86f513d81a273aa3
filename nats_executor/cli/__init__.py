"""The `airflow nats` commands."""

from __future__ import annotations
