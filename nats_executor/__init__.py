"""Runs Apache Airflow workloads over NATS JetStream.

Airflow imports this package on every start of its command line, so it imports nothing itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["NatsExecutor"]


def __getattr__(name: str) -> Any:
    # `[core] executor = nats_executor.NatsExecutor` is resolved by attribute access.
    if name == "NatsExecutor":
        from nats_executor.scheduler.executor import NatsExecutor

        return NatsExecutor
    if name == "__version__":
        from importlib.metadata import version

        return version("airflow-nats-executor")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
