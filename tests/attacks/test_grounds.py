"""The grounds themselves: each test finds its streams empty, whatever the one before did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.realm import NAMES, ROOT_INBOX, ROOT_USER

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeRealm
    from tests.support.realm import Realm

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_its_streams_empty_and_works_with_them(realm: Realm, turn: int) -> None:
    assert count(realm) == 0, turn

    realm.send("a")
    realm.send("b")

    assert count(realm) == 2


def test_a_realm_of_ones_own_has_the_limits_that_it_is_given(make_realm: MakeRealm) -> None:
    realm = make_realm(config="max_payload: 1234\n", jetstream="  max_memory_store: 5MB")

    for server in realm.servers:
        assert server.monitor("/varz")["max_payload"] == 1234
        assert server.monitor("/jsz")["config"]["max_memory"] == 5 * 1024 * 1024
    realm.send("a")


def count(realm: Realm) -> int:
    with realm.raw(ROOT_USER, realm.servers[-1]) as root:
        root.subscribe("_INBOX_root.>")
        info = root.ask(f"$JS.API.STREAM.INFO.{NAMES.tasks_stream}", b"", ROOT_INBOX).answer
    assert info["config"]["num_replicas"] == len(realm.servers)
    return int(info["state"]["messages"])
