"""A stage for the executor: the fake broker or a real server, and a peer that plays the worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.scheduler.stage import FakeStage, RealStage, Stage
from tests.scheduler.table import loops_fixture, table_fixture
from tests.support.fixtures import (
    make_nats_server_fixture,
    names_fixture,
    nats_server_fixture,
    private_nats_server_fixture,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

__all__ = [
    "loops_fixture",
    "make_nats_server_fixture",
    "names_fixture",
    "nats_server_fixture",
    "private_nats_server_fixture",
    "table_fixture",
]

Said = "Callable[[str], list[str]]"


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create the tables in the session's temporary AIRFLOW_HOME."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def stage(
    request: pytest.FixtureRequest, names: Names, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """A broker to send through; the real server is shared, so leave it alive."""
    if request.param == "fake":
        built: Stage = FakeStage(names, monkeypatch)
    else:
        built = RealStage(names, monkeypatch, request.getfixturevalue("nats_server"))
    with built:
        yield built


@pytest.fixture
def fake_stage(names: Names, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStage]:
    """For faults that a real server does not commit on demand."""
    with FakeStage(names, monkeypatch) as built:
        yield built


@pytest.fixture
def real_stage(
    names: Names, monkeypatch: pytest.MonkeyPatch, private_nats_server: NatsServer
) -> Iterator[RealStage]:
    """A real server of the test's own, for what only a process can suffer."""
    with RealStage(names, monkeypatch, private_nats_server) as built:
        yield built


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Return what this project has logged that contains a text, from any thread."""
    caplog.set_level(logging.DEBUG)

    def find(text: str, *, level: int = logging.INFO) -> list[str]:
        return [
            record.getMessage()
            for record in list(caplog.records)
            if record.levelno >= level
            and record.name.startswith("nats_executor")
            and text in record.getMessage()
        ]

    return find
