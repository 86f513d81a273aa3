"""Shows queues, workers and dead letters in Airflow's own UI, and takes orders there."""

from __future__ import annotations
