"""Fixtures around brokers: servers to share, servers to hurt, names that no other test uses.

`tests/conftest.py` registers them; tests ask for the names without `_fixture`.
"""

from __future__ import annotations

import os
import secrets
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from nats_executor.settings import Settings
from nats_executor.wire.names import Names
from tests.support.nats_server import NatsServer, nats_cluster, server_version, start_together
from tests.support.release import Release, ReleaseMissing, last_release, lay_out
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from testcontainers.community.nats import NatsContainer

__all__ = [
    "MakeNatsServer",
    "earlier_release_fixture",
    "make_nats_server_fixture",
    "names_fixture",
    "nats_cluster_of_three_fixture",
    "nats_container_fixture",
    "nats_server_fixture",
    "private_nats_server_fixture",
    "settings_for",
]


class MakeNatsServer(Protocol):
    """Start a server of the test's own; it ends with the test."""

    def __call__(self, *, config: str = "", jetstream: str = "") -> NatsServer: ...


class Options:
    """Airflow's configuration, reduced to one section of text values."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = {name: str(value) for name, value in values.items()}

    def get(self, _section: str, key: str, *, fallback: Any) -> Any:
        return self.values.get(key, fallback)


def settings_for(*servers: str, **options: Any) -> Settings:
    """Settings that find a test's servers, with the default of every option that is not given."""
    return Settings.load(Options({"servers": ",".join(servers), **options}))


@pytest.fixture(name="names")
def names_fixture() -> Names:
    """Names that no other test uses, so that many tests may share one server."""
    return Names(f"t{secrets.token_hex(6)}")


@pytest.fixture(name="nats_server", scope="session")
def nats_server_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests that leave it as it is."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture(name="make_nats_server")
def make_nats_server_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNatsServer]:
    """Start servers with a configuration of their own."""
    servers: list[NatsServer] = []

    def make(*, config: str = "", jetstream: str = "") -> NatsServer:
        directory = tmp_path_factory.mktemp("nats")
        servers.append(NatsServer(directory, config=config, jetstream=jetstream))
        return servers[-1].start()

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(name="private_nats_server")
def private_nats_server_fixture(make_nats_server: MakeNatsServer) -> NatsServer:
    """A server that the test may stop, kill, freeze or wipe."""
    return make_nats_server()


@pytest.fixture(name="nats_cluster_of_three")
def nats_cluster_of_three_fixture(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sequence[NatsServer]]:
    """A cluster that the test may hurt, with a leader."""
    servers = nats_cluster(tmp_path_factory.mktemp("cluster"))
    try:
        start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture(name="earlier_release", scope="session")
def earlier_release_fixture(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The code of the last release."""
    name = last_release()
    try:
        return lay_out(tmp_path_factory.mktemp("earlier"), name)
    except ReleaseMissing as exc:
        require(condition=False, reason=f"no code of the last release, {name}: {exc}")
        raise


def has_docker_socket() -> bool:
    """Whether it is worth asking; docker-py leaks a socket for every engine that is not there."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    return scheme != "unix" or Path(path).exists()


@pytest.fixture(name="nats_container", scope="session")
def nats_container_fixture() -> Iterator[NatsContainer]:
    """The official image in a container, of the version under test or of `NATS_IMAGE`."""
    docker = pytest.importorskip("docker", reason="testcontainers is not installed")
    if not has_docker_socket():
        pytest.skip("no Docker engine: its socket is not there")
    version = ".".join(str(part) for part in server_version())
    image = os.environ.get("NATS_IMAGE", f"nats:{version}")
    with ExitStack() as exits:
        try:
            docker.from_env(timeout=5).ping()
            with warnings.catch_warnings():
                # testcontainers warns about what it uses itself.
                warnings.simplefilter("ignore", DeprecationWarning)
                from testcontainers.community.nats import NatsContainer

                container = NatsContainer(image, jetstream=True)
                exits.callback(container.stop)
                container.start()
        except docker.errors.DockerException as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no container of {image}: {exc}")
        yield container
