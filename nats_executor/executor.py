"""Keeps the path of the executor that `airflow providers executors` printed before the moves."""

from __future__ import annotations

from nats_executor.scheduler.executor import NatsExecutor

__all__ = ["NatsExecutor"]
