"""Describes the processes of Airflow on one machine: their commands and their environment."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nats_executor.local.process import LocalError, Process

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MIGRATE_SECONDS",
    "Deployment",
    "free_port",
    "python_environment",
    "require_free_port",
]

MIGRATE_SECONDS = 300.0
# Below the range from which Linux and macOS take the ports of outgoing connections.
PORTS = range(20_000, 32_000)


class Deployment:
    """Makes the processes of Airflow, with one environment for all of them; starts none.

    Args:
        logs: a directory that gets one log file for each component.
        grace_seconds: what a component gets to stop by itself.
        worker_grace_seconds: the same for a worker, which has tasks to stop and to report.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        logs: Path,
        grace_seconds: float,
        worker_grace_seconds: float,
    ) -> None:
        self.env = dict(env)
        self.logs = logs
        self.grace_seconds = grace_seconds
        self.worker_grace_seconds = worker_grace_seconds
        logs.mkdir(parents=True, exist_ok=True)

    def migration(self) -> Process:
        """`airflow db migrate`, which creates the tables where there are none."""
        return self.process("db-migrate", "db", "migrate")

    def setup(self, *, queues: str) -> Process:
        """`airflow nats setup`, so that the queues are there before their first task."""
        return self.process("nats-setup", "nats", "setup", "-q", queues)

    def core(self, *, host: str, port: int) -> list[Process]:
        """Everything but the workers."""
        return [
            self.process(
                "api-server", "api-server", "--host", host, "--port", str(port), "-w", "1"
            ),
            self.process("scheduler", "scheduler", "--skip-serve-logs"),
            self.process("dag-processor", "dag-processor"),
            self.process("triggerer", "triggerer", "--skip-serve-logs"),
        ]

    def worker(self, name: str, *, queues: str, concurrency: int | None = None) -> Process:
        """A NATS worker; it serves no logs, because all processes here read the same directory."""
        arguments = ["-q", queues, "-H", name]
        if concurrency is not None:
            arguments += ["-c", str(concurrency)]
        process = self.process(name, "nats", "worker", *arguments)
        process.grace_seconds = self.worker_grace_seconds
        return process

    def process(self, name: str, *arguments: str) -> Process:
        return Process(
            name,
            [sys.executable, "-m", "airflow", *arguments],
            log=self.logs / f"{name}.log",
            env=self.env,
            grace_seconds=self.grace_seconds,
        )


def python_environment(home: Path) -> dict[str, str]:
    """Return what every component needs in its environment besides Airflow's own settings."""
    local = "127.0.0.1,localhost"
    env = {
        "PYTHONUNBUFFERED": "1",
        # A proxy for the internet must not get what the components say to each other.
        **{k: ",".join(filter(None, (os.environ.get(k), local))) for k in ("NO_PROXY", "no_proxy")},
    }
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and not is_compiled("airflow"):
        # Without bytecode each of the seven processes compiles all of Airflow, four seconds each.
        # The user does not want it beside the sources; here it is out of the way.
        cache = os.environ.get("PYTHONPYCACHEPREFIX", str(home / "pycache"))
        env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    return env


def is_compiled(package: str) -> bool:
    """Whether a package's bytecode is where Python looks for it, as pip leaves it and uv not."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.cached is not None and Path(spec.cached).exists()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free, and that no outgoing connection takes before it is bound."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError):  # taken
            socket.create_server((host, port)).close()
            return port
    raise LocalError(f"no free port between {PORTS.start} and {PORTS.stop} on {host}")


def require_free_port(port: int, *, host: str, setting: str) -> None:
    """Raise `LocalError` if a port cannot be bound, naming the setting that chose it."""
    try:
        socket.create_server((host, port)).close()
    except OSError as exc:
        raise LocalError(
            f"{setting} = {port}: the port cannot be used on {host} ({exc.strerror}); "
            "stop what uses it or choose another one"
        ) from exc
