"""`airflow nats setup` of the last release and of this one, on the same streams with messages."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from argparse import Namespace
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.connection import connect
from nats_executor.cli import commands
from tests.contract.stage import soon
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import Broker, Delivery
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer
    from tests.support.release import Release

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

# What an upgrade may want to be otherwise, as far as NATS changes it in place.
OTHERWISE: dict[str, Any] = {
    "ack_wait_seconds": 45,
    "max_stream_bytes": 50_000_000,
    "result_retention_seconds": 7200,
    "dead_letter_retention_seconds": 1_000_000,
    "queue_limits": "gpu=3",
}
QUEUES = ("default", "gpu")
STATE = ("delivered", "ack_floor", "num_ack_pending", "num_redelivered", "num_pending")


@dataclass
class Stage:
    """A broker, and the command line of two releases."""

    broker: Broker
    settings: Settings
    earlier: Release
    capture: pytest.CaptureFixture[str]
    said: str = ""

    def environment(self, options: dict[str, Any]) -> dict[str, str]:
        values = {"servers": ",".join(self.settings.servers)} | options
        values |= {"subject_prefix": self.settings.subject_prefix}
        return {f"AIRFLOW__NATS_EXECUTOR__{k.upper()}": str(v) for k, v in values.items()}

    def earlier_setup(self, *arguments: str, **options: Any) -> int:
        """Run the last release's `airflow nats setup` and return its exit code."""
        words = ("nats", "setup", "--queues", ",".join(QUEUES), *arguments)
        # Airflow takes defaults from what is installed, which is this release.
        options = {"max_stream_bytes": -1} | options
        environment = {**os.environ, **self.environment(options), **self.earlier.environment}
        command = self.earlier.command("airflow", *words)
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        self.said = done.stdout + done.stderr
        return done.returncode

    async def setup(self, *, check: bool = False, **options: Any) -> int:
        """Run this release's command and return its exit code."""
        args = Namespace(
            queues=",".join(QUEUES), check=check, may_drop=False, team_name=None, verbose=False
        )
        code: Any = 0
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment(options).items():
                patch.setenv(name, value)
            try:
                # It has an event loop of its own.
                await asyncio.to_thread(commands.setup, args)
            except SystemExit as exc:
                code = exc.code
        printed = self.capture.readouterr()
        self.said = printed.out + printed.err
        assert isinstance(code, int)
        return code

    async def api(self, verb: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            await self.broker.request(f"$JS.API.{verb}", b"", timeout=5.0)
        )
        assert "error" not in answer
        return answer

    async def config(self) -> dict[str, Any]:
        config = await self.broker.stream_config(self.settings.names.tasks_stream)
        assert config is not None
        return config

    async def stored(self) -> dict[str, int]:
        names = self.settings.names
        streams = (
            names.tasks_stream, names.results_stream, names.dead_letters_stream,
            names.workers_stream,
        )  # fmt: skip
        return {
            name: (await self.api(f"STREAM.INFO.{name}"))["state"]["messages"] for name in streams
        }

    async def known(self, consumer: str = "default") -> dict[str, Any]:
        """What a consumer knows of deliveries and acks."""
        info = await self.api(f"CONSUMER.INFO.{self.settings.names.tasks_stream}.{consumer}")
        state = {name: info[name] for name in STATE}
        for moment in ("delivered", "ack_floor"):
            state[moment].pop("last_active", None)
        return state

    async def use(self) -> Delivery:
        """Have workloads wait, run and be done, and something in every stream; one is running."""
        names = self.settings.names
        for queue in QUEUES:
            for number in range(5):
                await self.broker.publish(names.task(queue, f"{queue}-{number}"), b"a workload")
        pulls = await self.broker.pull(names.tasks_stream, names.consumer("default"))
        done, running = [await soon(pulls.wait()) for _ in range(2)]
        await done.ack()
        await self.broker.publish(names.result("default", "default-0"), b"a report")
        await self.broker.publish(names.dead_letter("default", "default-9"), b"what was that?")
        await self.broker.publish(names.presence("default", "w1"), b"a record")
        return running


@pytest.fixture
async def stage(
    nats_server: NatsServer,
    names: Names,
    earlier_release: Release,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Stage]:
    settings = settings_for(nats_server.url, subject_prefix=names.prefix)
    async with AsyncExitStack() as exits:
        broker = await exits.enter_async_context(connect(settings, role="test"))
        await broker.ready(5.0)
        yield Stage(broker, settings, earlier_release, capsys)


async def test_an_upgrade_changes_streams_in_place_and_loses_nothing(stage: Stage) -> None:
    assert stage.earlier_setup() == 0, stage.said
    running = await stage.use()
    stored, known = await stage.stored(), await stage.known()
    assert set(stored.values()) == {9, 1}
    assert await stage.setup(check=True, **OTHERWISE) == 1
    assert "max_bytes is -1, should be 50000000" in stage.said
    assert (await stage.config())["max_bytes"] == -1

    assert await stage.setup(**OTHERWISE) == 0, stage.said

    assert "ack_wait from 30000000000 to 45000000000" in stage.said
    assert await stage.setup(check=True, **OTHERWISE) == 0, stage.said
    assert (await stage.stored(), await stage.known()) == (stored, known)
    # What was delivered before is acked after it, and the rest comes.
    await running.ack()
    assert (await stage.known())["num_ack_pending"] == 0
    pulls = await stage.broker.pull(stage.settings.names.tasks_stream, "default")
    waiting = [(await soon(pulls.wait())).subject.rpartition(".")[2] for _ in range(3)]
    assert waiting == ["default-2", "default-3", "default-4"]


@pytest.mark.slow
async def test_a_rollback_keeps_what_this_release_made(stage: Stage) -> None:
    """What an earlier release does not know it neither misses nor takes away.

    Two settings it knows otherwise: a task stream without a size, and rollups in the bucket.
    """
    assert await stage.setup() == 0, stage.said
    await stage.use()
    names = stage.settings.names
    consumers = {info.name for info in await stage.broker.consumer_infos(names.tasks_stream)}
    stored, known = await stage.stored(), await stage.known()

    assert stage.earlier_setup("--check") == 1
    lines = [line.split(": ")[1] for line in stage.said.splitlines() if "should be" in line]
    assert [line.split()[0] for line in lines] == ["max_bytes", "allow_rollup_hdrs"], stage.said
    assert stage.earlier_setup() == 0, stage.said

    assert (await stage.stored(), await stage.known()) == (stored, known)
    infos = await stage.broker.consumer_infos(names.tasks_stream)
    assert {info.name for info in infos} == consumers
    assert await stage.setup() == 0, stage.said
    assert await stage.setup(check=True) == 0, stage.said
    assert (await stage.stored(), await stage.known()) == (stored, known)


@pytest.mark.slow
async def test_a_rollback_takes_settings_back_in_place(stage: Stage) -> None:
    assert await stage.setup(**OTHERWISE) == 0, stage.said
    await stage.use()
    stored = await stage.stored()

    assert stage.earlier_setup("--check") == 1
    assert stage.earlier_setup() == 0, stage.said

    assert await stage.stored() == stored
    assert (await stage.config())["max_bytes"] == -1


async def test_what_cannot_be_changed_is_refused_and_the_remedy_works(stage: Stage) -> None:
    await stage.setup()
    await stage.use()
    names = stage.settings.names
    consumer = f"{names.tasks_stream}.default"
    config = (await stage.api(f"CONSUMER.INFO.{consumer}"))["config"]
    await stage.api(f"CONSUMER.DELETE.{consumer}")
    await stage.broker.create_consumer(names.tasks_stream, config | {"max_waiting": 512})
    stored = await stage.stored()
    remedy = f"nats consumer rm {names.tasks_stream} default"

    assert await stage.setup(check=True) == 1
    assert remedy in stage.said
    assert await stage.setup() == 2
    assert remedy in stage.said
    assert len(stage.said.splitlines()) == 1

    await stage.api(f"CONSUMER.DELETE.{consumer}")
    assert await stage.setup() == 0, stage.said
    assert await stage.stored() == stored
    assert (await stage.known())["num_pending"] == 4
