"""The two places where the contract is played: a fake broker and a real server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nats_executor.broker.connection import connect
from nats_executor.errors import BrokerUnavailable, TopologyMismatch
from nats_executor.topology import setup
from nats_executor.topology.wanted import stream_configs
from nats_executor.wire.names import Lane
from tests.support.fake_broker import FakeServer
from tests.support.fixtures import settings_for
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager, AsyncExitStack

    from nats_executor.broker.port import Broker, Config, Pulls
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

__all__ = [
    "ACK_WAIT",
    "PUBLISH_TIMEOUT",
    "FakeStage",
    "RealStage",
    "Stage",
    "open_streams",
    "soon",
]

SECOND = 1_000_000_000
# Real redeliveries take this long; shorter ones would come while a busy machine is still at work.
ACK_WAIT = 1.0
PUBLISH_TIMEOUT = 1.0

Result = TypeVar("Result")


async def soon(awaited: Awaitable[Result], seconds: float = 5.0) -> Result:
    """Return a result that must not take long; the limit is for a busy machine."""
    async with asyncio.timeout(seconds):
        return await awaited


async def open_streams(broker: Broker, settings: Settings) -> list[setup.Drift]:
    """Create what is missing, as an executor does, and return how the rest differs."""
    wanted = stream_configs(settings)
    return [drift for each in wanted for drift in await setup.open_stream(broker, each)]


class Stage(ABC):
    """A broker with the streams that the contract needs, and power over its server."""

    broker: Broker

    def __init__(self, names: Names, settings: Settings, exits: AsyncExitStack) -> None:
        self.names = names
        self.settings = settings
        self.exits = exits
        self.brokers: list[Broker] = []
        self.tasks = names.tasks_stream
        self.results = names.results_stream

    @abstractmethod
    def connection(self) -> AbstractAsyncContextManager[Broker]:
        """Open a connection that ends with the context."""

    async def another(self) -> Broker:
        """Open one more connection, until the end of the test."""
        broker = await self.exits.enter_async_context(self.connection())
        await broker.ready(5.0)
        self.brokers.append(broker)
        return broker

    @abstractmethod
    async def elapse(self, seconds: float) -> None:
        """Let the server's clock go on."""

    @abstractmethod
    async def stop_server(self) -> None:
        """Stop it, and return once the stage's connections know."""

    @abstractmethod
    async def start_server(self) -> None:
        """Start it, and return once the stage's connections are back."""

    async def restart_server(self) -> None:
        await self.stop_server()
        await self.start_server()

    def tasks_config(self) -> Config:
        """A work queue that keeps one message for each subject and refuses a second one."""
        return {
            "name": self.tasks, "subjects": [self.names.tasks()], "retention": "workqueue",
            "storage": "file", "discard": "new", "discard_new_per_subject": True,
            "max_msgs_per_subject": 1, "allow_direct": True, "num_replicas": self.settings.replicas,
            "duplicate_window": 120 * SECOND,
        }  # fmt: skip

    def results_config(self) -> Config:
        """A stream that keeps the last message of each subject."""
        return {
            "name": self.results, "subjects": [self.names.results()], "retention": "limits",
            "storage": "file", "max_msgs_per_subject": 1, "max_msg_size": 1000,
            "allow_direct": True, "num_replicas": self.settings.replicas,
        }  # fmt: skip

    def consumer_config(self, queue: str, *, ack_wait: float) -> Config:
        return {
            "durable_name": self.names.consumer(queue), "name": self.names.consumer(queue),
            "filter_subject": self.names.tasks(Lane(queue)), "ack_policy": "explicit",
            "deliver_policy": "all", "ack_wait": int(ack_wait * SECOND), "max_deliver": -1,
            "max_ack_pending": -1,
        }  # fmt: skip

    async def open(self) -> None:
        self.broker = await self.another()

    async def build(self) -> None:
        if not self.brokers:
            await self.open()
        for config in (self.tasks_config(), self.results_config()):
            await wait_until(partial(self._is_made, config), 30, f"stream {config['name']}")

    async def _is_made(self, config: Config) -> bool:
        """Create a stream; a cluster on a busy machine may take longer than one request waits.

        Before 2.12 a new one takes a server that is late with its first news for one that is gone.
        """
        try:
            await self.broker.create_stream(config)
        except (BrokerUnavailable, TopologyMismatch):
            return False
        return True

    async def queue(self, name: str = "default", *, ack_wait: float = 30.0) -> Pulls:
        """Create a queue's consumer and open its pulls on the stage's own connection."""
        await self.broker.create_consumer(self.tasks, self.consumer_config(name, ack_wait=ack_wait))
        return await self.pulls(self.broker, name)

    async def pulls(self, broker: Broker, name: str = "default") -> Pulls:
        return await broker.pull(self.tasks, self.names.consumer(name))

    async def offers(self, count: int, queue: str = "default") -> None:
        """Wait until a queue offers so many messages.

        A server tells its consumers of a message just after it told the publisher, so a `take`
        that follows a publish at once may come too early.
        """

        async def is_known() -> bool:
            infos = await self.broker.consumer_infos(self.tasks)
            return any(i.name == self.names.consumer(queue) and i.pending == count for i in infos)

        await wait_until(is_known, 5, f"{count} messages in queue {queue}")

    async def send(self, dispatch_id: str = "d1", queue: str = "default") -> int:
        """Publish a task whose body is its dispatch id."""
        return await self.broker.publish(self.names.task(queue, dispatch_id), dispatch_id.encode())


class FakeStage(Stage):
    """Everything in memory; time stands still unless told."""

    def __init__(self, names: Names, exits: AsyncExitStack) -> None:
        settings = settings_for("nats://127.0.0.1:4222", subject_prefix=names.prefix)
        super().__init__(names, settings, exits)
        self.server = FakeServer()

    def connection(self) -> AbstractAsyncContextManager[Broker]:
        return self.server.connect()

    async def elapse(self, seconds: float) -> None:
        self.server.advance(seconds)

    async def stop_server(self) -> None:
        self.server.stop()

    async def start_server(self) -> None:
        self.server.start()


class RealStage(Stage):
    """A nats-server process."""

    def __init__(
        self, names: Names, server: NatsServer, exits: AsyncExitStack, **options: str | int
    ) -> None:
        settings = settings_for(
            server.url,
            subject_prefix=names.prefix,
            publish_timeout_seconds=PUBLISH_TIMEOUT,
            **options,
        )
        super().__init__(names, settings, exits)
        self.server = server

    def connection(self) -> AbstractAsyncContextManager[Broker]:
        return connect(self.settings, role="contract")

    async def elapse(self, seconds: float) -> None:
        # A real server's clock cannot be moved, and "nothing happens for so long" has no condition.
        await asyncio.sleep(seconds)

    async def stop_server(self, *, hard: bool = False) -> None:
        await asyncio.to_thread(self.server.kill if hard else self.server.stop)
        await wait_until(
            lambda: not any(broker.is_connected for broker in self.brokers), 5, "disconnection"
        )

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)
        for broker in self.brokers:
            await broker.ready(5.0)
