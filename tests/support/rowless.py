"""Keeps executors from removing messages of workloads that a test made without a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.scheduler import leftovers
from nats_executor.scheduler.leftovers import Leftovers

if TYPE_CHECKING:
    import pytest

__all__ = ["TICK", "allow_workloads_without_rows", "never_look_for_rows"]

TICK = Leftovers.tick


def allow_workloads_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no executor look for messages that Airflow no longer wants."""
    monkeypatch.setattr(Leftovers, "tick", lambda _: None)


def never_look_for_rows() -> None:
    """Have no executor of this process do that, until it ends."""
    vars(leftovers)["Leftovers"].tick = lambda _: None
