"""Where a no-op task's time, CPU and memory go inside a worker, layer by layer.

Real tasks go through the real process pool against the stand-in Execution API, which is a process
of its own. One fork server runs them undisturbed and yields the totals, another one does so with a
new supervisor for each task; a third one, of that kind too, has marks put into Airflow's and our
functions and yields the layers; the floor is Airflow's plain
`supervise_task` in a fork of a process that has everything imported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_worker.processes.linux import children_of
from tests.bench.marks import Mark, marking_python, read_marks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nats_worker.processes.pool import ProcessPool

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
WARM_UP_TASKS = 3

API_SERVER = """
import socketserver, sys
socketserver.StreamRequestHandler.disable_nagle_algorithm = True  # saves 40 ms for each answer
from tests.support.execution_api import ExecutionApi
api = ExecutionApi()
api.port = int(sys.argv[1])
with api:
    print("ready", flush=True)
    sys.stdin.read()
"""
# Airflow alone: no pool, no watch, no report.
FLOOR = """
import gc, json, os, sys, time
from nats_worker.api import address as api_address
from nats_worker.processes import airflow_supervisor as supervision, forkserver
forkserver.preload()
from airflow.sdk.execution_time.supervisor import supervise_task
for body in json.load(sys.stdin):
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        work = supervision.WORKLOAD.validate_python(body)
        supervise_task(
            ti=work.ti, bundle_info=work.bundle_info, dag_rel_path=work.dag_rel_path,
            token=work.token, log_path=work.log_path,
            server=api_address.api_address(None).url,
        )
        os._exit(0)
    _, _, used = os.wait4(pid, 0)
    print("floor", time.monotonic() - began, used.ru_utime + used.ru_stime, flush=True)
"""


class Layer(NamedTuple):
    """A stretch between two marks, in the process that left both or between two processes."""

    name: str
    begin: str
    end: str


LAYERS = [
    Layer(*map(str.strip, line.split("|")))
    for line in """
main process: request to fork | main:request | server:fork>
fork server: fork of the supervisor | server:fork> | server:fork<
supervisor: after the fork | supervisor:born | supervisor:supervise>
supervisor: read the workload | supervisor:supervise> | supervisor:supervise_task>
supervisor: API client, log file | supervisor:supervise_task> | supervisor:start>
supervisor: fork of the task | supervisor:start> | supervisor:_on_child_started>
supervisor: API call /run | supervisor:_on_child_started> | supervisor:_on_child_started<
supervisor: serve the task | supervisor:_on_child_started< | supervisor:_monitor_subprocess<
supervisor: last words, report | supervisor:_monitor_subprocess< | supervisor:_exit>
task: after the fork, log set-up | task:born | task:main>
task: channel to the supervisor | task:main> | task:get_startup_details>
task: wait for the start | task:get_startup_details> | task:get_startup_details<
task: listeners, title | task:get_startup_details< | task:parse>
task: bundle and Dag file | task:parse> | task:parse<
task: context | task:parse< | task:run>
task: render, prepare | task:run> | task:_execute_task>
task: its own code | task:_execute_task> | task:_execute_task<
task: result and state | task:_execute_task< | task:run<
task: finalize, exit handlers | task:run< | task:_exit>
task gone to supervisor gone | task:_exit> | supervisor:_exit>
supervisor gone to slot free | supervisor:_exit> | main:over
task gone to slot free | task:_exit> | main:over
all | main:request | main:over
""".strip().splitlines()
]


# Running tasks


@contextlib.contextmanager
def stage(directory: Path) -> Iterator[None]:
    """Start the stand-in Execution API and point Airflow's configuration at it and at a Dag."""
    from tests.support.execution_api import ExecutionApi
    from tests.support.process_stage import make_home

    api = ExecutionApi()
    for name in ("home", "marks"):
        (directory / name).mkdir()
    os.environ.update(make_home(directory / "home", api, directory / "marks"))
    os.environ["PYTHONPATH"] = str(ROOT)
    # Only the floor ever sleeps this long, when it misses the end of its task.
    os.environ["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"] = "1"
    with subprocess.Popen(
        [sys.executable, "-c", API_SERVER, str(api.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def warm_pool(python: str = sys.executable, most: int = 50) -> AsyncIterator[ProcessPool]:
    """A pool that has run a few tasks already, so that no first use is measured.

    Args:
        most: how many tasks a supervisor runs, one after the other.
    """
    from nats_worker.processes.pool import ProcessPool

    ours, sys.executable = sys.executable, python
    try:
        async with ProcessPool(workloads_per_supervisor=most) as pool:
            await pool.ready()
            for _ in range(WARM_UP_TASKS):
                await run_task(pool)
            yield pool
    finally:
        sys.executable = ours


def body_of(task: str = "succeed") -> dict[str, Any]:
    from tests.support.process_stage import task_body

    return task_body(task, str(uuid.uuid4()))


async def run_task(pool: ProcessPool) -> tuple[int, float, float]:
    """Run a task; return its supervisor's pid and when it was asked for and over."""
    began = time.monotonic()
    run = await pool.start(str(uuid.uuid4()), body_of())
    report = await run.exited()
    if report.exit_code or not report.started:
        raise RuntimeError(f"the task failed: {report}")
    return run.supervisor_pid, began, time.monotonic()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of the children that it has reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def cpu_below(pid: int) -> float:
    """CPU time of the fork server, and of its supervisors and their tasks, alive or not."""
    return cpu_seconds(pid) + sum(map(cpu_seconds, children_of(pid)))


def memory(pid: int) -> dict[str, float]:
    """Proportional, resident and private memory of a process, in megabytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = re.findall(r"^(Pss|Rss|Private_Dirty): +(\d+) kB", text, re.MULTILINE)
    return {name.lower(): round(int(size) / 1024, 1) for name, size in sizes}


def server_pid(pool: ProcessPool) -> int:
    assert pool.server is not None
    return pool.server.process.pid


# Measuring


async def totals(count: int, most: int = 50) -> dict[str, float]:
    """Milliseconds per task, with no mark anywhere."""
    async with warm_pool(most=most) as pool:
        pid = server_pid(pool)
        walls = []
        used, own = cpu_below(pid), time.process_time()
        for _ in range(count):
            _, began, over = await run_task(pool)
            walls.append(over - began)
        own = time.process_time() - own
        used = cpu_below(pid) - used
    return {
        "wall_ms": 1000 * statistics.median(walls),
        "cpu_ms": 1000 * used / count,
        "main_cpu_ms": 1000 * own / count,
    }


async def layers(count: int, directory: Path) -> dict[str, dict[str, float]]:
    """Median wall and CPU milliseconds of each layer."""
    path, python = marking_python(directory)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with warm_pool(str(python), most=1) as pool:
        for _ in range(count):
            path.write_text("")
            _, began, over = await run_task(pool)
            left = read_marks(path)
            marks = {mark.name: mark for mark in left}
            marks["main:request"] = Mark("main:request", os.getpid(), began, 0.0)
            marks["main:over"] = Mark("main:over", os.getpid(), over, 0.0)
            for layer in LAYERS:
                measure(layer, marks, found[layer.name])
            measure_requests(left, found["supervisor: its API calls together"])
    return {
        name: {key: 1000 * statistics.median(values) for key, values in by_key.items()}
        for name, by_key in found.items()
    }


def measure(layer: Layer, marks: dict[str, Mark], found: dict[str, list[float]]) -> None:
    begin, end = marks[layer.begin], marks[layer.end]
    found["wall_ms"].append(end.wall - begin.wall)
    if layer.begin.partition(":")[0] == layer.end.partition(":")[0] != "main":
        found["cpu_ms"].append(end.cpu - begin.cpu)


def measure_requests(marks: list[Mark], found: dict[str, list[float]]) -> None:
    """Add up the requests of one supervisor to the API server."""
    begins = [mark for mark in marks if mark.name == "supervisor:request>"]
    ends = [mark for mark in marks if mark.name == "supervisor:request<"]
    pairs = list(zip(begins, ends, strict=True))
    found["wall_ms"].append(sum(end.wall - begin.wall for begin, end in pairs))
    found["cpu_ms"].append(sum(end.cpu - begin.cpu for begin, end in pairs))


def floor(count: int) -> dict[str, float]:
    """Milliseconds of Airflow's own `supervise_task`, forked from a warm process."""
    bodies = json.dumps([body_of() for _ in range(count + WARM_UP_TASKS)])
    output = subprocess.run(
        [sys.executable, "-c", FLOOR], input=bodies, text=True, capture_output=True, check=True
    ).stdout
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith("floor")]
    walls, cpus = zip(*(map(float, line) for line in lines[WARM_UP_TASKS:]), strict=True)
    return {"wall_ms": 1000 * statistics.median(walls), "cpu_ms": 1000 * statistics.mean(cpus)}


async def sizes() -> dict[str, dict[str, float]]:
    """Megabytes of each process while one task sleeps."""
    async with warm_pool() as pool:
        run = await pool.start(str(uuid.uuid4()), body_of("sleep"))
        await run.started()
        await asyncio.sleep(2.0)  # the Dag is parsed and the task sleeps
        found = {
            "fork server": memory(server_pid(pool)),
            "supervisor": memory(run.supervisor_pid),
            "task": memory(run.task_pid),
        }
        run.signal(15)
        await run.exited()
    return found


async def growth(count: int) -> dict[str, dict[str, float]]:
    """Megabytes of the lasting processes while many tasks run, four at a time."""
    found, step = {}, max(count // 40, 1)
    async with warm_pool() as pool:
        for done in range(0, count + 1, 4 * step):
            found[f"fork server after {done}"] = memory(server_pid(pool))
            found[f"main after {done}"] = memory(os.getpid())
            for _ in range(step):
                await asyncio.gather(*(run_task(pool) for _ in range(4)))
    return found


# Telling


def table(results: dict[str, Any]) -> str:
    lines = ["| layer | wall ms | CPU ms |", "|---|---|---|"]
    for name, figures in results["layers"].items():
        cpu = f"{figures['cpu_ms']:.1f}" if "cpu_ms" in figures else ""
        lines.append(f"| {name} | {figures['wall_ms']:.1f} | {cpu} |")
    for name in ("totals", "a supervisor for each task", "floor"):
        figures = results[name]
        lines.append(f"| {name} | {figures['wall_ms']:.1f} | {figures['cpu_ms']:.1f} |")
    return "\n".join(lines)


async def measure_all(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, stage(Path(name)):
        if args.growth:
            return {"growth": await growth(args.growth)}
        return {
            "layers": await layers(args.tasks, Path(name)),
            "totals": await totals(args.tasks),
            "a supervisor for each task": await totals(args.tasks, most=1),
            "floor": floor(args.tasks),
            "memory": await sizes(),
        }


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.layers", description=__doc__)
    parser.add_argument("--tasks", type=int, default=50, help="for each figure (default: 50)")
    parser.add_argument("--growth", type=int, default=0, help="run so many, watch the memory only")
    parser.add_argument("-o", choices=("table", "json"), default="table", help="output format")
    args = parser.parse_args()
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the workloads write their log lines there
    results = asyncio.run(measure_all(args))
    if args.o == "json" or args.growth:
        output.write(json.dumps(results, indent=2) + "\n")
    else:
        output.write(f"{table(results)}\n\n{json.dumps(results['memory'], indent=2)}\n")


if __name__ == "__main__":
    main()
