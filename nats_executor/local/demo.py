"""Runs `airflow nats demo`: starts everything on one machine, runs one Dag and judges the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import airflow_nats_executor
from nats_executor.errors import BrokerUnavailable, NatsExecutorError
from nats_executor.local.api import AirflowApi, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import (
    MIGRATE_SECONDS,
    Deployment,
    free_port,
    python_environment,
    require_free_port,
)
from nats_executor.local.embedded import HOST, EmbeddedServer, write_private
from nats_executor.local.expected import WORKERS, deviations, rows_of
from nats_executor.local.interrupts import (
    Interrupted,
    interrupts_held,
    interrupts_raised,
    run_until_interrupted,
)
from nats_executor.local.process import LocalError
from nats_executor.local.view import View

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker
    from nats_executor.local.expected import TaskRow
    from nats_executor.settings import Settings
    from nats_executor.wire.messages import Report

__all__ = ["run_demo"]

DAG_ID = "nats_demo"
LOGIN_NAME = "admin"
CONCURRENCY = 4
FINAL = {"success", "failed"}
# Far above what two slow cores need. A component that dies is noticed at once.
READY_SECONDS = 300.0
RUN_SECONDS = 300.0
FOLLOW_SECONDS = 0.4
# The demo keeps no data, so its components need no time to close in good order.
DEMO_STOP_SECONDS = 1.0
WORKER_GRACE_SECONDS = 5.0


def run_demo(args: Namespace) -> None:
    """Run the demo and exit: 0 as expected, 1 otherwise, 130 after Ctrl-C.

    Args:
        args: `port` of the API server (None for a free one), `keep` to keep the AIRFLOW_HOME,
            `verbose` to show what this process logs besides.
    """
    if not args.verbose:
        logging.getLogger("nats_executor").setLevel(logging.WARNING)
    view = View(Console(highlight=False))
    with interrupts_raised():
        try:
            with temporary_home(keep=args.keep) as home:
                code = show_run(view, home, port=args.port)
        except Interrupted as exc:
            view.say(f"stopped by {exc}; everything is gone")
            code = exc.exit_code
        except NatsExecutorError as exc:
            sys.stderr.write(f"airflow nats demo: {exc}\n")
            code = 1
    raise SystemExit(code)


def show_run(view: View, home: Path, *, port: int | None) -> int:
    """Start everything, run the Dag, show it and return the exit code."""
    if port is not None:
        require_free_port(port, host=HOST, setting="--port")
    port = port or free_port()
    password = secrets.token_urlsafe(12)
    with EmbeddedServer(home / "nats") as server:
        view.say(f"nats-server with JetStream at {server.url}, AIRFLOW_HOME {home}")
        env = demo_environment(home, port=port, password=password) | server.environment()
        deployment = Deployment(
            env=env,
            logs=home / "components",
            grace_seconds=DEMO_STOP_SECONDS,
            worker_grace_seconds=WORKER_GRACE_SECONDS,
        )
        api = AirflowApi(port)
        # The workers stop first: they report what they had to a broker and an API that still run.
        with Components(needs=server) as core, Components(needs=core) as workers:
            workers.start(
                deployment.worker(name, queues=queue, concurrency=CONCURRENCY)
                for queue, name in WORKERS.items()
            )
            core.run(deployment.migration(), seconds=MIGRATE_SECONDS)
            view.say("database created")
            core.start(deployment.core(host=HOST, port=port))
            run_id = triggered_run(api, workers, password=password)
            view.say(
                f"Airflow at http://{HOST}:{port} (login {LOGIN_NAME} / {password}); {DAG_ID} runs"
            )
            with view.following():
                following = follow(api, run_id, workers, view=view, env=env)
                rows, state = run_until_interrupted(following)
            found = deviations(rows, run_state=state, result=api.xcom(DAG_ID, run_id, "report"))
            return report(view, rows, found)


def report(view: View, rows: list[TaskRow], found: list[str]) -> int:
    """Print the summary and the verdict; return the exit code."""
    view.summary(rows)
    for line in found:
        view.say(f"NOT AS EXPECTED  {line}")
    if not found:
        view.say(f"{len(rows)} task instances on {len(WORKERS)} workers: all as expected")
    return 1 if found else 0


def triggered_run(api: AirflowApi, workers: Components, *, password: str) -> str:
    """Wait until Airflow knows the Dag, then trigger it and return the run id."""

    def is_ready() -> bool:
        try:
            if not api.token:
                api.log_in(LOGIN_NAME, password)
            return api.has_dag(DAG_ID)
        except ApiSilent:
            return False

    description = f"API server on port {api.port} and Dag {DAG_ID}"
    workers.wait_until(is_ready, seconds=READY_SECONDS, description=description)
    return api.trigger(DAG_ID)


async def follow(
    api: AirflowApi, run_id: str, workers: Components, *, view: View, env: dict[str, str]
) -> tuple[list[TaskRow], str]:
    """Show the run until it is over; return its task instances and its state.

    Raises:
        LocalError: a component has died or the run takes too long.
    """
    from nats_executor.broker.connection import connect

    settings = embedded_settings(env)
    deadline = time.monotonic() + RUN_SECONDS
    state = "not known"
    async with connect(settings, role="demo") as broker:
        await broker.ready(settings.connect_timeout_seconds)
        while time.monotonic() < deadline:
            workers.require_alive()
            # A busy server may not answer; the next look asks again.
            with contextlib.suppress(ApiSilent, BrokerUnavailable):
                # The state first: what is read after it is at least as new.
                state = api.run_state(DAG_ID, run_id)
                instances = api.task_instances(DAG_ID, run_id)
                rows = rows_of(instances, await reports_of(broker, settings, run_id))
                view.show(rows)
                if state in FINAL:
                    return rows, state
            await asyncio.sleep(FOLLOW_SECONDS)
    raise LocalError(f"the run is {state} after {RUN_SECONDS:g} s")


async def reports_of(broker: Broker, settings: Settings, run_id: str) -> list[Report]:
    """Return the last report of every dispatch of a run's tasks, from the result stream."""
    from nats_executor.wire.messages import Kind, Report, decode

    names = settings.names
    stored = await broker.scan(names.results_stream, names.results())
    last = {message.subject: message for message in stored}
    reports = [decode(Report, message.body) for message in last.values()]
    return [r for r in reports if r.kind == Kind.TASK and run_id in r.key]


def embedded_settings(env: dict[str, str]) -> Settings:
    """Return the settings that the components have; this process has the user's own."""
    from nats_executor.settings import Settings

    class Environment:
        def get(self, section: str, key: str, *, fallback: Any) -> Any:
            return env.get(f"AIRFLOW__{section}__{key}".upper(), fallback)

    return Settings.load(Environment())


def demo_environment(home: Path, *, port: int, password: str) -> dict[str, str]:
    """Return the whole environment of the demo's Airflow: nothing of the user's own settings."""
    passwords = home / "passwords.json"
    write_private(passwords, json.dumps({LOGIN_NAME: password}))
    url = f"http://{HOST}:{port}"
    settings = {
        "CORE__EXECUTOR": "nats_executor.NatsExecutor",
        "CORE__DAGS_FOLDER": str(Path(airflow_nats_executor.__path__[0], "example_dags")),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__FERNET_KEY": "",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN_NAME}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        # Seven processes write to one SQLite file.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=30",
        "API__BASE_URL": url,
        # Each process would otherwise make up a key of its own before the first has stored one.
        "API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        # Its default is a second, which the demo's chain of tasks would wait for at each step.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # After Ctrl-C the tasks of a demo need not end by themselves.
        "NATS_EXECUTOR__DRAIN_SECONDS": "0",
        "NATS_EXECUTOR__KILL_SECONDS": "2",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
    own = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    return inherited | python_environment(home) | own | {"AIRFLOW_HOME": str(home)}


@contextlib.contextmanager
def temporary_home(*, keep: bool) -> Iterator[Path]:
    """Give a directory that is removed afterwards; the log of a component that died is kept."""
    home = Path(tempfile.mkdtemp(prefix="airflow-nats-demo-"))
    try:
        yield home
    except LocalError as exc:
        if not keep and exc.log is not None:
            exc.log = Path(shutil.copy(exc.log, f"{home}-{exc.log.name}"))
        raise
    finally:
        if not keep:
            with interrupts_held():
                shutil.rmtree(home, ignore_errors=True)
