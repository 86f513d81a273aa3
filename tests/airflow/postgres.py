"""A private PostgreSQL cluster, with the programs that the machine has."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.support.nats_server import free_port
from tests.support.require import require
from tests.support.waiting import block_until

__all__ = ["PostgresServer"]

DEBIAN = Path("/usr/lib/postgresql")
# PostgreSQL refuses to run as root; Debian's package brings this user.
USER = "postgres"
START_SECONDS = 30


def programs() -> Path | None:
    """Return the directory of the newest PostgreSQL."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresServer:
    """A cluster without durability; its port and its data outlive `stop` and `start`."""

    def __init__(self) -> None:
        found = programs()
        require(found, "PostgreSQL is not installed")
        assert found is not None
        self.programs = found
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="airflow-nats-postgres-"))
        try:
            if os.geteuid() == 0:
                shutil.chown(self.directory, USER, USER)
                self.identity = {
                    "user": USER, "group": USER, "extra_groups": [], "cwd": self.directory
                }  # fmt: skip
            options = ["-A", "trust", "-U", "airflow", "-E", "UTF8", "--no-sync"]
            initdb = [str(self.programs / "initdb"), "-D", str(self.data), *options]
            subprocess.run(initdb, check=True, capture_output=True, **self.identity)
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGINT)  # "fast": does not wait for clients
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> Self:
        """Start it and return when it takes connections, after a recovery if it needs one."""
        # Three schedulers, an API server and their pools.
        options = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=300"]
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.data, "-p", str(self.port),
             "-k", self.directory, *(word for option in options for word in ("-c", option))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **self.identity,
        )  # fmt: skip
        ready = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        block_until(
            lambda: subprocess.run(ready, check=False).returncode == 0,
            START_SECONDS,
            "PostgreSQL",
        )
        return self

    def stop(self, how: signal.Signals) -> None:
        """Stop it: SIGQUIT is its "immediate" mode, which leaves a recovery to the next start."""
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(START_SECONDS)
        self.process = None
