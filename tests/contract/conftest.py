"""Each test that asks for a `stage` runs twice: on the fake broker and on a real server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.contract.stage import FakeStage, RealStage, Stage
from tests.support.fixtures import (
    make_nats_server_fixture,
    names_fixture,
    nats_cluster_of_three_fixture,
    nats_container_fixture,
    nats_server_fixture,
    private_nats_server_fixture,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.names import Names
    from tests.support.nats_server import NatsServer

__all__ = [
    "make_nats_server_fixture",
    "names_fixture",
    "nats_cluster_of_three_fixture",
    "nats_container_fixture",
    "nats_server_fixture",
    "private_nats_server_fixture",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def build(request: pytest.FixtureRequest, names: Names, server: str) -> AsyncIterator[Stage]:
    """Build the stage that a parametrised fixture asks for."""
    async with AsyncExitStack() as exits:
        built: Stage = (
            FakeStage(names, exits)
            if request.param == "fake"
            else RealStage(names, request.getfixturevalue(server), exits)
        )
        await built.build()
        yield built


@pytest.fixture(params=["fake", "real"])
async def stage(request: pytest.FixtureRequest, names: Names) -> AsyncIterator[Stage]:
    """Connections and streams of one test; the real server is shared, so leave it alive."""
    async for built in build(request, names, "nats_server"):
        yield built


@pytest.fixture(params=["fake", "real"])
async def fragile_stage(request: pytest.FixtureRequest, names: Names) -> AsyncIterator[Stage]:
    """The same with a server of its own, which the test may stop."""
    async for built in build(request, names, "private_nats_server"):
        yield built


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Closes a test's connections, before its servers end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def real_stage(
    names: Names, private_nats_server: NatsServer, exits: AsyncExitStack
) -> RealStage:
    """Faults that only a process can have."""
    real = RealStage(names, private_nats_server, exits)
    await real.build()
    return real
