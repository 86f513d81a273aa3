"""The CPU time and page faults of no-op tasks here and in another checkout, one by one in turns.

Each checkout's fork server runs its tasks in one supervisor, as in a row of tasks, against one
stand-in Execution API. So other work on the machine falls on both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import layers
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_worker.processes.pool import ProcessPool

# No supervisor goes meanwhile, unless the machine lets it wait for five seconds.
MOST = 100_000
COLUMNS = ("faults of supervisor", "of task", "CPU ms of supervisor", "of task", "together")

TLS_SERVER = """
import os, ssl
from tests.support import execution_api
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.environ["BENCH_CERTIFICATE"], os.environ["BENCH_KEY"])
def handler(api, plain=execution_api.ExecutionApi.handler):
    class Handler(plain(api)):
        def setup(self):
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()
        def finish(self):
            super().finish()
            self.request.close()
    return Handler
execution_api.ExecutionApi.handler = handler
"""


def use_tls(directory: Path) -> None:
    """Have the stand-in speak TLS; call it before the stage is set."""
    authority = Authority(directory)
    certificate = authority.issue("api")
    os.environ["BENCH_CERTIFICATE"] = str(certificate.certificate_file)
    os.environ["BENCH_KEY"] = str(certificate.key_file)
    os.environ["AIRFLOW__API__SSL_CERT"] = str(authority.ca_file)
    layers.API_SERVER = TLS_SERVER + layers.API_SERVER


class Side:
    """One checkout's fork server, and what its tasks have used."""

    def __init__(self, name: str, pool: ProcessPool) -> None:
        self.name = name
        self.pool = pool
        self.supervisor = 0
        self.before: list[int] = []
        self.used = [0, 0, 0, 0]
        self.count = 0

    async def run(self) -> None:
        """Run a task; one with a new supervisor only makes that warm."""
        pid, _, _ = await layers.run_task(self.pool)
        now = usage(pid)
        if pid == self.supervisor:
            pairs = zip(self.used, now, self.before, strict=True)
            self.used = [used + new - old for used, new, old in pairs]
            self.count += 1
        self.supervisor, self.before = pid, now

    def row(self) -> str:
        tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
        each = [used / self.count for used in self.used]
        cpu = [ticks * tick_ms for ticks in (*each[2:], sum(each[2:]))]
        figures = [f"{faults:.0f}" for faults in each[:2]] + [f"{ms:.1f}" for ms in cpu]
        return f"| {self.name} | {self.count} | {' | '.join(figures)} |"


def usage(pid: int) -> list[int]:
    """Minor faults and ticks of a process, each its own and its ended children's in turn."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    minor, of_children, *ticks = (int(fields[number]) for number in (7, 8, 11, 12, 13, 14))
    return [minor, of_children, sum(ticks[:2]), sum(ticks[2:])]


@contextlib.asynccontextmanager
async def side_of(tree: Path) -> AsyncIterator[Side]:
    os.environ["PYTHONPATH"] = str(tree)
    async with layers.warm_pool(most=MOST) as pool:
        yield Side(str(tree), pool)


async def compare(other: Path, count: int) -> list[Side]:
    async with side_of(other) as theirs, side_of(layers.ROOT) as ours:
        for number in range(count + 1):
            for side in (theirs, ours) if number % 2 else (ours, theirs):
                await side.run()
        return [theirs, ours]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside", description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout to compare this one with")
    parser.add_argument("--tasks", type=int, default=60, help="of each (default: 60)")
    parser.add_argument("--tls", action="store_true", help="the API server speaks TLS")
    args = parser.parse_args()
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the workloads write their log lines there
    with tempfile.TemporaryDirectory() as name:
        if args.tls:
            (authority := Path(name) / "authority").mkdir()
            use_tls(authority)
        with layers.stage(Path(name)):
            if args.tls:
                address = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
                os.environ[address] = os.environ[address].replace("http://", "https://")
            sides = asyncio.run(compare(args.other.resolve(), args.tasks))
    output.write(f"| checkout | tasks | {' | '.join(COLUMNS)} |\n|{'---|' * 7}\n")
    output.writelines(f"{side.row()}\n" for side in sides)


if __name__ == "__main__":
    main()
