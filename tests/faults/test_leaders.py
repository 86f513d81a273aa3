"""A cluster whose leaders change, as in any restart of its servers, while small tasks arrive."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.errors import BrokerUnavailable
from nats_executor.topology.wanted import stream_configs
from tests.faults.stage import FaultStage, lasts, open_stage
from tests.support.nats_server import nats_cluster, start_together
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.execution_api import ExecutionApi
    from tests.support.nats_server import NatsServer
    from tests.support.worker_process import WorkerProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

# The shortest that a server takes. It hands over what it leads, then sends its clients away.
LAME_DUCK = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'
PER_SECOND = 4
CLAIMS = 4
# With the defaults a workload that is handed back waits for ten seconds.
DEFAULTS: dict[str, Any] = {"ack_wait_seconds": 30, "worker_lost_seconds": 15}
ASKED_AGAIN = "next: asking again until it is known"
HANDED_BACK = ("next: offering it again", "next: the broker offers it again", "goes back to")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Sequence[NatsServer]]:
    servers = nats_cluster(tmp_path / "cluster", config=LAME_DUCK)
    try:
        start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
async def stage(
    cluster: Sequence[NatsServer],
    names: Names,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path: Path,
) -> AsyncIterator[FaultStage]:
    output = tmp_path / "output"
    output.mkdir()
    urls = ",".join(server.url for server in cluster)
    async with open_stage(urls, names.prefix, api, marks, output, **DEFAULTS) as stage:
        yield stage


@dataclass
class Flow:
    """Small workloads, sent one after the other until it is closed.

    Attributes:
        sent: when the stream had each of them, by dispatch id.
    """

    stage: FaultStage
    sent: dict[str, float] = field(default_factory=dict)
    is_closed: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as sending:
            while not self.is_closed:
                sending.create_task(self.send())
                await lasts(1 / PER_SECOND)

    async def send(self) -> None:
        """Send one, for as long as no stream takes it."""

        async def is_sent() -> bool:
            with contextlib.suppress(BrokerUnavailable):
                self.sent[await self.stage.send("succeed")] = time.time()
                return True
            return False

        await wait_until(is_sent, 120, "a stream to take a workload")

    async def succeeded(self, worker: WorkerProcess) -> None:
        """Wait for every end, and see that the first worker to get each one had it for good."""
        for dispatch_id in self.sent:
            report = await self.stage.succeeded(dispatch_id)
            assert (report.attempt, report.predecessors) == (1, [])
        assert not [text for text in HANDED_BACK if text in worker.text], worker.text

    def waits(self) -> str:
        """Tell how long workloads waited in the stream for their first report.

        It keeps the last one of each, so the first that is seen may be a later one.
        """
        history = self.stage.history
        found = sorted(max(0.0, history[i][0].at - at) for i, at in self.sent.items())
        parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}
        last = len(found) - 1
        shown = [f"{part} {found[int(rank * last)]:.2f} s" for part, rank in parts.items()]
        return f"{len(found)} workloads waited: {', '.join(shown)}"


async def test_a_change_of_leaders_hands_no_workload_back(
    cluster: Sequence[NatsServer], stage: FaultStage
) -> None:
    """Each claim that meets one is asked for again by the worker that has the workload."""
    names, broker = stage.settings.names, stage.post.broker
    await spread(stage, names.results_stream)
    worker = await stage.start("-c", str(CLAIMS), **DEFAULTS)
    tasks = await broker.stream_info(names.tasks_stream)
    others = [server for server in cluster if tasks and server.name != tasks.replication.leader]

    # The stream of reports has no leader then, that of workloads is led by the server that is left.
    for server in others:
        server.kill()
    await wait_until(lambda: broker.is_connected, 60, "our connection to the server that is left")
    flow = Flow(stage)
    for _ in range(CLAIMS):
        await flow.send()
    await wait_until(lambda: worker.text.count(ASKED_AGAIN) >= CLAIMS, 60, "claims without answers")
    for server in others:
        server.launch()

    await flow.succeeded(worker)
    assert await stage.deliveries() == len(flow.sent)


async def spread(stage: FaultStage, stream: str) -> None:
    """Have a copy of a stream on each server."""
    broker = stage.post.broker
    config = await broker.stream_config(stream)
    assert config
    await broker.update_stream(config | {"num_replicas": 3})

    async def is_everywhere() -> bool:
        with contextlib.suppress(BrokerUnavailable):  # a leader is elected
            info = await broker.stream_info(stream)
            return bool(
                info and len(info.replication.servers) == 3 and not info.replication.missing
            )
        return False

    await wait_until(is_everywhere, 60, f"copies of {stream}")


@pytest.mark.parametrize("how", [signal.SIGUSR2, signal.SIGTERM], ids=["lame duck", "stopped"])
async def test_a_rolling_restart_hands_no_workload_back(
    how: signal.Signals,
    cluster: Sequence[NatsServer],
    stage: FaultStage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for config in stream_configs(stage.settings):
        await spread(stage, config["name"])
    worker = await stage.start("-c", "8", **DEFAULTS)
    flow = Flow(stage)
    flowing = asyncio.create_task(flow.run())

    for server in cluster:
        server.signal(how)
        await wait_until(server.has_ended, 120, f"the end of {server.name}")
        server.launch()
        await wait_until(server.is_ready, 120, f"the return of {server.name}")
    flow.is_closed = True
    await flowing

    await flow.succeeded(worker)
    with capsys.disabled():
        print(f"\n{how.name}: {flow.waits()}")  # noqa: T201 - for who looks at it
