"""Real workers on a fake broker with fake processes, watched from the outside."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.fleet import liveness
from nats_executor.topology import setup
from nats_executor.wire.messages import Kind, Report, State, Workload, decode, encode
from nats_executor.wire.names import Verb
from nats_worker import worker as worker_module
from nats_worker.processes import fitness
from nats_worker.state import Plan
from nats_worker.worker import Worker
from tests.support.fake_broker import FakeBroker, FakeServer
from tests.support.fake_pool import FakePool
from tests.support.fixtures import settings_for
from tests.support.presences import presence_in
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Presence

__all__ = ["RecordingServer", "WorkerStage", "task", "token", "worker_stage_fixture"]

QUEUES = ("default", "heavy")
ACK_WAIT = 6.0
HANDLING = frozenset({"ack", "nak", "term"})


class RecordingServer(FakeServer):
    """A server that notes the order of reports and acks.

    Attributes:
        events: the state of each report, `dead letter`, and ack, nak or term, in their order.
        headers: those of the last message that was published on each subject.
    """

    def __init__(self) -> None:
        # Each connection has lasted for long, unless a test says otherwise.
        super().__init__(monotonic=lambda: -1e9)
        self.now = time.time()
        self.events: list[str] = []
        self.headers: dict[str, dict[str, str]] = {}

    def broker(self) -> RecordingBroker:
        return RecordingBroker(self)

    def put(self, subject: str, body: bytes, **conditions: Any) -> int:
        sequence = super().put(subject, body, **conditions)
        match subject.split(".")[1]:
            case "results":
                self.events.append(decode(Report, body).state)
            case "dead":
                self.events.append("dead letter")
        return sequence


class RecordingBroker(FakeBroker):
    """A connection to it."""

    server: RecordingServer

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str | None = None,
        expected_last: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> int:
        self.server.headers[subject] = dict(headers or {})
        return await super().publish(
            subject,
            body,
            message_id=message_id,
            expected_last=expected_last,
            headers=headers,
            timeout=timeout,
        )

    async def enter(self, method: str, *, needs_server: bool = True) -> None:
        await super().enter(method, needs_server=needs_server)
        if method in HANDLING:
            self.server.events.append(method)


def token(expires_in: float = 600.0, name: str = "secret") -> str:
    """A token of Airflow's form that expires so many seconds from now."""
    payload = json.dumps({"exp": time.time() + expires_in}).encode()
    return f"{name}.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.signature"


def task(dispatch_id: str = "d1", queue: str = "default", **changes: Any) -> Workload:
    """A workload whose body only the fake pool will see."""
    made = Workload(
        dispatch_id=dispatch_id,
        queue=queue,
        kind=Kind.TASK,
        body={"token": token(), "ti": {"id": dispatch_id}},
        key=["dag", dispatch_id],
        sender="scheduler",
    )
    return replace(made, **changes)


@dataclass
class WorkerStage:
    """A server with streams and queues, and the workers of one test."""

    settings: Settings
    server: RecordingServer = field(default_factory=RecordingServer)
    pool: FakePool = field(default_factory=FakePool)
    workers: list[Worker] = field(default_factory=list)
    lives: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = self.settings.names
        self.broker = self.server.broker()

    @property
    def events(self) -> list[str]:
        return self.server.events

    # Workers

    async def start(
        self, name: str = "me", queues: tuple[str, ...] = ("default",), concurrency: int = 2
    ) -> Worker:
        """Start a worker and return once it waits for workloads."""
        worker = self.launch(name, queues, concurrency)
        await wait_until(
            lambda: self.lives[worker.state.id].done() or worker.state.intake,
            5,
            "the worker to start",
        )
        return worker

    def launch(
        self, name: str = "me", queues: tuple[str, ...] = ("default",), concurrency: int = 2
    ) -> Worker:
        plan = Plan(
            name=name, queues=queues, concurrency=concurrency, team=None, cleanup_seconds=0.0,
            version="1",
        )  # fmt: skip
        worker = Worker(self.settings, plan)
        self.workers.append(worker)
        self.lives[worker.state.id] = asyncio.create_task(worker.run(), name=f"worker {name}")
        return worker

    def is_seen(self, worker: Worker) -> bool:
        record = self.presence(worker.state.plan.name)
        return record is not None and record.worker == worker.state.id

    def presence(self, name: str = "me") -> Presence | None:
        """Return what a worker's records say."""
        records = self.server.stream(self.names.workers_stream).matching(self.names.presences())
        return presence_in(records, name)

    async def stop(self, worker: Worker, times: int = 1) -> None:
        """Ask a worker to stop and wait for its end."""
        for _ in range(times):
            worker.ask_to_stop(signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(self.lives[worker.state.id]), 10)

    def link_of(self, worker: Worker) -> FakeBroker:
        """The connection of a worker, to hurt it."""
        ping = self.names.control(worker.state.id, Verb.PING)
        return next(broker for broker in self.server.brokers if ping in broker.replies)

    async def living(self, worker_id: str) -> FakeBroker:
        """Answer the pings to a worker that is not of this test."""
        broker = self.server.broker()

        async def pong(_: bytes) -> bytes:
            return b"pong"

        await broker.serve(self.names.peer(worker_id), pong)
        return broker

    # Workloads

    def send(self, workload: Workload | None = None, **changes: Any) -> Workload:
        workload = workload or task(**changes)
        self.put(encode(workload), workload.dispatch_id, workload.queue)
        return workload

    def put(self, body: bytes, dispatch_id: str = "d1", queue: str = "default") -> None:
        self.server.put(self.names.task(queue, dispatch_id), body)

    def says(self, state: State, worker: str = "other.1", **changes: Any) -> Report:
        """Report about `d1` as another worker, or as an executor."""
        made = Report(
            dispatch_id="d1", queue="default", state=state, kind=Kind.TASK, key=["dag", "d1"],
            worker=worker, worker_name=worker.partition(".")[0], pid=55,
        )  # fmt: skip
        report = replace(made, **changes)
        self.server.put(self.names.result(report.queue, report.dispatch_id), encode(report))
        self.events.clear()
        return report

    def report(self, dispatch_id: str = "d1", queue: str = "default") -> Report | None:
        """The last report about a workload."""
        found = self.server.stream(self.names.results_stream).last(
            self.names.result(queue, dispatch_id)
        )
        return decode(Report, found.body) if found else None

    async def reported(self, state: State, dispatch_id: str = "d1") -> Report:
        """Wait until a state is the last one that was reported."""

        def last() -> Report | None:
            report = self.report(dispatch_id)
            return report if report and report.state is state else None

        found: Report = await wait_until(last, 5, f"{dispatch_id} to be reported {state}")
        return found

    def is_queued(self, dispatch_id: str = "d1", queue: str = "default") -> bool:
        """Whether the message is still there, delivered or not."""
        subject = self.names.task(queue, dispatch_id)
        return bool(self.server.messages(self.names.tasks_stream, subject))

    async def done(self, dispatch_id: str = "d1") -> None:
        """Wait until a message was acked or removed."""
        await wait_until(lambda: not self.is_queued(dispatch_id), 5, f"{dispatch_id} to be acked")

    async def happened(self, *events: str) -> None:
        """Wait until exactly these reports and acks have come, in this order."""
        await wait_until(lambda: len(self.events) >= len(events), 5, f"{events}")
        assert self.events == list(events)

    async def counted(self, event: str, times: int) -> None:
        """Wait until something has happened so many times."""
        await wait_until(lambda: self.events.count(event) == times, 5, f"{times} x {event}")

    def dead_letters(self) -> list[bytes]:
        return [message.body for message in self.server.messages(self.names.dead_letters_stream)]

    async def idle(self, worker: Worker) -> None:
        """Wait until a worker holds nothing at all."""
        await wait_until(lambda: not holdings(worker), 5, f"nothing left of {holdings(worker)}")


def holdings(worker: Worker) -> dict[str, object]:
    """What a worker keeps of its workloads; nothing once they are over."""
    kept = {
        "slots": worker.state.slots.used,
        "errands": len(worker.crew.errands),
        "tasks": len(worker.crew.tasks),
        "leases": len(worker.leases),
    }
    return {name: number for name, number in kept.items() if number}


@pytest.fixture(name="worker_stage")
async def worker_stage_fixture(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerStage]:
    """A stage on which every worker must end with nothing in hand."""
    options = {
        "ack_wait_seconds": ACK_WAIT,
        "drain_seconds": 5,
        "kill_seconds": 0.3,
        "starts_at_once": 1000,  # most tests end no start
    }
    worker_stage = WorkerStage(settings_for("nats://127.0.0.1:4222", **options))
    await setup.apply(worker_stage.broker, worker_stage.settings, QUEUES)
    monkeypatch.setattr(worker_module, "connect", worker_stage.server.connect)
    monkeypatch.setattr(worker_module, "ProcessPool", lambda **_: worker_stage.pool.branch())
    monkeypatch.setattr(Worker, "listen_to_signals", lambda _: None)
    monkeypatch.setattr(liveness, "PING_PAUSE_SECONDS", 0.0)
    for pauses in ("TESTS", "TRIALS"):
        monkeypatch.setattr(fitness, pauses, (0.01, 0.01))
    yield worker_stage
    for worker in worker_stage.workers:
        life = worker_stage.lives[worker.state.id]
        if not life.done():
            await worker_stage.idle(worker)
            await worker_stage.stop(worker)
        assert not holdings(worker)
