"""Everything that a run consists of: servers, schedulers, workers and the stand-ins."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nats_executor
from nats_executor.settings import Settings
from tests.chaos.database import Database
from tests.chaos.processes import MARK, Crew, Member
from tests.chaos.reaper import reaping
from tests.chaos.worker import Environment
from tests.support.cable import Cable
from tests.support.nats_server import NatsServer, nats_cluster, start_together
from tests.support.release import lay_out

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["PACES", "QUEUES", "SCHEDULERS", "SLOTS", "WORKERS", "ChaosStage"]

# Two workers only serve the last queue.
WORKERS = {
    "worker-1": "default,batch",
    "worker-2": "default,batch",
    "worker-3": "default,batch",
    "worker-4": "default,gpu",
    "worker-5": "default,batch,gpu",
}
QUEUES = ("default", "batch", "gpu")
SCHEDULERS = ("scheduler-1", "scheduler-2", "scheduler-3")
SLOTS = 8
# More than the longest task takes that one of them may still run.
DRAIN_SECONDS = 15.0
# A frozen worker keeps its connection for as long as the server believes in it.
SERVER_CONFIG = 'ping_interval: "1s"\nping_max: 2\n'
# These workers reach the broker through cables that can be cut; the others without a detour.
CABLED = ("worker-1", "worker-2", "worker-4")
# These get so long to end their tasks when they are stopped.
PATIENT = ("worker-3", "worker-5")
PATIENT_SECONDS = 60
# Those that have an earlier release's code at first, where two are mixed: of each queue's workers
# and of the schedulers some.
EARLIER = ("worker-1", "worker-3", "worker-4", "scheduler-1", "scheduler-3")


@dataclass(frozen=True, slots=True)
class Pace:
    """The product's settings, and how long what depends on them may take.

    Attributes:
        silent_seconds: without heartbeats until the stand-in for Airflow gives a task up.
        quiet_seconds: after the faults until everything has to be over.
        idle_seconds: after that for reports, acks and sweeps.
    """

    options: Mapping[str, float]
    silent_seconds: float
    quiet_seconds: float
    idle_seconds: float


# Everything that takes seconds by default takes a fraction of them here. A worker is lost so late
# that a cut of more than `ack_wait_seconds` can be shorter than that on a busy machine, too.
QUICK_OPTIONS = {
    "ack_wait_seconds": 2,
    "connect_timeout_seconds": 1,
    "drain_seconds": 2,
    "heartbeat_seconds": 0.5,
    "kill_seconds": 1,
    "publish_timeout_seconds": 1,
    "sweep_seconds": 2,
    "start_timeout_seconds": 3,
    "worker_lost_seconds": 5,
}
PACES = {
    # What was disturbed last may wait for the API server's pause of ten seconds, more than once.
    "quick": Pace(QUICK_OPTIONS, silent_seconds=60.0, quiet_seconds=150.0, idle_seconds=40.0),
    "default": Pace({}, silent_seconds=150.0, quiet_seconds=240.0, idle_seconds=100.0),
}


class ChaosStage:
    """The processes and files of one run, all of them below one directory.

    Args:
        mix: the tag or commit whose code some of the schedulers and workers have.
        members: the names of those that there are, all without it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        servers: int,
        settings: str = "quick",
        mix: str = "",
        members: Collection[str] = (*SCHEDULERS, *WORKERS),
    ) -> None:
        self.directory = directory
        self.earlier = lay_out(directory / "earlier", mix) if mix else None
        self.pace = PACES[settings]
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.servers = make_servers(directory, servers)
        os.environ.update(self.environment())
        self.database = Database(directory / "database", teller="driver")
        self.database.create()
        self.journal = self.member("journal", "journal", str(directory))
        self.api = self.member("api", "api", str(directory))
        self.schedulers = [
            self.member(n, "scheduler", n, str(directory)) for n in SCHEDULERS if n in members
        ]
        self.cables = {
            name: [Cable(server.port) for server in self.servers]
            for name in CABLED
            if name in members
        }
        self.workers = [self.worker(n, queues) for n, queues in WORKERS.items() if n in members]
        self.opened = contextlib.ExitStack()
        self.crew = Crew([self.journal, self.api, *self.schedulers, *self.workers])
        for member in self.crew.members:
            if member.name in EARLIER:
                member.release = self.earlier

    def environment(self) -> dict[str, str]:
        options: dict[str, object] = {
            **self.pace.options,
            "servers": ",".join(server.url for server in self.servers),
            "replicas": len(self.servers),
        }
        return {
            **{f"AIRFLOW__NATS_EXECUTOR__{k.upper()}": str(v) for k, v in options.items()},
            "AIRFLOW_HOME": str(self.directory / "airflow"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "k" * 64,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "CHAOS_DIRECTORY": str(self.directory),
            "CHAOS_SILENT_SECONDS": str(self.pace.silent_seconds),
            MARK: secrets.token_hex(8),
            # The tree that this driver is of, wherever the members are started.
            "PYTHONPATH": str(Path(nats_executor.__file__).parents[1]),
        }

    @property
    def settings(self) -> Settings:
        return Settings.load(Environment())

    def member(self, name: str, module: str, *arguments: str) -> Member:
        return Member(name, module, arguments, self.logs / f"{name}.log")

    def worker(self, name: str, queues: str) -> Member:
        environment = {}
        if name in self.cables:
            urls = [f"nats://127.0.0.1:{cable.port}" for cable in self.cables[name]]
            environment["AIRFLOW__NATS_EXECUTOR__SERVERS"] = ",".join(urls)
        if is_patient := name in PATIENT:
            environment["AIRFLOW__NATS_EXECUTOR__DRAIN_SECONDS"] = str(PATIENT_SECONDS)
        arguments = (name, queues, str(SLOTS))
        log = self.logs / f"{name}.log"
        return Member(
            name, "worker", arguments, log, environment=environment, is_patient=is_patient
        )

    def change_release(self, member: Member) -> str:
        """Give a member's next life the other release's code; return which one it is."""
        member.release = None if member.release else self.earlier
        return member.release.name if member.release else "the checkout"

    def start(self) -> None:
        self.opened.enter_context(reaping())
        for cables in self.cables.values():
            for cable in cables:
                self.opened.enter_context(cable)
        start_together(self.servers)
        self.crew.start()

    def stop_workers(self) -> None:
        self.crew.dismiss()
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.end(signal.SIGTERM)
            worker.let_drain(DRAIN_SECONDS)

    def close(self) -> None:
        """Leave no process behind, however the run ended."""
        self.crew.kill()
        for server in self.servers:
            server.kill()
        self.opened.close()
        self.database.close()


def make_servers(directory: Path, count: int) -> Sequence[NatsServer]:
    if count == 1:
        return [NatsServer(directory / "nats", config=SERVER_CONFIG)]
    servers = nats_cluster(directory, size=count, config=SERVER_CONFIG)
    for server in servers:
        # Clients that were told the others' addresses would go round their cables.
        server.config = server.config.replace("cluster {", "cluster { no_advertise: true,", 1)
    return servers
