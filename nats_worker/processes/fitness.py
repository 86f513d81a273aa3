"""Decides whether a worker can start what it takes, from its starts and its self-tests.

Pure: `proof.py` runs the self-tests, and has the worker's slots follow. A worker that can start
nothing is faster than every good one, because each workload is over at once. It would empty the
queue, so it has to stop by itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from nats_executor.pacing import pauses
from nats_worker.processes.exit_report import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats_worker.processes.exit_report import ExitReport

__all__ = ["Fitness", "Takes"]

# One or two may be the fault of their workloads after all.
MOST_FAILURES = 3
# Of the pauses, in seconds: the first, the longest, and how they grow. A self-test costs no
# workload anything, and a worker that waits for its API server loses a quarter of that at most.
TESTS = (1.0, 30.0, 1.25)
# A trial costs a workload a detour.
TRIALS = (5.0, 300.0)


# Airflow's API server has been asked for the start, and has taken a decision.
ANSWERED = frozenset(
    {
        Ending.ALREADY_RUNNING,
        Ending.EXCHANGED,
        Ending.FINISHED,
        Ending.STALE,
        Ending.STOPPED_BY_SERVER,
        Ending.TOKEN_REFUSED,
        Ending.UNDELIVERED,
    }
)


class Takes(StrEnum):
    """How many workloads a worker takes at the moment."""

    NOTHING = "nothing"
    ONE = "one workload at a time, until one starts"
    ALL = "as many as there are free slots"


class Fitness:
    """Judges a worker by its starts and its self-tests; no clock and no I/O.

    It takes nothing before its first self-test has passed. A start that fails for a reason of its
    own has it take nothing either, until a self-test has passed, and then one workload at a time,
    until one starts. After three in a row it pauses before each further trial.

    Attributes:
        takes: what it may take now.
        reason: why it takes nothing; '' if it takes something, or until a self-test has told.
        test_in: seconds until the next self-test is due, None if none is.
        on_change: called when a note has changed any of these.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.takes = Takes.NOTHING
        self.reason = ""
        self.test_in: float | None = 0.0
        self.on_change = on_change
        # Whether the last self-test found nothing, and nothing has made that doubtful. A start
        # does not make up for it: with a full disk all starts are well, and what has started fails.
        self._is_sound = False
        self._pauses_before_tests = pauses(*TESTS)
        # Since the last start: those that failed, and the pauses for which that ends the taking.
        self._failures = 0
        self._pauses_before_trials = pauses(*TRIALS)

    def note_end(self, report: ExitReport, blame: str = "") -> None:
        """Note the end of a workload here.

        Args:
            blame: what is wrong with this worker, '' if nothing is known to be.
        """
        if blame:
            self.note_failure(blame)
        elif report.ending is Ending.RAISED:
            self.note_doubt()
        elif report.ending in ANSWERED:
            self.note_start()

    def note_start(self) -> None:
        """Note that a workload has started here, or that Airflow itself has refused its start."""
        self._failures = 0
        self._pauses_before_trials = pauses(*TRIALS)
        if self._is_sound:
            self._become(Takes.ALL)

    def note_failure(self, info: str) -> None:
        """Note that a workload did not start, for a reason of this worker's own."""
        self._failures += 1
        if self._failures < MOST_FAILURES or self.takes is Takes.NOTHING:
            self.note_doubt()
            return
        reason = f"{self._failures} starts in a row failed on this worker; the last one: {info}"
        self._become(Takes.NOTHING, reason, next(self._pauses_before_trials))

    def note_doubt(self) -> None:
        """Note a failure that may be the fault of this worker; a self-test will tell."""
        # One that takes nothing is to be tested anyway.
        if self.takes is not Takes.NOTHING:
            self._is_sound = False
            self._become(Takes.NOTHING, test_in=0.0)

    def note_test(self, findings: Sequence[str]) -> None:
        """Note the findings of a self-test."""
        self._is_sound = not findings
        if findings:
            self._become(Takes.NOTHING, "; ".join(findings), next(self._pauses_before_tests))
        else:
            self._pauses_before_tests = pauses(*TESTS)
            # It has not seen what starts have failed for, if any did.
            self._become(Takes.ONE if self._failures else Takes.ALL)

    def _become(self, takes: Takes, reason: str = "", test_in: float | None = None) -> None:
        before = self.takes, self.reason, self.test_in
        self.takes, self.reason, self.test_in = takes, reason, test_in
        if before != (takes, reason, test_in):
            self.on_change()
