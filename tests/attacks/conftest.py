"""The grounds of the attacks: both modes of users, and a cluster.

Servers are shared, for as long as tests of one kind follow each other; streams are not.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from nats_executor.errors import BrokerUnavailable, TopologyMismatch
from tests.support.realm import KINDS, Realm, open_realm
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class MakeRealm(Protocol):
    """Start servers of the test's own, with streams; they end with the test."""

    def __call__(self, *, config: str = "", jetstream: str = "", **options: Any) -> Realm: ...


def make_streams(realm: Realm, **options: Any) -> None:
    """Run setup, again where a busy cluster misses a server or an answer; that is no attack."""

    def is_made() -> bool:
        try:
            realm.set_up(**options)
        except (BrokerUnavailable, TopologyMismatch):
            if not realm.others:
                raise
            return False
        return True

    block_until(is_made, 60, "the streams")


@pytest.fixture(scope="session", params=KINDS)
def shared_realm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Realm]:
    """One for all tests that let its servers live."""
    with open_realm(tmp_path_factory.mktemp("realm"), request.param) as realm:
        yield realm


@pytest.fixture
def realm(shared_realm: Realm) -> Realm:
    """All users, and the streams as `airflow nats setup` makes them, with nothing in them."""
    shared_realm.clear()
    make_streams(shared_realm)
    return shared_realm


@pytest.fixture(params=KINDS)
def make_realm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeRealm]:
    """For tests that need limits of their own, or hurt a server."""
    with ExitStack() as exits:

        def make(*, config: str = "", jetstream: str = "", **options: Any) -> Realm:
            directory = tmp_path_factory.mktemp("realm")
            made = open_realm(directory, request.param, config=config, jetstream=jetstream)
            realm = exits.enter_context(made)
            make_streams(realm, **options)
            return realm

        yield make
