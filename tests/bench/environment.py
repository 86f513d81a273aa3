"""The origin of the figures: versions and machine."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.airflow import postgres
from tests.support.nats_server import server_binary

__all__ = ["environment"]

PACKAGES = {
    "airflow": "apache-airflow",
    "airflow-nats-executor": "airflow-nats-executor",
    "celery": "celery",
    "celery provider": "apache-airflow-providers-celery",
    "edge provider": "apache-airflow-providers-edge3",
    "nats-py": "nats-py",
    "pandas": "pandas",
    "redis-py": "redis",
    "uvloop": "uvloop",
}
ROOT = Path(__file__).parents[2]


def environment(*, rounds: int, scale: float) -> dict[str, Any]:
    """Describe this machine and what is installed; `load` is that before the run."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "rounds": rounds,
        "scale": scale,
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": cpu_model(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: installed(package) for name, package in PACKAGES.items()},
        "nats-server": nats_version(),
        "redis-server": redis_version(),
        "postgresql": postgres_version(),
    }


def installed(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None


def nats_version() -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return output(server_binary(), "--version").rpartition("v")[-1]
    return None


def redis_version() -> str | None:
    if shutil.which("redis-server") is None:
        return None
    words = dict(
        word.split("=", 1) for word in output("redis-server", "--version").split() if "=" in word
    )
    return words.get("v")


def postgres_version() -> str | None:
    programs = postgres.programs()
    return output(str(programs / "postgres"), "--version").split()[2] if programs else None


def output(*command: str) -> str:
    """Return what a command prints; '' when it cannot."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10)
        return done.stdout.strip()
    return ""


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
