"""Find out what many queues, bands, workers, messages, payloads, teams and schedulers cost NATS."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nats_executor.access.accounts import BESIDE, accounts_for, as_accounts, everyone, owned_by_team
from nats_executor.batches import batches
from nats_executor.broker.connection import connect
from nats_executor.broker.port import Outgoing
from nats_executor.errors import BrokerError
from nats_executor.operations.survey import check_rows, survey_queue_rows, take_survey, worker_rows
from nats_executor.scheduler.dispatcher import Dispatcher
from nats_executor.topology import setup
from nats_executor.topology.room import as_block, room_for
from nats_executor.wire.fitting import fitted_presence, fitted_report
from nats_executor.wire.messages import Kind, Report, State
from tests.bench.stage import cpu_seconds, resident_megabytes
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, server_version
from tests.support.presences import presence_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings

__all__ = ["MEASURES", "Measure"]

Figures = dict[str, float | str]

WINDOW = 500
# As large as that of a usual task; `python -m tests.attacks.measure` has the parts.
WORKLOAD = b"w" * 1_500
DEFAULT_PAYLOAD, SHIPPED_PAYLOAD = 2**20, 8 * 2**20
SECONDS = 120.0
# Of a reload with a thousand accounts.
RELOAD_SECONDS = 420.0


@dataclass
class Stage:
    """One real server, what it has used so far, and what this process has."""

    server: NatsServer
    used: tuple[float, float, int] = field(default=(0.0, 0.0, 0))

    @property
    def pid(self) -> int:
        assert self.server.process
        return self.server.process.pid

    def settings(self, **options: Any) -> Settings:
        return settings_for(self.server.url, **options)

    @contextlib.contextmanager
    def measured(self, found: Figures, name: str) -> Iterator[None]:
        """Note the processor time of both, and how many messages the server got."""

        def now() -> tuple[float, float, int]:
            received = int(self.server.monitor("/varz")["in_msgs"])
            return cpu_seconds(self.pid), time.process_time(), received

        before = now()
        yield
        broker, own, messages = (b - a for a, b in zip(before, now(), strict=True))
        found[f"{name}: CPU s of NATS"] = round(broker, 2)
        found[f"{name}: CPU s of the caller"] = round(own, 2)
        found[f"{name}: messages to NATS"] = messages

    def stored(self) -> int:
        return int(self.server.monitor("/jsz")["bytes"])

    def memory(self) -> float:
        return round(resident_megabytes(self.pid))


@dataclass(frozen=True)
class Measure:
    """One thing there may be much of.

    Attributes:
        what: what the sizes count.
        sizes: the steps, the largest last.
        takes: finds the figures of one step on a new server.
        config: more configuration of that server.
    """

    what: str
    sizes: tuple[int, ...]
    takes: Callable[[Stage, int], Awaitable[Figures]]
    config: str = ""


@contextlib.asynccontextmanager
async def connected(stage: Stage, **options: Any) -> AsyncIterator[tuple[Broker, Settings]]:
    settings = stage.settings(**options)
    async with connect(settings, role="test") as broker:
        await broker.ready(20)
        yield broker, settings


async def look(stage: Stage, broker: Broker, settings: Settings, found: Figures) -> None:
    """Do what `check`, `queues list` and a page's refresh do."""
    with stage.measured(found, "one look"):
        survey = await take_survey(broker, settings)
        check_rows(survey, settings)
        survey_queue_rows(survey, settings)
    found["workers seen"] = len(worker_rows(survey, settings))


async def send(broker: Broker, messages: list[Outgoing]) -> None:
    for window in batches(messages, WINDOW):
        for failure in await broker.publish_all(window, timeout=SECONDS):
            if failure:
                raise failure


async def queues(stage: Stage, size: int) -> Figures:
    return await of_lanes(stage, [f"queue-{n}" for n in range(size)])


async def bands(stage: Stage, size: int) -> Figures:
    """Ten queues with so many bands each."""
    thresholds = ",".join(str(n) for n in range(1, size)) or "none"
    names = [f"queue-{n}" for n in range(10)]
    return await of_lanes(stage, names, priority_bands=thresholds)


async def of_lanes(stage: Stage, names: list[str], **options: Any) -> Figures:
    found: Figures = {}
    async with connected(stage, **options) as (broker, settings):
        with stage.measured(found, "setup"):
            await setup.apply(broker, settings, names)
        found["consumers"] = len(await broker.consumer_infos(settings.names.tasks_stream))
        found["memory of NATS, MB"] = stage.memory()
        await look(stage, broker, settings, found)
        with stage.measured(found, "start of a scheduler"):
            await start(settings)
    return found


async def start(settings: Settings) -> None:
    dispatcher = Dispatcher(settings, "scheduler-1")
    living = asyncio.create_task(dispatcher.run())
    try:
        await asyncio.wait_for(dispatcher.prepared(), SECONDS)
    finally:
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living


async def workers(stage: Stage, size: int) -> Figures:
    """Records of so many workers; `make bench ARGS="--only fleet_1000"` has real ones."""
    found: Figures = {}
    async with connected(stage) as (broker, settings):
        await setup.apply(broker, settings, ["default"])
        now = time.time()
        before = stage.stored()
        presences = (replace(presence_of(f"worker-{n}"), at=now) for n in range(size))
        subject = settings.names.presence
        await send(
            broker,
            [Outgoing(subject("default", p.name), fitted_presence(p)) for p in presences],
        )
        found["bytes stored for each"] = round((stage.stored() - before) / size)
        found["memory of NATS, MB"] = stage.memory()
        await look(stage, broker, settings, found)
    return found


async def waiting(stage: Stage, size: int) -> Figures:
    found: Figures = {}
    async with connected(stage) as (broker, settings):
        await setup.apply(broker, settings, ["default"])
        before = stage.stored()
        subject = settings.names.task
        with stage.measured(found, "sending"):
            await send(
                broker,
                [Outgoing(subject("default", f"d{n}"), WORKLOAD, f"d{n}") for n in range(size)],
            )
        found["bytes stored for each"] = round((stage.stored() - before) / size)
        found["memory of NATS, MB"] = stage.memory()
        await look(stage, broker, settings, found)
    return found


async def reports(stage: Stage, size: int) -> Figures:
    """What ended workloads leave behind."""
    found: Figures = {}
    async with connected(stage) as (broker, settings):
        await setup.apply(broker, settings, ["default"])
        before = stage.stored()
        await send(broker, reported(settings, size))
        found["bytes stored for each"] = round((stage.stored() - before) / size)
        found["memory of NATS, MB"] = stage.memory()
        with stage.measured(found, "start of a scheduler"):
            await start(settings)
    return found


def reported(settings: Settings, size: int) -> list[Outgoing]:
    report = Report(
        dispatch_id="d", queue="default", state=State.SUCCESS, kind=Kind.TASK,
        key=["sales_daily", "extract_orders", "scheduled__2026-11-29T00:00:00+00:00", 1, -1],
        worker="worker-1.1a2b3c4d", worker_name="worker-1", sender="scheduler-1.1a2b3c4d",
        pid=12345, at=time.time(),
    )  # fmt: skip
    return [
        Outgoing(
            settings.names.result("default", f"d{n}"),
            fitted_report(replace(report, dispatch_id=f"d{n}")),
        )
        for n in range(size)
    ]


async def schedulers(stage: Stage, size: int) -> Figures:
    """So many readers of 2,000 reports: each gets all of them."""
    found: Figures = {}
    number = 2_000
    async with connected(stage) as (broker, settings):
        await setup.apply(broker, settings, ["default"])
        counts = [0] * size

        async def follow(place: int) -> None:
            async with connect(settings, role="scheduler") as reader:
                await reader.ready(20)
                async for _ in reader.follow(settings.names.results_stream, after=0, largest=9999):
                    counts[place] += 1

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(follow(place)) for place in range(size)]
            before = stage.server.monitor("/varz")["out_msgs"]
            with stage.measured(found, "reports"):
                await send(broker, reported(settings, number))

                async def are_read() -> bool:
                    return min(counts) >= number

                await wait_until(are_read, SECONDS, "the reports to be read")
            sent = stage.server.monitor("/varz")["out_msgs"] - before
            found["messages from NATS for each report"] = round(sent / number, 1)
            for reader in readers:
                reader.cancel()
    return found


async def payload(stage: Stage, size: int) -> Figures:
    """One workload of so many bytes, or the line with which it is refused."""
    found: Figures = {}
    async with connected(stage) as (broker, settings):
        await setup.apply(broker, settings, ["default"])
        try:
            await broker.publish(settings.names.task("default", "d1"), bytes(size))
            found["outcome"] = "stored"
        except BrokerError as exc:
            found["outcome"] = str(exc)
        found["memory of NATS, MB"] = stage.memory()
    return found


async def accounts(stage: Stage, size: int) -> Figures:
    """So many queues whose workers have an account each, in one deployment."""
    names = [f"worker-q{n}=q{n}" for n in range(size)]
    settings = stage.settings()
    main, beside = as_accounts(accounts_for(settings.names, everyone(settings, names, ()))).split(
        BESIDE
    )
    return await reloaded(stage, f"AIRFLOW {{ jetstream: enabled\n{main} }}\n{beside}")


async def teams(stage: Stage, size: int) -> Figures:
    """So many teams with accounts of their own, each with five queues."""
    blocks = []
    for number in range(size):
        team = f"team{number}"
        settings = stage.settings(subject_prefix=f"airflow-{team}")
        names = [f"worker-q{n}=q{n}" for n in range(5)]
        made = accounts_for(settings.names, everyone(settings, names, ()))
        limits = as_block(room_for(settings, teams=1, queues=1000))
        blocks.append(as_accounts(owned_by_team(made, team), limits=limits))
    return await reloaded(stage, "\n".join(blocks))


async def reloaded(stage: Stage, blocks: str) -> Figures:
    """Have a running server take accounts, twice as `make-users` does."""
    found: Figures = {}
    text = f"accounts {{\n{blocks}\n}}\n"
    passwords = {
        line.split("$")[1]: "secret" for line in text.splitlines() if "password: $" in line
    }
    text = "".join(f'{name}: "{word}"\n' for name, word in passwords.items()) + text
    found["configuration, MB"] = round(len(text) / 1e6, 2)
    path = stage.server.directory / "server.conf"
    path.write_text(path.read_text() + text)
    for times in (1, 2):
        with stage.measured(found, f"reload {times}"):
            stage.server.signal(signal.SIGHUP)

            async def is_done(times: int = times) -> bool:
                return stage.server.log.count("Reloaded server configuration") == times

            await wait_until(is_done, RELOAD_SECONDS, "the reload")
        found.pop(f"reload {times}: messages to NATS")
        found.pop(f"reload {times}: CPU s of the caller")
    found["memory of NATS, MB"] = stage.memory()
    return found


def unlimited() -> str:
    """Return more configuration of JetStream, for a release that has a limit of its own."""
    return "  limits { default_max_consumers: 100000 }" if server_version() >= (2, 15) else ""


SHIPPED = f"max_payload: {SHIPPED_PAYLOAD}"
MEASURES = {
    "queues": Measure("queues, with the usual three bands", (100, 300, 1_000), queues),
    "bands": Measure("bands of each of ten queues", (1, 3, 10), bands),
    "workers": Measure("workers that have a record", (1_000, 10_000, 20_000), workers),
    "waiting": Measure("workloads that wait, 1.5 KB each", (10_000, 100_000), waiting),
    "reports": Measure("reports of ended workloads", (10_000, 100_000), reports),
    "schedulers": Measure("executors that read reports", (1, 4, 16), schedulers),
    "payload": Measure(
        "bytes of a workload, with the max_payload of cluster.conf",
        (SHIPPED_PAYLOAD - 8_192, SHIPPED_PAYLOAD + 1),
        payload,
        SHIPPED,
    ),
    "default_payload": Measure(
        "bytes of a workload, with NATS's own max_payload",
        (DEFAULT_PAYLOAD - 8_192, DEFAULT_PAYLOAD + 1),
        payload,
    ),
    "accounts": Measure("queues with an account each", (10, 100, 300), accounts),
    "teams": Measure("teams with five queues each", (1, 20, 50), teams),
}


def run(measure: Measure, size: int, directory: Path) -> Figures:
    """Take one step on a server of its own."""
    server = NatsServer(directory, config=measure.config, jetstream=unlimited())
    try:
        return asyncio.run(taken(measure, size, Stage(server.start())))
    finally:
        server.kill()


async def taken(measure: Measure, size: int, stage: Stage) -> Figures:
    return await measure.takes(stage, size)
