"""Runs a task the plain way and from a zygote, and keeps all that others can see of both."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from nats_worker.processes.pool import ProcessPool
    from nats_worker.processes.run import Run
    from tests.support.execution_api import ExecutionApi

__all__ = ["BothWays", "Seen", "age"]

# What differs between any two runs of one task.
NUMBERS = re.compile(r"\d+(\.\d+)?|0x[0-9a-f]+")
VOLATILE = {"pid", "hostname", "start_date", "end_date", "timestamp", "reschedule_date"}
TIMES = {"timestamp", "bundle_prepare_ms", "dag_file_parse_ms", "duration", "ti_id", "loc"}


@dataclass
class Seen:
    """What one run of a task has left."""

    report: dict[str, Any]
    requests: list[Any]
    log: list[Any]


def age(folder: Path) -> None:
    """Have files look as if they were old, as those of a deployed bundle are."""
    old = time.time() - 3600
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (old, old))


@dataclass
class BothWays:
    """Two pools for the same Dags: one parses for each task, one keeps zygotes."""

    plain: ProcessPool
    warm: ProcessPool
    api: ExecutionApi
    home: Path

    async def start(self, pool: ProcessPool, path: str, dag: str, task: str) -> tuple[Run, str]:
        ti_id = str(uuid.uuid4())
        body = {
            "type": "ExecuteTask",
            "token": "a.secret.token",
            "ti": {
                "id": ti_id,
                "dag_version_id": str(uuid.UUID(int=1)),
                "task_id": task,
                "dag_id": dag,
                "run_id": "manual",
                "try_number": 1,
                "map_index": -1,
                "pool_slots": 1,
                "queue": "default",
                "priority_weight": 1,
            },
            "dag_rel_path": path,
            "bundle_info": {"name": "mixed", "version": None},
            "log_path": f"{ti_id}.log",
        }
        return await pool.start(ti_id, body), ti_id

    async def run(self, pool: ProcessPool, path: str, dag: str, task: str) -> Seen:
        before = len(self.api.received)
        run, ti_id = await self.start(pool, path, dag, task)
        report = asdict(await run.exited()) | {"pid": 0}
        requests = [
            (r.method, r.action, without(r.body, ti_id)) for r in self.api.received[before:]
        ]
        log = (self.home / "logs" / f"{ti_id}.log").read_text().splitlines()
        return Seen(report, requests, [line_of(line, ti_id) for line in log])

    async def warm_up(self, path: str, dag: str, task: str) -> bool:
        """Run a task until its file has a zygote, or is known to have none; return which."""
        counts = self.warm.zygotes
        built, refused = counts.built, counts.refused.total()
        for _ in range(2):
            await self.run(self.warm, path, dag, task)
        await wait_until(
            lambda: counts.built > built or counts.refused.total() > refused,
            60,
            f"{path} to be judged",
        )
        return counts.built > built


def without(value: Any, ti_id: str) -> Any:
    """Return what does not differ between any two runs."""
    if isinstance(value, dict):
        return {
            name: without(inner, ti_id) for name, inner in value.items() if name not in VOLATILE
        }
    if isinstance(value, list):
        return [without(inner, ti_id) for inner in value]
    return value.replace(ti_id, "ID") if isinstance(value, str) else value


def line_of(line: str, ti_id: str) -> Any:
    """Return a log line without its times and numbers of processes."""
    fields = {k: v for k, v in json.loads(line).items() if k not in TIMES}
    return json.loads(NUMBERS.sub("0", json.dumps(without(fields, ti_id), sort_keys=True)))
