"""Takes tasks back that are stuck in `queued`, and leaves those alone that wait their turn.

Airflow's sweep asks about each task that was queued longer than `[scheduler] task_queued_timeout`.
`NotImplementedError` is the only way to say "let it wait", and ends the sweep for this executor's
other tasks. So the first task that waits its turn has all stuck ones dealt with, by Airflow's rule.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import object_session

from nats_executor.scheduler import compat, database
from nats_executor.scheduler.stuck import why_stuck
from nats_executor.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from airflow.models.taskinstance import TaskInstance

    from nats_executor.broker.bridge import Bridge
    from nats_executor.scheduler.dispatcher import Dispatcher
    from nats_executor.scheduler.events import Events
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = ["Revocations"]

log = logging.getLogger(__name__)


class Revocations:
    """Decides on an executor's tasks that are queued for long, and takes the stuck ones back."""

    def __init__(
        self,
        job_id: Any,
        rule: Callable[[], compat.RequeueRule | None],
        events: Events,
        settings: Settings,
        bridge: Bridge,
        dispatcher: Dispatcher,
    ) -> None:
        """Look at nothing yet.

        Args:
            job_id: of the executor's scheduler.
            rule: returns what Airflow does to a stuck task, as `compat.requeue_rule` does.
        """
        self._job_id = job_id
        self._rule = rule
        self._events = events
        self._settings = settings
        self._bridge = bridge
        self._dispatcher = dispatcher
        self._patience = compat.queued_timeout()

    def revoke(self, ti: TaskInstance) -> None:
        """Take a task back if it is stuck; sends no event.

        Raises:
            NotImplementedError: it waits its turn.
        """
        (identity,) = database.identities([ti], self._settings)
        _, key, coordinates, lane = identity
        if not (reason := self._reason(key, lane)):
            self._revoke_others(ti)
            raise NotImplementedError(f"{coordinates} waits its turn in queue {lane.queue!r}")
        self._take_back(key, lane, self._events.ledger.of_key(key), ti.external_executor_id)
        self._tell(identity, reason)

    def _reason(self, key: Hashable, lane: Lane) -> str:
        return why_stuck(
            self._events.ledger.of_key(key),
            lane,
            is_served=lane not in self._dispatcher.inspector.unserved,
            now=time.monotonic(),
            patience=self._patience,
        )

    def _revoke_others(self, healthy: TaskInstance) -> None:
        """Do to every stuck task what Airflow would, had it not met a healthy one before."""
        session = object_session(healthy)
        suspects = list(self._suspects()) if session else []
        rule = self._rule() if suspects else None
        if session is None or rule is None:
            return
        try:
            # In the session of Airflow's sweep: a failure's callback is stored in that one, too,
            # and would wait for a lock that this thread holds in another one (SQLite).
            for ti in database.queued_longer(session, suspects, self._job_id, self._patience):
                (identity,) = database.identities([ti], self._settings)
                _, key, _, lane = identity
                dispatch, dispatch_id = self._events.ledger.of_key(key), ti.external_executor_id
                if reason := self._reason(key, lane):
                    rule(ti, session)
                    session.commit()
                    self._take_back(key, lane, dispatch, dispatch_id)
                    self._tell(identity, reason)
        except Exception:
            # The scheduler's loop must go on; what was not committed is as it was.
            session.rollback()
            log.exception("cannot take stuck tasks back; next: trying at Airflow's next sweep")

    def _suspects(self) -> Iterator[str]:
        """Yield the ids of this executor's tasks that may be stuck; costs no I/O."""
        for dispatch in self._events.ledger:
            if dispatch.kind == Kind.TASK and self._reason(dispatch.key, dispatch.lane):
                yield dispatch.token_subject
        for key, workload in self._events.waiting():
            is_task = compat.kind_of(workload) == Kind.TASK
            if is_task and self._reason(key, compat.lane_of(workload, self._settings)):
                yield compat.token_subject_of(workload)

    def _take_back(
        self, key: Any, lane: Lane, dispatch: Dispatch | None, dispatch_id: str | None
    ) -> None:
        self._events.take_back(key)
        if dispatch is not None:
            dispatch_id = dispatch.id
        if dispatch_id:
            worker = dispatch.worker if dispatch else ""
            # Not waited for: hundreds may be stuck, and the broker or the worker may be, too.
            self._bridge.post(self._dispatcher.revoke(lane, dispatch_id, worker))

    def _tell(self, identity: database.Identity, reason: str) -> None:
        _, key, name, _ = identity
        text = "%s was taken back: %s; next: Airflow queues it again or fails it"
        log.warning(text, name, reason)
        self._events.tell_taken_back(key, name, reason)
