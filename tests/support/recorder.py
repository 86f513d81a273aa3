"""A stand-in for statsd behind Airflow's metrics: it remembers what was sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.observability import stats

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Recorder", "Sent", "recording"]


class Sent(NamedTuple):
    """One gauge or timing."""

    kind: str
    name: str
    tags: dict[str, str]
    value: float


class Recorder(NoStatsLogger):
    """Takes what Airflow's own backends take.

    Attributes:
        failure: what every call raises.
    """

    def __init__(self) -> None:
        self.all: list[Sent] = []
        self.failure: Exception | None = None

    @property
    def sent(self) -> list[Sent]:
        """What this project has sent."""
        return [sent for sent in list(self.all) if sent.name.startswith("nats_executor.")]

    def values(self, name: str, **tags: str) -> list[float]:
        """Return what was sent under a name with at least these tags, oldest first."""
        return [
            sent.value
            for sent in self.sent
            if sent.name == f"nats_executor.{name}" and tags.items() <= sent.tags.items()
        ]

    def last(self, name: str, **tags: str) -> float | None:
        values = self.values(name, **tags)
        return values[-1] if values else None

    def gauge(self, stat: str, value: float, *_: Any, tags: Any = None, **__: Any) -> None:  # type: ignore[override]
        self.note("gauge", stat, value, tags)

    def timing(self, stat: str, dt: Any, *_: Any, tags: Any = None, **__: Any) -> None:  # type: ignore[override]
        self.note("timing", stat, dt, tags)

    def note(self, kind: str, stat: str, value: float, tags: dict[str, str] | None) -> None:
        if self.failure and stat.startswith("nats_executor."):
            raise self.failure
        self.all.append(Sent(kind, stat, dict(tags or {}), value))


@contextlib.contextmanager
def recording(backend: Any = None) -> Iterator[Any]:
    """Have Airflow's metrics of this process go to a backend; construct executors before."""
    backend = backend or Recorder()
    stats.initialize(factory=lambda: backend, export_legacy_names=False)
    try:
        yield backend
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=False)
