"""The README's "Point Airflow at your cluster", followed to the letter: its first task runs.

Only addresses, ports and the secret are put in, and what every Airflow needs: a folder of Dags, a
login. The wheel that README installs is this checkout; `make release-check` installs it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.local.api import AirflowApi, ApiSilent
from nats_executor.local.components import Components
from nats_executor.local.deployment import free_port, python_environment
from nats_executor.local.process import Process
from tests.airflow.postgres import PostgresServer
from tests.support.nats_server import NatsServer
from tests.support.waiting import block_until
from tests.tools.boundaries import ROOT
from tests.tools.installing import current, is_released, version

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.timeout(900),
]

DATABASE = "postgresql+psycopg2://airflow:secret@postgres/airflow"
SECRET = "<the same long random text at API servers and schedulers>"
USER = "admin"
START_SECONDS = 300
DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def first():
    @task(queue="gpu", retries=0)
    def hello():
        print("hello from", __name__)

    hello()

first()
"""


def blocks() -> dict[str, str]:
    """Return the code blocks of the section, by their language."""
    readme = (ROOT / "README.md").read_text()
    [section] = re.findall(
        r"^## Point Airflow at your cluster\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL
    )
    return dict(re.findall(r"(?ms)^```(\w+)\n(.*?)^```", section))


def commands() -> list[list[str]]:
    """Return the commands of the section, without prompts and remarks."""
    lines = [line for line in blocks()["console"].splitlines() if line.startswith("$ ")]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]


class Cluster:
    """An Airflow whose configuration is the README's, with processes that a person would start."""

    def __init__(self, home: Path, server: str, database: str) -> None:
        self.home = home
        self.port = free_port()
        self.api = AirflowApi(self.port)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
        self.env = inherited | python_environment(home) | {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.configure(server, database)

    def configure(self, server: str, database: str) -> None:
        """Write the README's settings, and those of any Airflow."""
        dags, passwords = self.home / "dags", self.home / "passwords.json"
        dags.mkdir()
        (dags / "first.py").write_text(DAG)
        passwords.write_text(json.dumps({USER: USER}))
        text = blocks()["ini"]
        put_in = {
            "airflow-api:8080": f"127.0.0.1:{self.port}",
            DATABASE: database,
            SECRET: secrets.token_urlsafe(64),
            "nats://nats-1:4222": server,
        }
        for placeholder, value in put_in.items():
            assert placeholder in text
            text = text.replace(placeholder, value)
        usual = {
            "dags_folder": dags,
            "load_examples": False,
            "simple_auth_manager_users": f"{USER}:admin",
            "simple_auth_manager_passwords_file": passwords,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in usual.items())
        text = text.replace("[core]\n", f"[core]\n{lines}")
        (self.home / "airflow.cfg").write_text(text)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, check=False, timeout=300
        )

    def process(self, command: list[str], name: str = "", **env: str) -> Process:
        name = name or command[1]
        return Process(name, command, log=self.home / f"{name}.log", env=self.env | env)

    def is_ready(self) -> bool:
        try:
            if not self.api.token:
                self.api.log_in(USER, USER)
            return self.api.has_dag("first")
        except ApiSilent:
            return False

    def trigger(self) -> str:
        self.api.call("PATCH", "/api/v2/dags/first", {"is_paused": False})
        return self.api.trigger("first")


@contextmanager
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, Components]]:
    """Start what the README takes for granted: one nats-server and PostgreSQL."""
    with ExitStack() as exits:
        database = exits.enter_context(PostgresServer())
        server = NatsServer(tmp_path / "nats")
        exits.callback(server.kill)
        server.start()
        airflow = Cluster(tmp_path, server.url, database.url)
        running = exits.enter_context(Components())
        yield airflow, running


def the_wheel() -> str:
    """Return what can be installed now."""
    name = "$ pip install airflow-nats-executor"
    return current(name, released=is_released(), release=version()).split()[-1]


def test_the_steps_of_the_readme_lead_to_a_first_task(tmp_path: Path) -> None:
    *build, install, migrate, setup, worker, check = commands()
    assert build == ([] if is_released() else [["make", "build"]])
    assert install == ["pip", "install", the_wheel(), "psycopg2-binary", "asyncpg"]
    with cluster(tmp_path) as (airflow, running):
        for step in (migrate, setup):
            done = airflow.run(step)
            assert done.returncode == 0, done.stderr
        running.start([
            airflow.process(["airflow", "api-server", "--port", str(airflow.port)]),
            airflow.process(["airflow", "dag-processor"]),
            airflow.process(["airflow", "triggerer"]),
            airflow.process(worker, "worker"),
        ])  # fmt: skip
        # It signs with another secret, as it would if the README did not name that setting.
        wrong = {"AIRFLOW__API_AUTH__JWT_SECRET": "another"}
        scheduler = airflow.process(["airflow", "scheduler"], "scheduler-wrong", **wrong)
        with Components() as others:
            others.start([scheduler])
            running.wait_until(airflow.is_ready, seconds=START_SECONDS, description="the Dag")
            refused = airflow.trigger()
            log = tmp_path / "worker.log"
            says = "[api_auth] jwt_secret must be the same there and at the schedulers"
            block_until(lambda: says in log.read_text(), START_SECONDS, "the worker's line")
            assert airflow.api.run_state("first", refused) in {"queued", "running"}

        running.start([airflow.process(["airflow", "scheduler"])])
        run_id = airflow.trigger()
        runs = (refused, run_id)
        states: dict[str, Any] = {}

        def are_over() -> bool:
            states.update({run: airflow.api.run_state("first", run) for run in runs})
            return set(states.values()) <= {"success", "failed"}

        running.wait_until(are_over, seconds=START_SECONDS, description="the first tasks to end")
        assert states == dict.fromkeys(runs, "success")
        checked = airflow.run(check)
        assert checked.returncode == 0, checked.stdout + checked.stderr
