"""Idle workers as bare connections, thousands in one process: the server sees no difference.

Each one says what an idle worker with one queue says, as often and with the same bodies: its
presence, a pull for each lane, a ping. `fleet_workers.py` has the real ones, which need ten times
as much of the machine that they share with the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from nats_executor.broker import pull_times
from nats_executor.broker.client import WATCH_SECONDS
from nats_executor.broker.pulls import nanoseconds
from nats_executor.fleet.presences import record_for
from nats_executor.wire.fitting import fitted_presence
from nats_executor.wire.messages import Presence
from tests.bench.aside import asked
from tests.bench.fleet_workers import QUEUE, SLOTS
from tests.bench.stage import settings_of

if TYPE_CHECKING:
    from nats_executor.settings import Settings

CONNECT = {
    "verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1,
    "lang": "python3", "version": "2",
}  # fmt: skip
# Subscriptions: answers, pings, and for each lane one for what waits and one for what is there.
ANSWERS, PINGS, WAITING, TAKING = 1, 2, 10, 20
LINE = b"\r\n"
# A deployment does not start its workers all at once either.
STARTING = 100
# Multiples of the golden ratio are spread evenly, however many there are.
SPREAD = 0.618034


class BareWorker(asyncio.Protocol):
    """One connection.

    Attributes:
        heartbeat: seconds between two heartbeats of a pull.
    """

    def __init__(self, settings: Settings, name: str, *, heartbeat: float) -> None:
        names, lanes = settings.names, settings.lanes(QUEUE)
        self.heartbeat = heartbeat
        self.inbox = f"{settings.inbox_prefix}.{name}"
        self.peer = names.peer(f"{name}-1")
        self.presence = names.presence(QUEUE, name)
        self.body = fitted_presence(record_for(presence_of(name), QUEUE))
        stream = names.tasks_stream
        self.lanes = [f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{names.consumer(*x)}" for x in lanes]
        self.is_greeted = asyncio.Event()
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def subscribe(self) -> None:
        lines = [f"CONNECT {json.dumps(CONNECT)}", f"SUB {self.inbox}.* {ANSWERS}"]
        lines.append(f"SUB {self.peer} {PINGS}")
        for lane in range(len(self.lanes)):
            lines += [f"SUB {self.inbox}.{kind}.{lane} {kind + lane}" for kind in (WAITING, TAKING)]
        self.transport.write("\r\n".join([*lines, "PING", ""]).encode())

    def say(self, subject: str, reply: str, body: bytes) -> None:
        self.transport.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + LINE)

    def announce(self) -> None:
        self.say(self.presence, f"{self.inbox}.0", self.body)

    def pull(self, lane: int) -> None:
        seconds = pull_times.pull_seconds(time.time())
        request = {
            "batch": 1, "expires": nanoseconds(seconds),
            "idle_heartbeat": nanoseconds(self.heartbeat),
        }  # fmt: skip
        self.say(self.lanes[lane], f"{self.inbox}.{WAITING}.{lane}", json.dumps(request).encode())

    def pull_all(self) -> None:
        for lane in range(len(self.lanes)):
            self.pull(lane)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while LINE in self.rest:
            line, _, rest = self.rest.partition(LINE)
            verb, *words = line.split()
            size = int(words[-1]) + len(LINE) if verb in {b"MSG", b"HMSG"} else 0
            if len(rest) < size:
                return
            self.rest = rest[size:]
            self.hear(verb, words, rest[:size])

    def hear(self, verb: bytes, words: list[bytes], body: bytes) -> None:
        if verb == b"INFO":
            self.subscribe()
        elif verb == b"PONG":
            self.is_greeted.set()
        elif verb == b"PING":
            self.transport.write(b"PONG\r\n")
        elif verb == b"HMSG" and not body.startswith(b"NATS/1.0 100"):
            assert body.startswith(b"NATS/1.0 408"), body  # nobody sends anything
            self.pull(int(words[1]) - WAITING)
        else:
            assert verb in {b"MSG", b"HMSG"}, verb

    async def live(self, beat_seconds: float, phase: float) -> None:
        """Begin at some time, as workers do, and go on for ever.

        Args:
            phase: a share of the time between two beats, and of a pull's life.
        """
        loop = asyncio.get_running_loop()
        self.announce()
        loop.call_later(phase * pull_times.PULL_SECONDS, self.pull_all)
        await asyncio.sleep(phase * beat_seconds)
        pinged_at = time.monotonic()
        while True:
            await asyncio.sleep(beat_seconds)
            self.announce()
            if time.monotonic() - pinged_at >= WATCH_SECONDS:
                pinged_at = time.monotonic()
                self.transport.write(b"PING\r\n")


def presence_of(name: str) -> Presence:
    return Presence(
        worker=f"{name}-1", name=name, host=socket.gethostname(), pid=os.getpid(),
        queues=[QUEUE], concurrency=SLOTS, running=0, draining=False,
        started_at=time.time(), at=time.time(), version="0",
    )  # fmt: skip


async def main(request: dict[str, Any]) -> None:
    """Connect them one after the other and stay until killed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url = os.environ["AIRFLOW__NATS_EXECUTOR__SERVERS"]
    settings = settings_of(url, os.environ["AIRFLOW__NATS_EXECUTOR__SUBJECT_PREFIX"])
    place, loop = urlsplit(url), asyncio.get_running_loop()
    gate = asyncio.Semaphore(STARTING)
    lives: list[asyncio.Task[None]] = []

    async def start(number: int) -> None:
        worker = BareWorker(settings, f"simulated-{number}", heartbeat=request["heartbeat"])
        async with gate:
            await loop.create_connection(lambda: worker, str(place.hostname), place.port or 4222)
            await worker.is_greeted.wait()
        lives.append(
            asyncio.create_task(worker.live(settings.heartbeat_seconds, number * SPREAD % 1))
        )

    first = request["first"]
    await asyncio.gather(*map(start, range(first, first + request["workers"])))
    await asyncio.gather(*lives)


if __name__ == "__main__":
    asyncio.run(main(asked()))
