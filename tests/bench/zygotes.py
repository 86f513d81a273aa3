"""Measure what parsing a heavy Dag file costs a task, with and without a zygote, in turns.

The file imports a generated library of many classes, as clients of clouds are: about two seconds
of CPU time, measured and printed. Three minutes on two cores:

    .venv/bin/python -m tests.bench.zygotes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_worker.processes.linux import children_of
from nats_worker.processes.memory import bytes_of_tree
from tests.bench.layers import cpu_seconds, server_pid
from tests.support.execution_api import ExecutionApi
from tests.support.process_stage import make_home
from tests.worker.zygotes.both_ways import BothWays, age

if TYPE_CHECKING:
    from nats_worker.processes.pool import ProcessPool

DAG = """
import time
IMPORT = time.process_time()
import heavy
IMPORT = time.process_time() - IMPORT
import airflow.sdk

with airflow.sdk.DAG("{name}"):

    @airflow.sdk.task
    def tell():
        return [time.monotonic(), time.process_time(), IMPORT]

    tell()
"""
# A class takes some 20 microseconds, and no time is spent on what no import does.
MODULES, CLASSES = 170, 200


def cpu_of_tree(pid: int) -> float:
    """CPU time of a process and of all that it has forked, alive or not."""
    return cpu_seconds(pid) + sum(map(cpu_of_tree, children_of(pid)))


def write_library(folder: Path) -> None:
    library = folder / "heavy"
    library.mkdir()
    body = "\n".join(
        f"class C{n}:\n    '''One.'''\n    x: int = {n}\n    def get(self): return self.x\n"
        f"    def put(self, x): self.x = x\n    def drop(self): del self.x"
        for n in range(CLASSES)
    )
    for n in range(MODULES):
        (library / f"m{n}.py").write_text(body)
    (library / "__init__.py").write_text("\n".join(f"from . import m{n}" for n in range(MODULES)))


class Figures:
    """What tasks of one kind took, in milliseconds."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.own_cpu: list[float] = []
        self.import_cpu = 0.0
        self.cpu = 0.0

    def line(self, count: int) -> str:
        return (
            f"{1000 * self.cpu / count:8.1f} ms of CPU a task, "
            f"{statistics.median(self.own_cpu):7.1f} ms of it before the task's own code, which "
            f"begins {statistics.median(self.wall):7.1f} ms after its supervisor "
            f"(imports: {self.import_cpu:.0f} ms)"
        )


async def one(both: BothWays, pool: ProcessPool, name: str, figures: Figures) -> None:
    """Run one task and note its times."""
    forked: list[float] = []
    run, _ = await both.start(pool, f"{name}.py", name, "tell")
    fork = run.fork

    def noted(supervisor_pid: int) -> None:
        forked.append(time.monotonic())
        fork(supervisor_pid)

    run.fork = noted  # type: ignore[method-assign]
    before = len(both.api.received)
    await run.exited()
    (told,) = [r.body for r in both.api.received[before:] if r.method == "POST"]
    at, cpu, imports = json.loads(told) if isinstance(told, str) else told
    figures.wall.append(1000 * (at - forked[-1]))
    figures.own_cpu.append(1000 * cpu)
    figures.import_cpu = 1000 * imports


async def compare(both: BothWays, name: str, count: int) -> None:
    pools = {"plain": both.plain, "zygote": both.warm}
    figures = {kind: Figures() for kind in pools}
    before = cpu_of_tree(server_pid(both.warm))
    if not await both.warm_up(f"{name}.py", name, "tell"):
        sys.stdout.write(f"{name}: no zygote: {dict(both.warm.zygotes.refused)}\n")
        return
    built = cpu_of_tree(server_pid(both.warm)) - before
    used = {kind: cpu_of_tree(server_pid(pool)) for kind, pool in pools.items()}
    for turn in range(count):
        for kind in list(pools)[:: 1 if turn % 2 else -1]:
            await one(both, pools[kind], name, figures[kind])
    for kind, pool in pools.items():
        figures[kind].cpu = cpu_of_tree(server_pid(pool)) - used[kind]
        sys.stdout.write(f"{name:6} {kind:7} {figures[kind].line(count)}\n")
    size = {kind: bytes_of_tree(server_pid(pool)) // 2**20 for kind, pool in pools.items()}
    sys.stdout.write(f"{name:6} two tasks and the zygote: {built:.1f} s of CPU; PSS {size} MB\n")
    assert both.warm.zygotes.starts >= count
    sys.stdout.flush()


async def main(count: int) -> None:
    """Make the Dags, measure, print."""
    from nats_worker.processes.pool import ProcessPool, Warmth

    with tempfile.TemporaryDirectory() as folder, ExecutionApi() as api:
        home = Path(folder)
        environment = make_home(home, api, home)
        bundle = home / "mixed"
        bundle.mkdir()
        write_library(bundle)
        (bundle / "big.py").write_text(DAG.format(name="big"))
        (bundle / "small.py").write_text(DAG.format(name="small").replace("import heavy\n", ""))
        bundles: list[dict[str, Any]] = [
            {
                "name": "mixed",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(bundle)},
            }
        ]
        environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(bundles)
        environment["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "300"  # for a machine that is busy
        os.environ.update(environment)
        async with AsyncExitStack() as exits:
            plain = await exits.enter_async_context(ProcessPool())
            warm = await exits.enter_async_context(ProcessPool(warmth=Warmth(dag_zygotes="on")))
            both = BothWays(plain, warm, api, home)
            for name in ("small", "big"):
                await plain.ready()
                await both.run(plain, f"{name}.py", name, "tell")
                age(bundle)
                await compare(both, name, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="tasks of each kind (default: 20)")
    asyncio.run(main(parser.parse_args().count))
