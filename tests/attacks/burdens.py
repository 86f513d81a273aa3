"""Burdens that a worker's login of queue `a` writes: messages as large as may be.

Each flood is a coroutine over a connection of that user. They need a server whose `max_payload` is
that of `deploy/nats/cluster.conf`, and streams that take all that it takes: see `unlimited`.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack

from nats_executor.broker.connection import connect
from nats_executor.broker.port import Outgoing
from nats_executor.errors import TopologyMismatch
from nats_executor.logs import store
from nats_executor.topology import setup
from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.messages import Presence, Report, State, as_map, encode
from nats_executor.wire.names import in_domain
from tests.support.user_stage import NAMES, ROOT_USER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats_executor.broker.port import Broker
    from tests.support.user_stage import UserStage

__all__ = [
    "FLOODS",
    "LARGE",
    "LAST",
    "MAX_PAYLOAD",
    "PATH",
    "filler",
    "presence",
    "report",
    "run",
    "unlimited",
]

MAX_PAYLOAD = "max_payload: 8MB\nmax_pending: 64MB\n"
LARGE = 8 * 1024 * 1024 - 1024
# The log of a task of queue `a`.
PATH = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
# The dispatch of queue `b` that an honest worker reports on after the flood.
LAST = "last"
SECONDS = 60.0


async def unlimited(user_stage: UserStage) -> None:
    """Make the streams as a server has them where `airflow nats setup` set no limits."""
    free = {"max_bytes": -1, "max_msg_size": -1, "max_msgs": -1}

    async def lift(broker: Broker) -> None:
        for wanted in stream_configs(user_stage.settings(ROOT_USER)):
            existing = await broker.stream_config(wanted["name"])
            if existing is None:
                await broker.create_stream(wanted | free)
            else:
                await broker.update_stream(existing | free)
        for queue in ("a", "b"):
            try:
                await setup.open_queue(broker, user_stage.settings(ROOT_USER), queue)
            except TopologyMismatch:  # a limit that is not there is what this is about
                continue

    async with connect(user_stage.settings(ROOT_USER), role="test") as broker:
        await broker.ready(10)
        await lift(broker)


def filler(message: dict[str, Any], size: int = LARGE) -> bytes:
    """Return a message that this release would read, with as many empty lists as fit into it."""
    body: bytes = msgpack.packb(message | {"x": []})
    lists = size - len(body) - 4
    return body[:-1] + b"\xdd" + lists.to_bytes(4, "big") + b"\x90" * lists


def report(dispatch_id: str = "d1", queue: str = "a") -> Report:
    return Report(
        dispatch_id=dispatch_id, queue=queue, state=State.RUNNING, kind="ExecuteTask",
        key=["dag", "task", "run", 1, -1], worker="evil.1", worker_name="evil",
    )  # fmt: skip


def presence(name: str, *queues: str) -> Presence:
    return Presence(
        worker=f"{name}.1", name=name, host="h", pid=1, queues=list(queues) or ["a"],
        concurrency=1, running=0, draining=False, started_at=1.0, at=1.0, version="1",
    )  # fmt: skip


async def put(broker: Broker, messages: Sequence[Outgoing], at_once: int) -> None:
    domain = getattr(broker, "_domain", None)  # of a borrowing account, as `publish` has it
    placed = [Outgoing(in_domain(m.subject, domain), m.body) for m in messages]
    for start in range(0, len(messages), at_once):
        outcomes = await broker.publish_all(placed[start : start + at_once], timeout=SECONDS)
        if failed := next((outcome for outcome in outcomes if outcome), None):
            raise failed


async def large_reports(broker: Broker, count: int = 40) -> None:
    body = filler(as_map(report()))
    names = [NAMES.result("a", f"large{n}") for n in range(count)]
    await put(broker, [Outgoing(name, body) for name in names], 1)


async def one_large_report(broker: Broker) -> None:
    await large_reports(broker, 1)


async def many_reports(broker: Broker, count: int = 100_000) -> None:
    """Reports of which each one is as it should be."""
    messages = [
        Outgoing(NAMES.result("a", f"evil{n}"), encode(replace(report(), dispatch_id=f"evil{n}")))
        for n in range(count)
    ]
    await put(broker, messages, 1000)


async def large_records(broker: Broker, count: int = 40) -> None:
    bodies = {f"evil{n}": filler(as_map(presence(f"evil{n}"))) for n in range(count)}
    await put(broker, [Outgoing(NAMES.presence("a", k), body) for k, body in bodies.items()], 1)


async def many_records(broker: Broker, count: int = 100_000) -> None:
    names = [f"evil{n}" for n in range(count)]
    await put(broker, [Outgoing(NAMES.presence("a", k), encode(presence(k))) for k in names], 1000)


async def large_log_records(broker: Broker, count: int = 40) -> None:
    body = b'{"metadata": {}, "x": [' + b"[]," * ((LARGE - 40) // 3) + b"[]]}"
    names = [NAMES.log_part("a", PATH, f"{n:016x}") for n in range(count)]
    await put(broker, [Outgoing(name, body) for name in names], 1)


async def many_log_records(broker: Broker, count: int = 100_000) -> None:
    names = [NAMES.log_part("a", PATH, f"{n:016x}") for n in range(count)]
    await put(broker, [Outgoing(name, b"{}") for name in names], 1000)


async def large_parts(broker: Broker, count: int = 500) -> None:
    """Logs of queue `a` that are as they should be, and a lot of lines."""
    for n in range(count):
        text = f"{n:08x}\n".encode() + b"a line\n" * (1024 * 1024 // 7)
        await store.put(broker, NAMES, "a", PATH, io.BytesIO(text))


async def nothing(_: Broker) -> None:
    pass


FLOODS: dict[str, Callable[[Broker], Awaitable[None]]] = {
    "nothing": nothing,
    "one report of 8 MB": one_large_report,
    "40 reports of 8 MB": large_reports,
    "100,000 reports": many_reports,
    "40 presence records of 8 MB": large_records,
    "100,000 presence records": many_records,
    "40 log records of 8 MB": large_log_records,
    "100,000 log records": many_log_records,
    "500 log parts of 1 MB": large_parts,
}


def run(user_stage: UserStage, name: str) -> None:
    """Write a flood as the worker of queue `a`, and then one report as the worker of queue `b`."""

    async def write() -> None:
        await unlimited(user_stage)
        async with connect(user_stage.settings("worker_a"), role="flood") as broker:
            await broker.ready(10)
            await FLOODS[name](broker)
        async with connect(user_stage.settings("worker_b"), role="worker b") as broker:
            await broker.ready(10)
            last = NAMES.result("b", LAST)
            await broker.publish(last, encode(report(LAST, "b")), timeout=SECONDS)

    asyncio.run(write())
