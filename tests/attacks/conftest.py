"""Stages of the attacks: both modes of users, and a cluster.

Servers are shared, for as long as tests of one kind follow each other; streams are not.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from nats_executor.errors import BrokerUnavailable, TopologyMismatch
from tests.support.user_stage import KINDS, UserStage, open_user_stage
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class MakeUserStage(Protocol):
    """Start servers of the test's own, with streams; they end with the test."""

    def __call__(self, *, config: str = "", jetstream: str = "", **options: Any) -> UserStage: ...


def make_streams(user_stage: UserStage, **options: Any) -> None:
    """Run setup, again where a busy cluster misses a server or an answer; that is no attack."""

    def is_made() -> bool:
        try:
            user_stage.set_up(**options)
        except (BrokerUnavailable, TopologyMismatch):
            if not user_stage.others:
                raise
            return False
        return True

    block_until(is_made, 60, "the streams")


@pytest.fixture(scope="session", params=KINDS)
def shared_user_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UserStage]:
    """One for all tests that let its servers live."""
    with open_user_stage(tmp_path_factory.mktemp("user_stage"), request.param) as user_stage:
        yield user_stage


@pytest.fixture
def user_stage(shared_user_stage: UserStage) -> UserStage:
    """All users, and the streams as `airflow nats setup` makes them, with nothing in them."""
    shared_user_stage.clear()
    make_streams(shared_user_stage)
    return shared_user_stage


@pytest.fixture(params=KINDS)
def make_user_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeUserStage]:
    """For tests that need limits of their own, or hurt a server."""
    with ExitStack() as exits:

        def make(*, config: str = "", jetstream: str = "", **options: Any) -> UserStage:
            directory = tmp_path_factory.mktemp("user_stage")
            made = open_user_stage(directory, request.param, config=config, jetstream=jetstream)
            user_stage = exits.enter_context(made)
            make_streams(user_stage, **options)
            return user_stage

        yield make
