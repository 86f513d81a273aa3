"""The stage of the micro measurements: servers of their own, and Airflow's environment."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nats_executor.wire.names import Names
from tests.airflow.postgres import PostgresServer, programs
from tests.bench.needs import missing, require_contender
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, free_port
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.settings import Settings

__all__ = ["BenchStage", "cpu_seconds", "new_prefix", "resident_megabytes", "settings_of"]

START_SECONDS = 20.0
# No executor's own limit may end a batch early.
PARALLELISM = 1_000_000


def new_prefix() -> str:
    """Return a subject prefix that no other run has used, so that each run has new streams."""
    return f"b{secrets.token_hex(5)}"


class BenchStage:
    """A nats-server, and a database and Redis where they are asked for and installed.

    Attributes:
        environment: for processes that load Airflow.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        require_contender("nats")
        self.directory = directory
        self.say = say
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.exits = ExitStack()
        self.nats = NatsServer(directory / "nats")
        home = directory / "airflow"
        home.mkdir()
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__API_AUTH__JWT_SECRET": "k" * 64,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__NATS_EXECUTOR__SERVERS": self.nats.url,
        }

    def __enter__(self) -> Self:
        self.exits.callback(self.nats.kill)
        with ExitStack() as undo:
            undo.callback(self.exits.close)
            self.nats.start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.exits.close()

    def add_database(self) -> None:
        """Give Airflow its tables, in PostgreSQL if there is one."""
        self.say(f"starting {'PostgreSQL' if programs() else 'SQLite'}, with Airflow's tables")
        if programs():
            url = self.exits.enter_context(PostgresServer()).url
            self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
        with (self.logs / "migrate.log").open("wb") as log:
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT, check=True,
            )  # fmt: skip

    def add_celery(self) -> bool:
        """Start Redis and name both stores; returns whether there is all that Celery needs."""
        if missing("celery"):
            return False
        port = self.start_redis()
        database = self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        self.environment |= {
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        }
        return True

    def start_redis(self) -> int:
        """Start a Redis with the settings that it has by itself; returns its port."""
        directory, port = self.directory / "redis", free_port()
        directory.mkdir()
        with (directory / "redis.log").open("wb") as log:
            process = subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1",
                 "--dir", str(directory)],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.exits.callback(process.wait)
        self.exits.callback(process.kill)
        ping = ["redis-cli", "-p", str(port), "ping"]
        block_until(
            lambda: b"PONG" in subprocess.run(ping, capture_output=True, check=False).stdout,
            START_SECONDS,
            "Redis",
        )
        return port

    def with_prefix(self, prefix: str) -> dict[str, str]:
        return self.environment | {"AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX": prefix}

    def renew_nats(self) -> None:
        """Start the server again with nothing in it, so that no round finds another's streams."""
        self.nats.kill()
        self.nats.wipe_storage()
        self.nats.start()

    @property
    def nats_pid(self) -> int:
        assert self.nats.process
        return self.nats.process.pid


def settings_of(url: str, prefix: str) -> Settings:
    """The defaults, with the names of one run."""
    settings = settings_for(url, subject_prefix=prefix)
    assert settings.names == Names(prefix)
    return settings


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
