"""A whole Airflow in which things may break: what ends is started again, as a service manager does.

Settings differ from those of the other measurements in one thing: the waits by which Airflow's
scheduler notices a loss are a fifth of their defaults, for every contender. Each executor keeps
its own defaults. Tasks and workers reach the API server through a line that can be slow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nats_executor.local.api import ApiError, ApiSilent
from nats_executor.local.process import LocalError, Process
from nats_worker.processes.linux import children_of
from tests.bench.delayed import DelayedLine
from tests.bench.faults.table import shortened_waits
from tests.bench.session import Session
from tests.bench.shared_airflow import SharedAirflow
from tests.bench.sides import CELERY, LOCAL, NATS
from tests.support.nats_server import free_port
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.bench.faults.table import Fault
    from tests.bench.sample import Task
    from tests.bench.sides import Side
    from tests.faults.memory_group import MemoryGroup

__all__ = ["SLOTS", "FaultyAirflow", "FaultySession", "SmallDisk", "kill_below"]

SLOTS = 4
DAGS = Path(__file__).parent / "dags"
# Kubernetes' default.
GRACE_SECONDS = 30.0


class FaultyAirflow(SharedAirflow):
    """What all contenders share, with brokers that can be killed and a line to the API server."""

    def __init__(self, task: Task, sides: Collection[Side]) -> None:
        super().__init__(task, sides, DAGS)
        self.line = DelayedLine(self.port)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.enter_context(self.line)
            super().__enter__()
            self.line_exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.line_exits.close()

    def more_settings(self) -> dict[str, object]:
        address = f"http://127.0.0.1:{self.line.port}"
        return shortened_waits() | {
            "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "EDGE__API_URL": f"{address}/edge_worker/v1/rpcapi",
        }

    # Brokers

    def kill_broker(self, side: Side) -> None:
        if side is not CELERY:
            self.broker.kill()
            return
        kill_below(self.redis)
        self.core.processes.remove(self.redis)

    def wipe_broker(self, side: Side) -> None:
        """Lose what it has stored; only after `kill_broker`."""
        if side is not CELERY:
            self.broker.wipe_storage()
            return
        for path in (self.home / "redis").glob("*.rdb"):
            path.unlink()

    def start_broker(self, side: Side) -> None:
        if side is not CELERY:
            self.broker.start()
            return
        self.redis = Process("redis-server", self.redis.command, log=self.redis.log)
        self.core.start([self.redis])

    def ensure_brokers(self) -> None:
        """Start again what a fault took away, if it was cut short."""
        if self.broker.process is None and any(side is NATS for side in self.sides):
            self.broker.start()
        if CELERY in self.sides and self.redis.exit_code is not None:
            self.start_broker(CELERY)

    def forget_messages(self) -> None:
        """Empty Redis: what a fault left there must not meet the next one."""
        command = ["redis-cli", "-p", str(self.redis_port), "FLUSHALL"]
        subprocess.run(command, capture_output=True, check=False)

    # Runs

    def begin(self, dag_id: str, check: Callable[[], None]) -> dict[str, str]:
        """Trigger a Dag and return what identifies its run."""
        self.number += 1
        of = {"d": dag_id, "r": f"{dag_id}-{self.number}"}
        while not self.has_triggered(dag_id, of["r"]):
            check()
            time.sleep(1.0)
        return of

    def give_up(self, of: dict[str, str]) -> None:
        """Have a run fail that has no end, so that its tasks meet no other contender."""
        path = f"/api/v2/dags/{of['d']}/dagRuns/{of['r']}"
        with contextlib.suppress(ApiError, ApiSilent):  # it has ended meanwhile
            self.api.call("PATCH", path, {"state": "failed"})

    def states(self, of: dict[str, str]) -> list[tuple[int, str | None, int]]:
        query = (
            "SELECT map_index, state, try_number FROM task_instance"
            " WHERE dag_id = :d AND run_id = :r ORDER BY map_index"
        )
        rows = self.rows(query, **of)
        return [(int(r["map_index"]), r["state"], int(r["try_number"])) for r in rows]

    @property
    def begun(self) -> Path:
        return self.notes / "begun"

    def begins(self) -> int:
        return len(self.begun.read_text().splitlines()) if self.begun.exists() else 0


class FaultySession(Session):
    """One contender's scheduler and workers; `heal` starts again what has ended.

    Attributes:
        restarted: the names of what was started again.
        task_env: what only the process has that runs tasks.
        group: its memory cgroup, where the fault needs one.
        disk: that of its logs and temporary files, where the fault needs one.
    """

    def __init__(self, airflow: FaultyAirflow, side: Side, fault: Fault) -> None:
        super().__init__(airflow, side, SLOTS)
        self.faulty = airflow
        self.fault = fault
        self.task_env: dict[str, str] = {}
        self.group: MemoryGroup | None = None
        self.disk: SmallDisk | None = None
        self.restarted: list[str] = []
        self.leaving: list[tuple[float, Process]] = []
        self.repairs: list[tuple[float, Callable[[], None]]] = []

    def dressed(self, process: Process) -> Process:
        dressed = super().dressed(process)
        assert dressed.env is not None
        env = {f"AIRFLOW__{name}": str(value) for name, value in self.fault.settings.items()}
        # Two workers may be there at a time.
        env["AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT"] = str(free_port())
        dressed.env = {**dressed.env, **env}
        if self.runs_tasks(dressed):
            dressed.env = {**dressed.env, **self.task_env}
        return dressed

    def runs_tasks(self, process: Process) -> bool:
        return process.name == ("scheduler" if self.side is LOCAL else "worker")

    @property
    def host(self) -> Process:
        """The process below which tasks run."""
        if self.worker is not None:
            return self.worker
        return next(p for p in self.components.processes if p.name == "scheduler")

    # What happens to it

    def repair_later(self, seconds: float, repair: Callable[[], None]) -> None:
        self.repairs.append((time.monotonic() + seconds, repair))

    def heal(self) -> None:
        """Start what has ended, make the repairs that are due, kill what takes too long to stop."""
        now = time.monotonic()
        for item in [item for item in self.repairs if now >= item[0]]:
            self.repairs.remove(item)
            item[1]()
        for process in list(self.components.processes):
            if process.exit_code is not None:
                self.components.processes.remove(process)
                if all(process is not stopped for _, stopped in self.leaving):
                    self.restarted.append(f"{process.name} {process.fate}")
                    self.start_again(process)
        self.leaving = [item for item in self.leaving if item[1].exit_code is None]
        for due, process in self.leaving:
            if now >= due:
                kill_below(process)

    def start_again(self, process: Process) -> None:
        if process.name == "worker":
            self.add_worker()
            return
        words = process.command[3:]
        self.launch(self.dressed(self.airflow.deployment.process(process.name, *words)))

    def add_worker(self) -> None:
        self.launch(self.dressed(self.new_worker()))

    def launch(self, process: Process) -> None:
        self.components.start([process])
        if self.group and self.runs_tasks(process):
            assert process.leash is not None
            self.group.add(process.leash.pid)

    def stop_worker(self) -> None:
        """Send SIGTERM and start another worker, as a rolling update does."""
        assert self.worker is not None
        assert self.worker.leash is not None
        self.leaving.append((time.monotonic() + GRACE_SECONDS, self.worker))
        for pid in children_of(self.worker.leash.pid):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGTERM)
        self.add_worker()

    def is_healed(self) -> bool:
        return not self.repairs


def kill_below(process: Process) -> None:
    """Kill a process with all below it at once, as the loss of its machine does."""
    assert process.leash is not None
    for pid in descendants(process.leash.pid):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)
    process.leash.wait(GRACE_SECONDS)


class SmallDisk:
    """A file system in memory with room for a few logs, for the length of the context."""

    SIZE = "64m"

    def __init__(self, place: Path) -> None:
        self.place = place
        self.filling = place / "filling"

    def __enter__(self) -> Self:
        self.place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "tmpfs", str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LocalError(f"a small disk cannot be made here: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], capture_output=True, check=False)

    def fill(self) -> None:
        with contextlib.suppress(OSError), self.filling.open("wb", buffering=0) as file:  # full
            while True:
                file.write(bytes(65_536))

    def free(self) -> None:
        self.filling.unlink()
