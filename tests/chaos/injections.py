"""The faults of a run as they were carried out, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.database import Database
    from tests.chaos.plan import Fault

__all__ = ["Injection", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when something was away.

    Attributes:
        pid: of the worker that was away, or from which the API server was; 0 for all of them.
    """

    pid: int
    begin: float
    end: float


@dataclass(slots=True)
class Injection:
    """One fault as it was carried out.

    Attributes:
        since: when the time of recovery begins: the injection, or the end of an outage.
        has_recovered: asks the database.
    """

    fault: Fault
    victim: str = ""
    began: float = 0.0
    since: float = 0.0
    recovered: float | None = None
    problem: str = ""
    has_recovered: Callable[[Database], bool] | None = None

    @property
    def seconds(self) -> float | None:
        return None if self.recovered is None else max(0.0, self.recovered - self.since)
