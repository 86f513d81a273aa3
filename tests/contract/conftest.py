"""Each test that asks for a `stage` runs on the fake broker and on a real server.

On the real one twice: at home, and from another account that borrows its JetStream.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from nats_executor.access.accounts import DOMAIN
from nats_executor.wire.names import in_domain
from tests.contract.stage import FakeStage, RealStage, Stage
from tests.support.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nats_executor.wire.names import Names
    from tests.support.fixtures import MakeNatsServer

# Each connection is in an account that borrows all of JetStream from another one, in the same
# way as a worker's account borrows some of it.
LENT = {
    "$JS.API.STREAM.>": "Stream", "$JS.API.CONSUMER.>": "Stream", "$JS.API.DIRECT.>": "Stream",
    "$JS.API.INFO": "Singleton", "$JS.ACK.>": "Singleton",
    "$KV.>": "Singleton", "$O.>": "Singleton",
    "*.tasks.*.*": "Singleton", "*.results.*.*": "Singleton", "*.dead.*.*": "Singleton",
    "*.earlier.*": "Singleton", "later.*": "Singleton",
}  # fmt: skip
EXPORTS = "\n".join(
    f'{{ service: "{subject}", response_type: {kind} }}' for subject, kind in LENT.items()
)
IMPORTS = "\n".join(
    f'{{ service: {{ account: LENDER, subject: "{subject}" }}, '
    f'to: "{in_domain(subject.replace("$JS.API", f"$JS.{DOMAIN}.API"), DOMAIN)}" }}'
    for subject in LENT
)
LENDING = f"""
accounts {{
  LENDER {{ jetstream: enabled, exports: [{EXPORTS}] }}
  BORROWER {{ users: [{{ user: borrower, password: any }}], imports: [{IMPORTS}] }}
}}
no_auth_user: borrower
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def choose(
    request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack, server: str
) -> Stage:
    """The stage that a parametrised fixture asks for."""
    if request.param == "fake":
        return FakeStage(names, exits)
    if request.param == "borrowing":
        lender: NatsServer = request.getfixturevalue(f"lending_{server}")
        return RealStage(names, lender, exits, jetstream_domain=DOMAIN)
    return RealStage(names, request.getfixturevalue(server), exits)


@pytest.fixture(scope="session")
def lending_nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), config=LENDING)
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def lending_private_nats_server(make_nats_server: MakeNatsServer) -> NatsServer:
    return make_nats_server(config=LENDING)


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """Closes a test's connections, before its servers end."""
    async with AsyncExitStack() as stack:
        yield stack


BROKERS = [
    "fake",
    pytest.param("real", marks=pytest.mark.integration),
    pytest.param("borrowing", marks=pytest.mark.integration),
]


@pytest.fixture(params=BROKERS)
async def bare_stage(request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack) -> Stage:
    """A connection, and no streams yet."""
    chosen = choose(request, names, exits, "nats_server")
    await chosen.open()
    return chosen


@pytest.fixture(params=BROKERS)
async def stage(request: pytest.FixtureRequest, names: Names, exits: AsyncExitStack) -> Stage:
    """Connections and streams of one test; the real server is shared, so leave it alive."""
    chosen = choose(request, names, exits, "nats_server")
    await chosen.build()
    return chosen


@pytest.fixture(params=BROKERS)
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
