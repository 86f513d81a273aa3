"""What `airflow nats demo` runs, and Airflow shows as an example."""

from __future__ import annotations
