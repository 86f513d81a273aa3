"""A private PostgreSQL cluster, with the programs that the machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.nats_server import free_port
from tests.support.require import require
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["postgres"]

DEBIAN = Path("/usr/lib/postgresql")
# PostgreSQL refuses to run as root; Debian's package brings this user.
USER = "postgres"


def programs() -> Path | None:
    """Return the directory of the newest PostgreSQL."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a cluster without durability and give the URL of its database."""
    bin_directory = programs()
    require(bin_directory, "PostgreSQL is not installed")
    assert bin_directory is not None
    directory = Path(tempfile.mkdtemp(prefix="airflow-nats-postgres-"))
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(directory, USER, USER)
        identity = {"user": USER, "group": USER, "extra_groups": [], "cwd": directory}
    data, port = directory / "data", free_port()
    try:
        options = ["-A", "trust", "-U", "airflow", "-E", "UTF8", "--no-sync"]
        initdb = [str(bin_directory / "initdb"), "-D", str(data), *options]
        subprocess.run(initdb, check=True, capture_output=True, **identity)
        server = subprocess.Popen(
            [bin_directory / "postgres", "-D", data, "-p", str(port), "-k", directory,
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity,
        )  # fmt: skip
        try:
            ready = [str(bin_directory / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            block_until(
                lambda: subprocess.run(ready, check=False).returncode == 0, 20, "PostgreSQL"
            )
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": does not wait for clients
            server.wait(20)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
