"""Turns outcomes of reports into events of an executor, which the scheduler reads."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.audit_events import SAID, WAITS
from nats_executor.scheduler import compat
from nats_executor.scheduler.ledger import Ended, Ledger, Renewal, Returned, Started, Unwanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.executors.workloads import ExecutorWorkload

    from nats_executor.scheduler.ledger import Dispatch, Outcome

__all__ = ["Events", "Figures"]

log = logging.getLogger(__name__)


class Figures(NamedTuple):
    """How full an executor is.

    Attributes:
        waiting: the workloads that it has not sent yet.
        running: the slots that are taken.
        parallelism: how many slots there are, 0 for no limit.
    """

    waiting: int
    running: int
    parallelism: int


class Events:
    """The events of one executor, and what they are about.

    Of the wing only the executor itself changes besides what Airflow's part of it holds.

    Attributes:
        ledger: what was handed over and has no end yet.
        lost: dispatch ids whose messages the broker has lost, until they are sent again.
    """

    def __init__(self, executor: compat.VersionedExecutor) -> None:
        self._executor = executor
        self.ledger = Ledger()
        self.lost: set[str] = set()

    def track(self, dispatch: Dispatch) -> None:
        """Expect the end of a dispatch that was sent or taken over now."""
        dispatch.since = time.monotonic()
        self.ledger.track(dispatch)

    def settle(self, outcome: Outcome) -> None:
        """Tell the scheduler what an outcome means to it."""
        executor, key = self._executor, self._key(outcome)
        match outcome:
            case Started(dispatch):
                if state := compat.running_event(dispatch.kind):
                    executor.change_state(key, state, dispatch.id, remove_running=False)
            case Ended(_, succeeded, info) as ended:
                self.tell(ended)
                if not succeeded:
                    executor.log_task_event(event=SAID.name, extra=info, ti_key=key)
            case Unwanted(dispatch, info):
                log.info("%s was not run: %s", dispatch.name, info)
                executor.running.discard(key)
            case Returned(dispatch, info):
                text = f"worker {dispatch.worker_name} gave it back: {info}"
                executor.log_task_event(event=SAID.name, extra=text, ti_key=key)
            case Renewal():
                pass  # nothing that the scheduler has to know

    def tell(self, ended: Ended) -> None:
        """Make the event of an end."""
        key = self._key(ended)
        compat.name_key(self._executor, key, ended.dispatch.coordinates)
        enter = self._executor.success if ended.succeeded else self._executor.fail
        enter(key, info=ended.info or None)

    def end_callback(self, key: Any, *, succeeded: bool, info: str) -> None:
        """Make the event of the end of a callback that this executor need not have sent."""
        self._executor.change_state(key, compat.ended_event(succeeded), info or None)

    def tell_taken_back(self, key: Any, coordinates: Any, reason: str) -> None:
        """Write into the audit log why a task was taken back."""
        compat.name_key(self._executor, key, coordinates)
        self._executor.log_task_event(event=SAID.name, extra=reason, ti_key=key)

    def tell_waiting(self, key: Any, coordinates: Any, text: str) -> None:
        """Write into the audit log what a task waits for."""
        compat.name_key(self._executor, key, coordinates)
        self._executor.log_task_event(event=WAITS.name, extra=text, ti_key=key)

    def figures(self) -> Figures:
        """Return how full the executor is, from any thread: it reads nothing but lengths."""
        waiting = sum(map(len, compat.waiting_in(self._executor)))
        return Figures(waiting, len(self._executor.running), self._executor.parallelism)

    def send_again(self, workload: ExecutorWorkload) -> None:
        """Queue a workload that the broker has lost; the next heartbeat sends it."""
        self.forget(compat.key_of(workload))
        self.lost.add(compat.dispatch_id_of(workload)[0])
        no_session: Any = None  # `BaseExecutor` does not use it
        self._executor.queue_workload(workload, session=no_session)

    def take_back(self, key: Any) -> None:
        """Have it neither wait here nor take a slot."""
        compat.discard_waiting(self._executor, key)
        self.forget(key)

    def forget(self, key: Any) -> None:
        """Expect no report of it any more, and have its slot free."""
        self.ledger.forget(key)
        self._executor.running.discard(key)

    def waiting(self) -> Iterator[tuple[Any, ExecutorWorkload]]:
        """Yield what was queued here and not handed over yet, with its key."""
        for queue in compat.waiting_in(self._executor):
            yield from queue.items()

    def is_here(self, key: Any) -> bool:
        """Whether it waits here, or takes a slot."""
        return key in self._executor.running or compat.waits_in(self._executor, key)

    @staticmethod
    def _key(outcome: Outcome) -> Any:
        return outcome.dispatch.key
