"""Turns Airflow's calls to an executor into messages, and reports back into events.

The scheduler is synchronous and one slow or raising call here stops all of its work, so every
method returns within `publish_timeout_seconds` and none lets a broker's absence out.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

from nats_executor.broker.bridge import Bridge
from nats_executor.errors import (
    AccessDenied,
    BrokerError,
    BrokerUnavailable,
    LimitReached,
    MessageTooLarge,
)
from nats_executor.logs.running import TaskLogs
from nats_executor.retrying import Once, Outage
from nats_executor.scheduler import compat, database
from nats_executor.scheduler.answers import Answers
from nats_executor.scheduler.connected import Connected
from nats_executor.scheduler.dispatcher import Dispatcher, Envelope
from nats_executor.scheduler.events import Events
from nats_executor.scheduler.evidence import can_adopt
from nats_executor.scheduler.explaining import Explainer
from nats_executor.scheduler.ledger import (
    Dispatch,
    Ended,
    Renewal,
)
from nats_executor.scheduler.leftovers import Leftovers
from nats_executor.scheduler.revocations import Revocations
from nats_executor.scheduler.upkeep import Upkeep
from nats_executor.settings import Settings
from nats_executor.text import number_of
from nats_executor.wire.messages import Kind, Workload, encode
from nats_executor.wire.queue_names import require_servable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.cli.cli_config import GroupCommand
    from airflow.executors.workloads import ExecutorWorkload
    from airflow.executors.workloads.types import WorkloadKey
    from airflow.models.taskinstance import TaskInstance

    from nats_executor.scheduler.evidence import Evidence
    from nats_executor.scheduler.ledger import Outcome
    from nats_executor.wire.names import Lane

__all__ = ["NatsExecutor"]

log = logging.getLogger(__name__)

# Errors of msgpack and pydantic for data that Airflow's database takes: 70-bit integers, half a
# surrogate pair, a structure that is too deep.
UNENCODABLE = (ValueError, TypeError, OverflowError, RecursionError)
# Failures that concern every workload, so that asking again waits a little.
PAUSING = BrokerUnavailable | AccessDenied


class NatsExecutor(compat.VersionedExecutor):
    """Runs workloads on NATS workers. Constructing it opens nothing; `start` does."""

    supports_multi_team = True
    pre_assigns_external_executor_id = True
    is_local = False
    serve_logs = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._events = Events(self)
        self._mint = compat.Mint(self._generator, self.sentry_integration)
        self._outage = Outage(time.monotonic)
        self._sender = ""
        self._loaded: Settings | None = None
        self._connected: Connected | None = None
        self._refusals = Once()  # of queues, told once each
        self._minted: set[str] = set()  # dispatch ids that the scheduler does not know yet
        self._task_logs = TaskLogs(self._read_settings)

    def __repr__(self) -> str:
        team = f"team_name={self.team_name!r}, " if self.team_name else ""
        ledger = self._events.ledger
        return f"{type(self).__name__}({team}parallelism={self.parallelism}, {ledger!r})"

    @property
    def _settings(self) -> Settings:
        """The settings, read at first use; raises `ConfigError` for a value that cannot work."""
        if self._loaded is None:
            self._loaded = Settings.load(self.conf, team=self.team_name)
        return self._loaded

    # Methods, not lambdas: an executor may be pickled before its start.

    def _read_settings(self) -> Settings:
        return self._settings

    def _generator(self) -> JWTGenerator:
        return self.jwt_generator

    def _requeue_rule(self) -> compat.RequeueRule | None:
        return compat.requeue_rule(self)

    def start(self) -> None:
        """Connect; a broker that is away delays this by `connect_timeout_seconds` and no more.

        Raises:
            ConfigError: an option's value cannot work; Airflow stops the scheduler then.
        """
        self._sender = f"{socket.gethostname()}-{self.job_id}-{secrets.token_hex(4)}"
        settings, ledger = self._settings, self._events.ledger
        answers = Answers(
            str(self.job_id), self._events.figures, ledger, self._outage, self._sender
        )
        dispatcher = Dispatcher(settings, self._sender, answers)
        bridge = Bridge(dispatcher.run)
        owner = database.Owner(self.job_id, self.name, self.team_name)
        self._connected = Connected(
            bridge,
            dispatcher,
            answers,
            Upkeep(owner, self._mint, self._events, settings, bridge, dispatcher.inspector),
            Revocations(
                self.job_id, self._requeue_rule, self._events, settings, bridge, dispatcher
            ),
            Explainer(self._events, settings, bridge, self._outage, dispatcher.require_broker),
            Leftovers(self._events, settings, bridge, dispatcher.withdrawals),
        )
        bridge.start()
        try:
            # The scheduler adopts right after this, which is only exact with the broker's answers.
            bridge.call(dispatcher.prepared(), timeout=settings.connect_timeout_seconds)
        except BrokerError:
            reason = dispatcher.trouble or BrokerUnavailable("no answer yet")
            next_step = "starting without it; workloads stay queued until it is there"
            self._outage.note(reason, next_step)

    def end(self) -> None:
        """Close the connection. Workloads go on without this scheduler."""
        if self._connected:
            self._connected.bridge.stop()
        self._task_logs.close()

    def terminate(self) -> None:
        self.end()

    # From the scheduler to the workers

    def _process_workloads(self, workload_items: Sequence[ExecutorWorkload]) -> None:
        """Publish; a workload that the broker did not take stays queued for the next heartbeat."""
        connected = self._connected
        if connected is None or self._outage.is_waiting(connected.recoveries):
            return
        sealed: list[tuple[ExecutorWorkload, WorkloadKey, Envelope]] = []
        for workload in workload_items:
            key = compat.key_of(workload)
            try:
                sealed.append((workload, key, self._seal(workload)))
            except UNENCODABLE as exc:
                self._refuse(key, f"cannot be sent over NATS: {type(exc).__name__}: {exc}")
        outcomes = self._publish(connected, [item[-1] for item in sealed]) if sealed else {}
        for workload, key, envelope in sealed:
            outcome = outcomes.get(envelope.dispatch_id, BrokerUnavailable("not tried"))
            if outcome is None:
                self._handed_over(workload, key, envelope)
            elif isinstance(outcome, MessageTooLarge):
                self._refuse(key, f"too large for NATS: {outcome}")

    def _seal(self, workload: ExecutorWorkload) -> Envelope:
        lane = compat.lane_of(workload, self._settings)
        require_servable(lane.queue)
        dispatch_id, is_new = compat.dispatch_id_of(workload)
        if is_new:
            self._minted.add(dispatch_id)
        message = Workload(
            dispatch_id=dispatch_id,
            queue=lane.queue,
            kind=compat.kind_of(workload),
            body=compat.body_of(workload),
            key=compat.key_parts(workload.key),
            sender=self._sender,
            sent_at=time.time(),
        )
        # The broker may remember the id of a message that it has no more.
        message_id = None if dispatch_id in self._events.lost else dispatch_id
        return Envelope(lane, dispatch_id, message_id, encode(message))

    def _refuse(self, key: WorkloadKey, reason: str) -> None:
        compat.discard_waiting(self, key)
        self.fail(key, info=reason)

    def _publish(
        self, connected: Connected, messages: list[Envelope]
    ) -> dict[str, BrokerError | None]:
        recoveries = connected.recoveries
        try:
            failure: BrokerError | None
            outcomes = connected.publish(messages, self._settings.publish_timeout_seconds)
            failure = next((e for e in outcomes.values() if isinstance(e, PAUSING)), None)
        except BrokerError as exc:
            outcomes, failure = {}, exc
        connected.answers.refused = self._tell_refusals(outcomes.values())
        if failure is None:
            self._outage.over()
        else:
            left = len(messages) - sum(outcome is None for outcome in outcomes.values())
            next_step = f"{number_of(left, 'workload')} left in the queue, to be sent later"
            self._outage.note(failure, next_step, recoveries=recoveries)
        return outcomes

    def _tell_refusals(self, outcomes: Iterable[BrokerError | None]) -> tuple[str, ...]:
        """Return each refusal that needs a person and concerns some queues only; logs it once."""
        others = (outcome for outcome in outcomes if outcome is not None)
        refused = [exc for exc in others if not isinstance(exc, PAUSING | MessageTooLarge)]
        for exc in refused:
            # One limit may refuse more queues than `Once` remembers, with each heartbeat.
            if self._refusals.is_new(LimitReached if isinstance(exc, LimitReached) else str(exc)):
                log.error("%s; next: its workloads stay queued and are tried again", exc)
        return tuple(dict.fromkeys(map(str, refused)))

    def _handed_over(
        self, workload: ExecutorWorkload, key: WorkloadKey, envelope: Envelope
    ) -> None:
        dispatch_id = envelope.dispatch_id
        compat.discard_waiting(self, key)
        self.running.add(key)
        self._events.lost.discard(dispatch_id)
        kind, subject = compat.kind_of(workload), compat.token_subject_of(workload)
        queue, band = envelope.lane
        dispatch = Dispatch(dispatch_id, key, queue, kind, subject, band, workload.key)
        dispatch.sent_at = time.time()
        self._events.track(dispatch)
        if dispatch_id in self._minted:
            self._minted.discard(dispatch_id)
            # The scheduler stores the id then, which a later adoption needs. `queued()` would
            # give the slot away.
            self.change_state(key, compat.queued_event(), dispatch_id, remove_running=False)

    # From the workers to the scheduler

    def change_state(
        self, key: WorkloadKey, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """Enter an event; once a workload runs no longer, no report of it is expected."""
        if remove_running:
            self._events.ledger.forget(key)
        super().change_state(key, state, info, remove_running)

    def get_event_buffer(self, dag_ids: Any = None) -> dict[Any, Any]:
        """Hand the events over, but those for attempts that are history and can take none.

        In Airflow 3.4 a task that asks for a retry is archived before its process has ended, and
        the scheduler would warn of each such event that it is discarded.
        """
        found: dict[Any, Any] = super().get_event_buffer(dag_ids)
        attempts = compat.attempts_in(found)
        for attempt in database.archived(list(attempts)) or () if attempts else ():
            del found[attempts[attempt]]
        return found

    def sync(self) -> None:
        """Turn the reports that have arrived into events; costs nothing when there are none."""
        connected = self._connected
        if connected is None:
            return
        reports, telemetry = connected.reports, connected.dispatcher.telemetry
        chronicle = connected.dispatcher.chronicle
        while reports:
            report = reports.popleft()
            if outcome := self._events.ledger.apply(report, time.monotonic()):
                self._events.settle(outcome)
                self._follow_up(connected, outcome)
                telemetry.settled(report, outcome)
                chronicle.settled(report, outcome)
        connected.upkeep.tick()
        connected.explainer.tick()
        connected.leftovers.tick()
        if chronicle.is_due:
            chronicle.look(self._events.ledger)
        if telemetry.reading:
            telemetry.tell(self._events.ledger)

    def _follow_up(self, connected: Connected, outcome: Outcome) -> None:
        """Do what an outcome asks of this side of the bridge."""
        match outcome:
            # A plain success is in the database already; for the rest the event is all.
            case Ended(dispatch, _, info) as ended if info and dispatch.kind == Kind.TASK:
                connected.upkeep.expect(ended)
            case Renewal(dispatch):
                log.info("the token of %s died while it waited; next: a new one", dispatch.name)
                new_token = self._mint.token(dispatch.kind, dispatch.token_subject)
                connected.renew(dispatch, new_token)

    # Taking over and taking back

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over what a dead scheduler left; return what the scheduler shall queue again."""
        known = list(database.identities(tis, self._settings))
        evidence = self._look_up(
            [(lane, ti.external_executor_id) for ti, *_, lane in known if ti.external_executor_id]
        )
        rejected: list[TaskInstance] = []
        for ti, key, coordinates, lane in known:
            dispatch_id = ti.external_executor_id or ""
            found = evidence.get(dispatch_id) if evidence is not None else None
            is_waiting = compat.is_waiting(ti)
            if is_waiting and (not dispatch_id or not can_adopt(is_waiting=True, evidence=found)):
                rejected.append(ti)
                continue
            self.running.add(key)
            if dispatch_id:
                where = lane.queue, Kind.TASK, str(ti.id), lane.band
                dispatch = Dispatch(dispatch_id, key, *where, coordinates)
                self._events.track(dispatch)
                if found and self._connected:
                    # For the next `sync`: Airflow 3.4 gives a slot to all that is adopted here.
                    self._connected.dispatcher.inspector.note(dispatch, found)
        return rejected

    def _look_up(self, places: list[tuple[Lane, str]]) -> dict[str, Evidence] | None:
        """Return what the broker knows; None when it cannot be asked."""
        connected = self._connected
        if connected is None:
            return None
        recoveries = connected.recoveries
        try:
            return connected.look_up(places, self._settings.publish_timeout_seconds)
        except BrokerError as exc:
            next_step = "adopting every task instance; the sweep finds out the rest"
            self._outage.note(exc, next_step, recoveries=recoveries)
            return None

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Take a task instance back that no worker serves or starts; sends no event.

        Airflow calls this for all that was queued longer than `[scheduler] task_queued_timeout`,
        also in a healthy backlog, and would fail it the third time.

        Raises:
            NotImplementedError: it waits its turn. Airflow then leaves this executor's queued
                tasks alone until it looks again; those that are stuck were dealt with here.
        """
        if self._connected is None:
            raise NotImplementedError(f"{ti} waits: this executor is not started")
        self._connected.revocations.revoke(ti)

    def fail_connection_test(self, key: Any) -> None:
        """Forget a connection test that Airflow has given up."""
        self._events.ledger.forget(key)
        super().fail_connection_test(key)

    # For people

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:  # noqa: ARG002 - only the running try has a worker
        """Read a running task's log from its worker; for the API server, which starts nothing."""
        queue = ti.queue or compat.default_queue()
        return self._task_logs.read(ti.external_executor_id, queue)

    def get_streaming_task_log(
        self,
        ti: TaskInstance,
        try_number: int,  # noqa: ARG002 - only the running try has a worker
    ) -> tuple[list[str], list[Iterator[str]]]:
        """Read it page by page while it is shown; Airflow 3.4 asks this first, 3.3 never does."""
        queue = ti.queue or compat.default_queue()
        return self._task_logs.stream(ti.external_executor_id, queue)

    def debug_dump(self) -> None:
        """Log what this executor holds, on SIGUSR2 to the scheduler."""
        super().debug_dump()  # type: ignore[no-untyped-call] # Airflow's has no annotations
        lines = [
            f"{d.id} {d.queue} {d.state or 'sent'} {d.worker or '-'} {d.name}"
            for d in self._events.ledger
        ]
        log.info("%r\n\t%s", self._events.ledger, "\n\t".join(lines))
        log.info("broker: %s; settings: %r", self._link(), self._loaded)

    def _link(self) -> str:
        """Say how it stands with the broker."""
        if self._connected is None:
            return "not connected, because this executor was not started"
        return str(self._connected.dispatcher.trouble or "connected")

    @staticmethod
    def get_cli_commands() -> list[GroupCommand]:
        from nats_executor.cli.definitions import get_nats_cli_commands

        return get_nats_cli_commands()
