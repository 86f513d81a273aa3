"""A server whose release is unsafe: all that use it say so, and go on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker import login
from nats_executor.broker.releases import danger, weakness
from nats_executor.cli import commands
from nats_executor.retrying import Once
from tests.remedies.lines import EXAMPLES, LINES
from tests.support.cable import Cable
from tests.support.nats_server import server_version
from tests.support.waiting import block_until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tests.remedies.stage import RemedyStage
    from tests.support.cable import Wire
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.integration

VERSION = EXAMPLES["version"]
UNSAFE = LINES["unsafe server"].format(version=VERSION)


class Mask(Cable):
    """Lets a server say in its greeting that it is another release."""

    def __init__(self, port: int, release: str) -> None:
        super().__init__(port)
        self.release = release

    async def pump(
        self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if writer is wire.ends[0]:
            greeting = await reader.readline()
            said = re.sub(rb'"version":"[^"]*"', f'"version":"{self.release}"'.encode(), greeting)
            assert said.startswith(b"INFO "), greeting
            writer.write(said)
        await super().pump(wire, reader, writer)


def test_an_unsafe_server_is_one_line_everywhere_and_works(
    private_nats_server: NatsServer,
    open_remedy_stage: Callable[..., RemedyStage],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(login, "WARNED", Once())
    with Mask(private_nats_server.port, VERSION) as mask:
        seen = open_remedy_stage(f"nats://127.0.0.1:{mask.port}")
        assert seen.console.run(commands.setup, queues="a")[0] == 0

        with seen.worker("-q", "a", "-c", "1") as worker:
            seen.said(worker, f"{UNSAFE}; next: going on with it")
            block_until(seen.is_ready, 90, "its readiness")
            mask.unplug()
            mask.plug()
            block_until(lambda: worker.text.count("connected to NATS at") > 1, 60, "its return")
            assert worker.text.count(UNSAFE) == 1, worker.text
        login.WARNED.forget_all()  # a scheduler runs no commands, as this process has
        with seen.scheduler() as executor:
            block_until(lambda: executor.heartbeat() or executor.running, 10, "the sending")
            assert seen.logged(UNSAFE) == [f"{UNSAFE}; next: going on with it"]

        code, output = seen.console.run(commands.check, output="json")
    found = [row for row in json.loads(output) if row["check"] == "nats-server"]
    assert {"check": "nats-server", "status": "unsafe", "details": UNSAFE} in found
    assert code == 1


def test_what_check_finds_of_the_server_under_test_is_our_judgement_of_its_release(
    private_nats_server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(private_nats_server.url)
    seen.console.run(commands.setup, queues="a")

    code, output = seen.console.run(commands.check, output="json")

    version = ".".join(map(str, server_version()))
    wanted = [("unsafe", danger(version)), ("ok", weakness(version))]
    rows = [row for row in json.loads(output) if row["check"] == "nats-server"]
    assert [(r["status"], r["details"]) for r in rows] == [pair for pair in wanted if pair[1]]
    assert code == int(bool(danger(version)))


def test_what_a_safe_server_lacks_is_said_by_check_and_needs_nobody(
    private_nats_server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    release = EXAMPLES["release"]
    with Mask(private_nats_server.port, release) as mask:
        seen = open_remedy_stage(f"nats://127.0.0.1:{mask.port}")
        seen.console.run(commands.setup, queues="a")

        code, output = seen.console.run(commands.check, output="json")

    found = [row for row in json.loads(output) if row["check"] == "nats-server"]
    wanted = {
        "check": "nats-server",
        "status": "ok",
        "details": LINES["weak server"].format(release=release),
    }
    # The server under test leads the streams, and may itself be such a one.
    assert wanted in found
    assert code == int(bool(danger(".".join(map(str, server_version())))))
