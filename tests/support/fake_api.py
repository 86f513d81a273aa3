"""Airflow's API server in memory: it takes the start of one workload, or refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_worker.processes.exit_report import Ending

if TYPE_CHECKING:
    from tests.support.fake_pool import FakeRun

__all__ = ["ANSWERS", "Api"]

# How a start can go; each but the first ends the run.
ANSWERS = ("answered", "unreachable", "accepted in silence", "died", "died after it was accepted")


@dataclass
class Api:
    """Airflow's API server, as far as it locks the one task instance."""

    is_locking: bool  # it knows nothing of callbacks
    state: str = "queued"
    oldest_token: int = 0  # older generations have died

    def ask(self, run: FakeRun, how: str) -> None:
        """Answer the start of a run, or let its process or the connection fail on the way."""
        if how == "unreachable":
            run.finish(Ending.UNREACHABLE)
        elif how == "died":
            run.finish(Ending.DIED)
        elif refusal := self.refusal(run):
            run.finish(refusal, previous_state=self.state)
        else:
            self.state = "running"
            match how:
                case "accepted in silence":
                    run.finish(Ending.UNREACHABLE)
                case "died after it was accepted":
                    run.finish(Ending.DIED)
                case _:
                    run.begin()

    def refusal(self, run: FakeRun) -> Ending | None:
        if not self.is_locking:
            return None
        generation = run.body["token"].removeprefix("token-")
        if not generation.isdecimal() or int(generation) < self.oldest_token:
            return Ending.TOKEN_REFUSED
        match self.state:
            case "queued":
                return None
            case "running":
                return Ending.ALREADY_RUNNING
        return Ending.STALE
