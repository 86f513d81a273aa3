"""Decides how many workloads of a worker may be in their costly start at a time. Pure.

A start takes processors: forks, page faults, requests to the API server. More of them at once than
there are processors end later, all of them. It counts until the API server has accepted it. The
parse of the Dag's file comes after that and is not counted, as nothing tells when it is over.
"""

from __future__ import annotations

__all__ = ["Admission"]

# Share of a moment in which a process waited for a processor. A machine with room for one more
# start stays below it, one that starts as many as it can is far above.
BUSY_SHARE = 0.25


class Admission:
    """Counts starts, and says how many more there may be.

    Args:
        most: a fixed number of starts at a time; None for as many as there are processors, and
            more of them while processors have nothing to do, as with a far API server.
        processors: those that this worker may use.

    Attributes:
        starting: workloads that were taken, and whose start the API server has not accepted yet.
    """

    def __init__(self, most: int | None, processors: int = 1) -> None:
        self.most = most
        self.processors = max(1, processors)
        self.starting = 0
        # Beyond one for each processor, because processors were idle at the last look.
        self._extra = 0

    @property
    def openings(self) -> int:
        """How many more may start now; never 0 while nothing starts."""
        most = self.processors + self._extra if self.most is None else self.most
        return max(0, max(1, most) - self.starting)

    @property
    def is_by_pressure(self) -> bool:
        """Whether a look at the processors may open more."""
        return self.most is None

    def begin(self) -> None:
        """Note that a workload begins its start."""
        self.starting += 1

    def end(self) -> None:
        """Note that a start is over; the room that an idle moment gave goes with it."""
        self.starting -= 1
        self._extra = max(0, self._extra - 1)

    def note_pressure(self, waited: float | None) -> None:
        """Note a look at the processors, while a free slot waits for a start to end.

        Args:
            waited: share of the last moment in which a process waited for one, None if not known.
        """
        is_idle = waited is not None and waited < BUSY_SHARE
        self._extra = self.starting if is_idle else 0
