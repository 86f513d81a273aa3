"""The Dag of `airflow nats demo`; Airflow shows it as an example, too."""

from __future__ import annotations
