"""The stages themselves: each test finds its streams empty, whatever the one before did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.user_stage import NAMES, ROOT_INBOX, ROOT_USER

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeUserStage
    from tests.support.user_stage import UserStage

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_its_streams_empty_and_works_with_them(
    user_stage: UserStage, turn: int
) -> None:
    assert count(user_stage) == 0, turn

    user_stage.send("a")
    user_stage.send("b")

    assert count(user_stage) == 2


def test_a_stage_of_ones_own_has_the_limits_that_it_is_given(
    make_user_stage: MakeUserStage,
) -> None:
    user_stage = make_user_stage(config="max_payload: 1234\n", jetstream="  max_memory_store: 5MB")

    for server in user_stage.servers:
        assert server.monitor("/varz")["max_payload"] == 1234
        assert server.monitor("/jsz")["config"]["max_memory"] == 5 * 1024 * 1024
    user_stage.send("a")


def count(user_stage: UserStage) -> int:
    with user_stage.raw(ROOT_USER, user_stage.servers[-1]) as root:
        root.subscribe("_INBOX_root.>")
        info = root.ask(f"$JS.API.STREAM.INFO.{NAMES.tasks_stream}", b"", ROOT_INBOX).answer
    assert info["config"]["num_replicas"] == len(user_stage.servers)
    return int(info["state"]["messages"])
