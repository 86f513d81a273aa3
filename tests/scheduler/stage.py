"""The stage of the executor: its broker, the workloads that it gets, the worker that answers."""

from __future__ import annotations

import threading
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import Mock

from airflow.executors import workloads
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod
from airflow.executors.workloads.task import TaskInstanceDTO
from anyio.from_thread import start_blocking_portal

from nats_executor import NatsExecutor
from nats_executor.broker.connection import connect
from nats_executor.scheduler import compat
from nats_executor.wire.messages import Report, State, Workload, decode, encode
from nats_executor.wire.names import Lane
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.rowless import allow_workloads_without_rows
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import pytest
    from airflow.executors.workloads import ExecutorWorkload

    from nats_executor.broker.port import Broker
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

__all__ = [
    "FakeStage",
    "RealStage",
    "Stage",
    "callback_workload",
    "connection_test_workload",
    "events",
    "queue_up",
    "task_workload",
    "unserved",
]

BUNDLE = BundleInfo(name="dags", version=None)
SECRET = "a.very-secret.token"


def task_workload(
    task_id: str = "t",
    *,
    queue: str = "default",
    priority: int = 1,
    dispatch_id: str | None = "",
    ti_id: uuid.UUID | None = None,
    token: str = SECRET,
    **fields: Any,
) -> workloads.ExecuteTask:
    """Return what the scheduler hands over for a task; '' stands for an id that it assigned."""
    ti = TaskInstanceDTO(
        id=ti_id or uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        dag_id="a_dag",
        task_id=task_id,
        run_id="a_run",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue=queue,
        priority_weight=priority,
        external_executor_id=str(uuid.uuid4()) if dispatch_id == "" else dispatch_id,
        **fields,
    )
    return workloads.ExecuteTask(
        ti=ti, dag_rel_path=Path("a_dag.py"), token=token, log_path="a.log", bundle_info=BUNDLE
    )


def callback_workload(**kwargs: Any) -> workloads.ExecuteCallback:
    callback = CallbackDTO(
        id=str(uuid.uuid4()),
        fetch_method=CallbackFetchMethod.IMPORT_PATH,
        data={"path": "a.callback", "kwargs": kwargs},
    )
    return workloads.ExecuteCallback(
        callback=callback,
        dag_rel_path=Path("a_dag.py"),
        token=SECRET,
        log_path="a.log",
        bundle_info=BUNDLE,
    )


def connection_test_workload(queue: str | None = None) -> workloads.TestConnection:
    return workloads.TestConnection(
        connection_test_id=uuid.uuid4(),
        connection_id="a_connection",
        timeout=10,
        queue=queue,
        token=SECRET,
    )


def queue_up(executor: NatsExecutor, *items: ExecutorWorkload) -> None:
    """Hand workloads over as the scheduler does; the session is not used."""
    session = Mock()  # each one is a class of its own: ten thousand would be a lot of garbage
    for item in items:
        executor.queue_workload(item, session=session)


def events(executor: NatsExecutor, count: int = 1) -> dict[Any, tuple[Any, Any]]:
    """Heartbeat as the scheduler does until there are so many events, and return them."""

    def beat() -> bool:
        executor.heartbeat()
        return len(executor.event_buffer) >= count

    block_until(beat, 60, f"{count} events")
    return dict(executor.get_event_buffer())


def unserved(executor: NatsExecutor, queue: str = "default", band: int = 0) -> None:
    """Let an executor know that no worker serves a queue, which it finds out at each sweep."""
    assert executor._connected.dispatcher
    executor._connected.dispatcher.inspector.unserved.add(Lane(queue, band))


class Stage(ABC):
    """A broker, and a connection of its own that looks into it and reports as a worker would."""

    broker: Broker

    def __init__(self, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = names
        self.monkeypatch = monkeypatch
        self.exits = ExitStack()
        self.executors: list[NatsExecutor] = []
        self.portal = self.exits.enter_context(start_blocking_portal("asyncio"))
        allow_workloads_without_rows(monkeypatch)
        # Long enough for the algorithm that Airflow signs with.
        monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "k" * 64)
        # A busy machine takes its time, and what is to be seen here does not depend on it.
        self.configure(
            subject_prefix=names.prefix, publish_timeout_seconds=10, connect_timeout_seconds=1
        )

    @abstractmethod
    def connection(self) -> AbstractAsyncContextManager[Broker]:
        """Open the peer's connection."""

    def __enter__(self) -> Self:
        self.broker = self.connect_peer()
        return self

    def __exit__(self, *_: object) -> None:
        for executor in self.executors:
            executor.end()
        self.exits.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "nats-executor"]

    def connect_peer(self) -> Broker:
        connection = self.portal.wrap_async_context_manager(self.connection())
        return self.exits.enter_context(connection)

    def configure(self, *, team: str = "", **options: object) -> None:
        """Set options of `[nats_executor]` where Airflow looks first."""
        section = f"{team.upper()}___NATS_EXECUTOR" if team else "NATS_EXECUTOR"
        for name, value in options.items():
            self.monkeypatch.setenv(f"AIRFLOW__{section}__{name.upper()}", str(value))

    def executor(self, *, job_id: int = 7, **arguments: Any) -> NatsExecutor:
        """Construct and start an executor; it ends with the test."""
        executor = NatsExecutor(**arguments)
        executor.job_id = job_id
        executor.start()
        self.executors.append(executor)
        return executor

    # The peer

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the peer's connection and return its result."""
        return self.portal.call(partial(getattr(self.broker, method), *arguments, **options))

    def sent(self, names: Names | None = None) -> list[Workload]:
        """Return the workloads in the task stream, oldest first."""
        names = names or self.names
        found = self.ask("scan", names.tasks_stream, names.tasks())
        return [decode(Workload, message.body) for message in found]

    def subjects(self) -> list[str]:
        found = self.ask("scan", self.names.tasks_stream, self.names.tasks())
        return [message.subject for message in found]

    def sent_by(self, executor: NatsExecutor, *items: ExecutorWorkload) -> list[Workload]:
        """Send workloads through an executor and return them as the worker finds them."""
        queue_up(executor, *items)
        executor.heartbeat()
        keys = {str(compat.key_of(item)) for item in items}
        assert keys <= {str(key) for key in executor.running}
        return self.sent()

    def report(
        self, about: Workload, state: State, names: Names | None = None, **fields: Any
    ) -> None:
        """Report on a workload as a worker does."""
        names = names or self.names
        defaults: dict[str, Any] = {
            "dispatch_id": about.dispatch_id,
            "queue": about.queue,
            "kind": about.kind,
            "key": about.key,
            "worker": "w1",
            "worker_name": "worker-1",
            "at": time.time(),
        }
        report = Report(state=state, **(defaults | fields))
        self.ask("publish", names.result(about.queue, about.dispatch_id), encode(report))

    def last_report(self, about: Workload) -> Report:
        subject = self.names.result(about.queue, about.dispatch_id)
        return decode(Report, self.ask("last", self.names.results_stream, subject).body)

    def seen(self, executor: NatsExecutor) -> None:
        """Return once the executor has read everything that was reported so far.

        A reader reads in order: what is told last is seen last.
        """
        marker = task_workload("marker", queue="marker")
        self.sent_by(executor, marker)
        dispatch_id = marker.ti.external_executor_id
        [workload] = [w for w in self.sent() if w.dispatch_id == dispatch_id]
        self.report(workload, State.DROPPED)
        key = compat.key_of(marker)

        def is_read() -> bool:
            executor.sync()
            return key not in executor.running

        block_until(is_read, 10, "the marker to be read")


class FakeStage(Stage):
    """Everything in memory."""

    def __init__(self, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(names, monkeypatch)
        self.server = FakeServer()
        monkeypatch.setattr("nats_executor.scheduler.dispatcher.connect", self.server.connect)

    def connection(self) -> AbstractAsyncContextManager[Broker]:
        return self.server.connect()


class RealStage(Stage):
    """A nats-server process."""

    def __init__(self, names: Names, monkeypatch: pytest.MonkeyPatch, server: NatsServer) -> None:
        super().__init__(names, monkeypatch)
        self.server = server
        self.configure(servers=server.url)

    def connection(self) -> AbstractAsyncContextManager[Broker]:
        settings = settings_for(self.server.url, subject_prefix=self.names.prefix)
        return connect(settings, role="peer")

    def __enter__(self) -> Self:
        super().__enter__()
        self.ask("ready", 5.0)
        return self

    def start(self) -> None:
        """Start the server again, and return once the peer is back, too."""
        self.server.start()
        self.ask("ready", 60.0)

    def restart(self) -> None:
        self.server.stop()
        block_until(lambda: not self.broker.is_connected, 30, "the peer to notice it")
        self.start()
