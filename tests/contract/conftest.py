"""Each test that asks for a `stage` runs twice: on the fake broker and on a real server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.contract.stage import FakeStage, RealStage, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.names import Names
    from tests.support.nats_server import NatsServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def choose(
    request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack, server: str
) -> Stage:
    """The stage that a parametrised fixture asks for."""
    if request.param == "fake":
        return FakeStage(names, exits)
    return RealStage(names, request.getfixturevalue(server), exits)


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Closes a test's connections, before its servers end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["fake", "real"])
async def bare_stage(request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack) -> Stage:
    """A connection, and no streams yet."""
    chosen = choose(request, names, exits, "nats_server")
    await chosen.open()
    return chosen


@pytest.fixture(params=["fake", "real"])
async def stage(request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack) -> Stage:
    """Connections and streams of one test; the real server is shared, so leave it alive."""
    chosen = choose(request, names, exits, "nats_server")
    await chosen.build()
    return chosen


@pytest.fixture(params=["fake", "real"])
async def fragile_stage(
    request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack
) -> Stage:
    """The same with a server of its own, which the test may stop."""
    chosen = choose(request, names, exits, "private_nats_server")
    await chosen.build()
    return chosen


@pytest.fixture
async def real_stage(
    names: Names, private_nats_server: NatsServer, exits: AsyncExitStack
) -> RealStage:
    """Faults that only a process can have."""
    real = RealStage(names, private_nats_server, exits)
    await real.build()
    return real
