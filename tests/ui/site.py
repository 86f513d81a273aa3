"""An API server of Airflow, a nats-server, and what others would have left there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from nats_executor.broker.connection import connect
from nats_executor.fleet.workers import seen_workers
from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import Deployment, free_port, python_environment
from nats_executor.topology import setup
from nats_executor.ui.tables import last_full_minute
from nats_executor.wire.bounds import packed
from nats_executor.wire.history import extended
from nats_executor.wire.messages import Kind, Workload, as_map, encode
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer
from tests.support.presences import presence_of, records_of
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.local.process import Process
    from nats_executor.wire.history import Minute
    from nats_executor.wire.messages import Presence

__all__ = ["ROLES", "Site"]

ROLES = ("admin", "op", "viewer")
START_SECONDS = 300.0


class Site:
    """One API server; each user has its role's name as name and password.

    Args:
        path: of `[api] base_url`, such as `/airflow`.
        nats_config: more configuration of the nats-server.
        options: of `[nats_executor]`.
    """

    def __init__(
        self, home: Path, *, path: str = "", nats_config: str = "", **options: object
    ) -> None:
        self.home = home
        self.broker = NatsServer(home / "nats", config=nats_config)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{path}"
        self.path = path
        self.options = options
        self.settings = settings_for(self.broker.url)
        self.api = AirflowApi(self.port)
        self.exits = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({role: role for role in ROLES}))
        settings: dict[str, object] = {
            "API__BASE_URL": self.url,
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "CORE__DAGS_FOLDER": self.home / "dags",
            "CORE__EXECUTOR": "nats_executor.NatsExecutor",
            "CORE__FERNET_KEY": "",
            "CORE__LOAD_EXAMPLES": False,
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=30",
            "NATS_EXECUTOR__SERVERS": self.broker.url,
        } | {f"NATS_EXECUTOR__{name.upper()}": value for name, value in self.options.items()}
        own = {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
        here = {"AIRFLOW_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return python_environment(self.home) | own | here

    def __enter__(self) -> Self:
        with self.exits:
            (self.home / "dags").mkdir(parents=True)
            self.exits.callback(self.broker.kill)
            self.broker.start()
            inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
            self.deployment = Deployment(
                env=inherited | self.environment,
                logs=self.home / "components",
                grace_seconds=1.0,
                worker_grace_seconds=5.0,
            )
            self.components = self.exits.enter_context(Components())
            self.run(self.deployment.migration())
            [server, *_] = self.deployment.core(host="127.0.0.1", port=self.port)
            self.components.start([server])
            self.wait(self.is_ready, "the API server to be ready")
            self.exits = self.exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def is_ready(self) -> bool:
        try:
            self.api.call("GET", f"{self.path}/api/v2/version")
        except (ApiError, ApiSilent):
            return False
        return True

    def wait(self, is_so: Callable[[], bool], description: str) -> None:
        self.components.wait_until(is_so, seconds=START_SECONDS, description=description)

    def token(self, role: str) -> str:
        """Return a login; on a busy machine an answer may get lost."""
        self.api.token = ""
        body = {"username": role, "password": role}
        found: list[str] = []

        def has_logged_in() -> bool:
            with contextlib.suppress(ApiSilent):
                answer = self.api.call("POST", f"{self.path}/auth/token", body)
                found.append(answer["access_token"])
            return bool(found)

        self.wait(has_logged_in, f"a login as {role}")
        return found[0]

    def add_worker(self, name: str, queues: str) -> None:
        """Start a real one; returns once it is listed."""
        self.components.start([self.deployment.worker(name, queues=queues, concurrency=4)])
        self.wait(lambda: name in self.workers(), f"worker {name} to be there")

    def workers(self) -> dict[str, Presence]:
        found = self.ask(lambda broker: seen_workers(broker, self.settings))
        return {seen.presence.name: seen.presence for seen in found}

    def plant(self) -> None:
        """Leave a Dag's run: a failed task with its dead letter, and two that wait."""
        process = self.deployment.process("planted")
        process.command = [sys.executable, "-m", "tests.ui.planted", self.broker.url]
        self.run(process)

    def run(self, process: Process) -> None:
        """Run a process that ends by itself."""
        process.start()
        try:
            assert process.wait_for_end(START_SECONDS) == 0, process.failure()
        finally:
            process.stop()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask Airflow's database."""
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as database:
            return database.execute(query).fetchall()

    # What others leave in NATS

    def ask(self, question: Callable[[Broker], Awaitable[Any]]) -> Any:
        async def talk() -> Any:
            async with connect(self.settings, role="test") as broker:
                await broker.ready(10)
                return await question(broker)

        # Playwright has a loop running in the test's own thread.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(talk())).result()

    def set_up(self, queues: Iterable[str] = ()) -> None:
        names = list(queues)
        self.ask(lambda broker: setup.apply(broker, self.settings, names))

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        async def send(broker: Broker) -> None:
            for subject, body in messages:
                await broker.publish(subject, body)

        self.ask(send)

    def announce(self, *names: str, queues: Iterable[str] = ("default",), **facts: Any) -> None:
        """Write the records of workers that run nowhere."""
        served = tuple(queues)
        self.publish(
            record
            for name in names
            for record in records_of(
                self.settings.names, replace(presence_of(name, *served), **facts)
            )
        )

    def remember(self, queue: str, *minutes: Minute) -> None:
        """Write down the last minutes of a queue, as schedulers do."""
        history, last = None, last_full_minute(time.time())
        for minute, seen in enumerate(minutes, start=last - len(minutes) + 1):
            history = extended(history, queue, minute, seen)
        self.publish([(self.settings.names.queue_history(queue), packed(as_map(history)))])

    def send(self, queue: str, *dispatches: str) -> None:
        """Send tasks, as a scheduler does."""
        self.publish(
            (self.settings.names.task(queue, dispatch), workload(queue, dispatch))
            for dispatch in dispatches
        )

    def bury(self, queue: str, *dispatches: str, reason: str = "it was too large") -> None:
        """Leave dead letters, as a worker does."""

        async def send(broker: Broker) -> None:
            for dispatch in dispatches:
                await broker.publish(
                    self.settings.names.dead_letter(queue, dispatch),
                    workload(queue, dispatch),
                    headers={"Airflow-Reason": reason},
                )

        self.ask(send)


def workload(queue: str, dispatch: str) -> bytes:
    instance = {
        "dag_id": "daily", "run_id": "r 1", "task_id": f"load-{dispatch}", "map_index": -1,
        "try_number": 1, "id": dispatch,
    }  # fmt: skip
    return encode(
        Workload(
            dispatch_id=dispatch, queue=queue, kind=Kind.TASK, body={"ti": instance}, key=[],
            sender="test",
        )
    )  # fmt: skip
