"""Keeps the path of `StoredLogs` that deployments have in their logging configuration."""

from __future__ import annotations

from nats_executor.logs.ended import StoredLogs

__all__ = ["StoredLogs"]
