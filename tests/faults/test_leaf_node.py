"""Workers of another site, behind a leaf node as it is shipped, and the link that is cut."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.connection import connect
from nats_executor.broker.link import Listener
from nats_executor.errors import BrokerError, BrokerUnavailable
from nats_executor.fleet.liveness import Liveness, PingResult
from nats_executor.fleet.workers import seen_workers
from nats_executor.scheduler.inspector import Inspector
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.scheduler.reports import Mailbox
from nats_executor.wire.messages import Kind, Report, State, encode
from nats_executor.wire.names import Names, Verb
from tests.faults.stage import FaultStage, lasts
from tests.support.cable import Cable
from tests.support.fixtures import settings_for
from tests.support.nats_server import free_port
from tests.support.probing import ask
from tests.support.process_stage import task_body
from tests.support.shipped import ShippedServer
from tests.support.site import Site
from tests.support.waiting import wait_until
from tests.support.worker_process import Post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats_executor.settings import Settings
    from tests.support.execution_api import ExecutionApi
    from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.integration, pytest.mark.chaos]

NAMES = Names()
CUT_SECONDS = 60.0
# As docs/how-to/far-workers.md has it, on both sides; the others are the defaults.
DEFAULTS = {"heartbeat_seconds": 5, "ack_wait_seconds": 30, "worker_lost_seconds": 15}
FAR = DEFAULTS | {"worker_lost_seconds": 120}
# Airflow's defaults, which the other tests here shorten; and what the page says of far workers.
AIRFLOW = {
    "EXECUTION_API_TIMEOUT": "5",
    "EXECUTION_API_RETRIES": "5",
    "EXECUTION_API_RETRY_WAIT_MIN": "1",
    "EXECUTION_API_RETRY_WAIT_MAX": "90",
    "MIN_HEARTBEAT_INTERVAL": "5",
    "MAX_FAILED_HEARTBEATS": "20",
}


@dataclass
class LeafStage:
    """The hub's side, seen as its scheduler, and the site's one."""

    site: Site
    stage: FaultStage
    to_api: Cable

    def far(self, *args: str, name: str, **options: object) -> WorkerProcess:
        """Start a worker at the site, whose way to the API server is a cable, too."""
        with pytest.MonkeyPatch.context() as patch:
            url = f"http://127.0.0.1:{self.to_api.port}/execution/"
            patch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
            for key, value in AIRFLOW.items():
                patch.setenv(f"AIRFLOW__WORKERS__{key}", value)
            given: dict[str, Any] = DEFAULTS | self.site.options() | options
            return self.stage.launch("--skip-serve-logs", *args, name=name, **given)

    def near(self, name: str, **options: object) -> WorkerProcess:
        """Start a worker of the same queue beside the hub."""
        settings = self.site.settings("worker-default")
        given: dict[str, Any] = self.site.central.options("worker-default") | self.site.trust()
        given |= DEFAULTS | {"servers": settings.servers[0]} | options
        return self.stage.launch("--skip-serve-logs", name=name, **given)

    async def stopped(self, worker: WorkerProcess) -> None:
        """End a worker that has nothing left to do."""
        worker.tell(signal.SIGTERM)
        assert await worker.ended() == 0, worker.text

    def cut(self) -> None:
        """Lose the site's uplink: nothing passes.

        The leaf node is not told, as that takes longest to find out. A client of the API server
        is, as clients give up soonest then.
        """
        self.site.link.cut()
        self.to_api.unplug()

    def mend(self) -> None:
        self.site.link.mend()
        self.to_api.plug()

    @contextlib.asynccontextmanager
    async def watched(self, settings: Settings, *tasks: str) -> AsyncIterator[None]:
        """Look after running tasks as their executor does, with every heartbeat."""
        reports = [await self.stage.post.reported(task, State.RUNNING) for task in tasks]
        held = [
            Dispatch(
                r.dispatch_id, r.dispatch_id, r.queue, Kind.TASK, "", state=r.state,
                worker=r.worker, worker_name=r.worker_name,
            )
            for r in reports
        ]  # fmt: skip
        mailbox = Mailbox(settings.names)
        inspector = Inspector(settings, "scheduler", lambda: self.stage.post.broker, mailbox)

        async def watch() -> None:
            while True:
                await inspector.watch(held)
                await asyncio.sleep(settings.heartbeat_seconds)

        watching = asyncio.create_task(watch(), name="watch")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site.build(tmp_path_factory.mktemp("site")).opened() as site:
        yield site


@pytest.fixture(scope="module")
async def leaf_stage(
    site: Site,
    home: Path,  # noqa: ARG001 - its environment
    api: ExecutionApi,
    marks: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[LeafStage]:
    await site.set_up()
    settings = site.settings("scheduler")
    with Cable(api.port) as to_api:
        async with connect(settings, role="test") as broker:
            await broker.ready(10)
            output = tmp_path_factory.mktemp("output")
            stage = FaultStage(settings, Post(broker, settings), api, marks, output)
            following = asyncio.create_task(stage.follow(), name="history")
            try:
                yield LeafStage(site, stage, to_api)
            finally:
                following.cancel()
                await asyncio.wait([following])


@pytest.fixture(autouse=True)
def cleared(leaf_stage: LeafStage) -> Iterator[None]:
    """Leave no worker to the next test: after a failure it would take that one's tasks."""
    yield
    leaf_stage.stage.clear_away()


async def test_a_worker_behind_a_leaf_node_runs_the_tasks_of_its_queue(
    leaf_stage: LeafStage,
) -> None:
    worker = leaf_stage.far(name="usual")
    await worker.said("is ready")

    task = await leaf_stage.stage.running()
    report = await leaf_stage.stage.post.reported(task, State.RUNNING)
    liveness = Liveness(leaf_stage.stage.post.broker, leaf_stage.stage.settings)

    assert report.worker_name == "usual"
    assert await liveness.ping(report.worker) is PingResult.ALIVE
    seen = await seen_workers(leaf_stage.stage.post.broker, leaf_stage.stage.settings)
    assert [s.presence.queues for s in seen if s.presence.name == "usual"] == [["default"]]
    await leaf_stage.stage.carry_out(task)
    assert leaf_stage.site.leaf.monitor("/varz")["connections"] == 1
    assert "denies" not in worker.text
    await leaf_stage.stopped(worker)


@pytest.mark.slow
async def test_a_leaf_node_without_its_hub_makes_its_workers_unready(leaf_stage: LeafStage) -> None:
    """Their own connection is as it was, so nothing else shows it."""
    port = free_port()
    worker = leaf_stage.far(name="unready", health_port=port)
    await worker.said("is ready")
    await wait_for_readiness(port, 200, "ready")

    leaf_stage.site.link.unplug()
    try:
        await wait_for_readiness(port, 503, "no answer to pulls of queue 'default'")
        with pytest.raises(BrokerUnavailable, match="this leaf node has no link to it"):
            await look_from(leaf_stage.site)
        assert (await ask(port, "/livez")).status == 200
    finally:
        leaf_stage.site.link.plug()

    await wait_for_readiness(port, 200, "ready")
    await leaf_stage.stage.works(worker)
    assert worker.text.count("connected to NATS") == 1
    await leaf_stage.stopped(worker)


async def wait_for_readiness(port: int, status: int, text: str) -> None:
    async def is_so() -> bool:
        answer = await ask(port, "/readyz")
        return answer.status == status and text in answer.text

    await wait_until(is_so, 40, f"{status} {text}")


async def look_from(site: Site) -> None:
    """Ask for a stream as `airflow nats check` does first, from the site."""
    options = site.options()
    async with connect(settings_for(options.pop("servers"), **options), role="test") as broker:
        await broker.ready(5)
        await broker.stream_info(NAMES.results_stream)


@pytest.mark.slow
async def test_a_worker_of_another_queue_is_denied_at_the_site(leaf_stage: LeafStage) -> None:
    worker = leaf_stage.far("-q", "other", name="stranger")
    await leaf_stage.stage.post.send(task_body("sleep", "d-other"), "d-other", queue="other")

    await worker.said(" to publish to $JS.hub.API")

    assert await leaf_stage.stage.post.report("d-other", queue="other") is None
    assert not await leaf_stage.stage.post.is_acked("d-other", queue="other")


async def test_the_hub_denies_what_the_sites_own_server_allows(
    leaf_stage: LeafStage, tmp_path: Path
) -> None:
    """A leaf node has users of its own: it may let all of them do everything."""
    leaf = careless(leaf_stage.site, tmp_path)
    try:
        await asyncio.to_thread(leaf.start)
        await wait_until(lambda: leaf.monitor("/leafz")["leafnodes"], 20, "the link")
        settings = settings_for(
            leaf.url, jetstream_domain="hub", inbox_prefix="_INBOX_site-muc.x",
            publish_timeout_seconds=1,
        )  # fmt: skip
        async with connect(settings, role="test") as broker:
            await broker.ready(5)
            overheard = await listening(broker, NAMES.controls(), NAMES.results(), NAMES.tasks())
            before = await last_sequence(leaf_stage)

            assert await broker.publish(NAMES.result("default", "d-mine"), report("d-mine")) > 0
            for forbidden in (
                broker.publish(NAMES.result("other", "d-other"), report("d-other", "other")),
                broker.publish(NAMES.task("default", "d-forged"), b""),
                broker.last(NAMES.tasks_stream, NAMES.task("other", "d-other")),
                broker.stream_info(NAMES.tasks_stream),
                broker.create_stream({"name": "OURS", "subjects": ["ours"]}),
                broker._call(f"STREAM.PURGE.{NAMES.tasks_stream}"),
                broker._call(f"STREAM.DELETE.{NAMES.tasks_stream}"),
            ):
                with pytest.raises(BrokerError):
                    await forbidden

            # What it hears of others is what its workers have to hear, and no more.
            said = report("d-else", "other")
            await leaf_stage.stage.post.broker.publish(NAMES.result("other", "d-else"), said)
            with pytest.raises(BrokerError):
                await leaf_stage.stage.post.broker.request(
                    NAMES.control("x", Verb.PING), b"", timeout=1
                )
            await wait_until(lambda: NAMES.control("x", Verb.PING) in overheard, 10, "a ping")
            assert NAMES.result("other", "d-else") not in overheard
            assert await last_sequence(leaf_stage) == before
    finally:
        await asyncio.to_thread(leaf.kill)


def report(dispatch_id: str, queue: str = "default") -> bytes:
    return encode(
        Report(
            dispatch_id=dispatch_id, queue=queue, state=State.DROPPED, kind="", key=[], worker="x",
            worker_name="x",
        )
    )  # fmt: skip


async def last_sequence(leaf_stage: LeafStage) -> int:
    info = await leaf_stage.stage.post.broker.stream_info(NAMES.tasks_stream)
    assert info is not None
    return info.last_sequence


def careless(site: Site, directory: Path) -> ShippedServer:
    """The site's leaf node with a user that may do everything."""
    leaf = ShippedServer(directory / "careless", name="careless")
    leaf.directory.mkdir()
    (leaf.directory / "hub.conf").write_bytes((site.leaf.directory / "hub.conf").read_bytes())
    leaf.config = f"""
        server_name: careless
        listen: 127.0.0.1:{leaf.port}
        http: 127.0.0.1:{leaf.monitor_port}
        include "hub.conf"
        leafnodes {{ remotes: [
          {{ urls: $HUB_URLS, tls: {{ ca_file: "{site.ca.ca_file}" }} }}
        ] }}
    """
    return leaf


async def listening(broker: Any, *subjects: str) -> list[str]:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for subject in subjects:
        await broker._link.listen(Listener(hear, subject=subject))
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_leaf_node_that_is_restarted_loses_nothing(
    leaf_stage: LeafStage, how: signal.Signals
) -> None:
    worker = leaf_stage.far(name=f"restarted-{how}")
    await worker.said("is ready")
    running, ended = [await leaf_stage.stage.running() for _ in range(2)]

    leaf_stage.site.leaf.end(how)
    await leaf_stage.stage.end(ended)
    await wait_until(
        lambda: leaf_stage.stage.final_states(ended), 30, "its state at the API server"
    )
    queued = await leaf_stage.stage.send("sleep")
    await asyncio.to_thread(leaf_stage.site.leaf.start)

    await leaf_stage.stage.succeeded(ended)
    await leaf_stage.stage.post.reported(queued, State.RUNNING)
    assert await leaf_stage.stage.is_running(running)
    for task in (running, queued):
        await leaf_stage.stage.carry_out(task)
    await leaf_stage.stopped(worker)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_link_that_is_cut_for_a_minute_costs_nothing(leaf_stage: LeafStage) -> None:
    """With the documented setting: tasks run on and end, their reports arrive, no try is spent."""
    stage = leaf_stage.stage
    far, near = leaf_stage.far(name="patient-far", **FAR), leaf_stage.near("patient-near", **FAR)
    for worker in (far, near):
        await worker.said("is ready")
    stays, ends = [await stage.running_on(far) for _ in range(2)]
    deliveries = await stage.deliveries()

    async with leaf_stage.watched(leaf_stage.site.settings("scheduler", **FAR), stays, ends):
        leaf_stage.cut()
        cut = asyncio.create_task(lasts(CUT_SECONDS), name="the cut")
        try:
            await stage.end(ends)
            # The broker offers what it hears nothing of to the other worker, which leaves it alone.
            await wait_until(is_offered_again(stage, deliveries), CUT_SECONDS, "a redelivery")
            await leaf_stage.stopped(near)
            queued = [await stage.send("sleep") for _ in range(2)]
            await cut
            assert await stage.is_running(stays)
            assert not stage.final_states(ends)
        finally:
            leaf_stage.mend()
        report = await stage.succeeded(ends)
        for task in queued:
            await stage.post.reported(task, State.RUNNING)

    assert report.worker_name == "patient-far"
    assert await stage.is_running(stays)
    for task in (stays, *queued):
        await stage.carry_out(task)
        assert State.FAILED not in stage.states(task)
    assert stage.states(stays) == [State.CLAIMED, State.RUNNING, State.SUCCESS]
    await leaf_stage.stopped(far)


def is_offered_again(stage: FaultStage, deliveries: int) -> Any:
    async def look() -> bool:
        return await stage.deliveries() > deliveries

    return look


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_link_that_is_cut_for_long_costs_a_try_and_no_more(leaf_stage: LeafStage) -> None:
    """With the default settings it is reported lost, and the first run's end changes nothing."""
    stage = leaf_stage.stage
    far, near = leaf_stage.far(name="hasty-far"), leaf_stage.near("hasty-near")
    for worker in (far, near):
        await worker.said("is ready")
    lost = await stage.running_on(far)

    async with leaf_stage.watched(leaf_stage.site.settings("scheduler"), lost):
        leaf_stage.cut()
        try:
            report = await stage.failed(lost)
            assert report.info.startswith("worker hasty-far lost")
            again = await stage.running()  # as Airflow queues its next try
            assert (await stage.post.reported(again, State.RUNNING)).worker_name == "hasty-near"
            await stage.end(lost)
        finally:
            leaf_stage.mend()

    await wait_until(lambda: stage.final_states(lost), 120, "its end at the API server")
    await stage.carry_out(again)
    # Only once it is alone: the other one would take all that is sent before the link is back.
    await leaf_stage.stopped(near)
    await stage.works(far)
    assert stage.states(lost)[-1] is State.FAILED
    assert State.SUCCESS not in stage.states(lost)
    assert stage.starts(lost) == 1
    await leaf_stage.stopped(far)


@pytest.mark.slow
async def test_a_hub_that_loses_its_data_takes_nothing_from_others(leaf_stage: LeafStage) -> None:
    """A worker's connection to its leaf node stays, and the numbers of messages begin again."""
    stage = leaf_stage.stage
    await lose_data(leaf_stage)
    far = leaf_stage.far("-c", "1", name="wiped-far")
    await far.said("is ready")
    task = await stage.running()

    await lose_data(leaf_stage)
    near = leaf_stage.near("wiped-near")
    await near.said("is ready")
    # The first of them has the number now that the task had.
    others = [await stage.running_on(near) for _ in range(2)]

    # It says so again by itself.
    await stage.post.reported(task, State.RUNNING)
    await stage.end(task)
    assert (await stage.post.reported(task, State.SUCCESS)).worker_name == "wiped-far"
    await stage.works(far)
    for other in others:
        assert not await stage.post.is_acked(other)
        await stage.carry_out(other)
    assert far.text.count("connected to NATS") == 1
    for worker in (far, near):
        await leaf_stage.stopped(worker)


async def lose_data(leaf_stage: LeafStage) -> None:
    hub = leaf_stage.site.hub
    hub.stop()
    shutil.rmtree(hub.directory / "data")
    await asyncio.to_thread(hub.start)
    await leaf_stage.stage.post.broker.ready(20)
    await leaf_stage.site.set_up()
    await wait_until(leaf_stage.site.is_linked, 20, "the leaf node")
