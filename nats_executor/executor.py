"""Keeps the path of the executor that `airflow providers executors` printed before 2.0."""

from __future__ import annotations

from nats_executor.scheduler.executor import NatsExecutor

__all__ = ["NatsExecutor"]
