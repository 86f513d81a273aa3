"""A worker's login fills what it may write: other queues go on, an operator makes room again."""

from __future__ import annotations

import io
from collections import defaultdict
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.logs import store
from nats_executor.operations.purging import Store, carry_out, purge_of
from nats_executor.operations.survey import check_rows, take_survey
from nats_executor.wire.log_parts import CHUNK_BYTES
from nats_executor.wire.messages import State
from nats_executor.wire.sizes import HEADERS_BYTES, REPORT_BYTES
from nats_worker import worker as worker_module
from nats_worker.worker import Worker
from tests.attacks.flood import (
    JETSTREAM,
    MAX_PAYLOAD,
    MIB,
    OPTIONS,
    STORED,
    flood,
    harm_to_b,
    said,
    unbound,
    writable,
)
from tests.contract.test_roles import QUICK, RoleStage
from tests.support.user_stage import NAMES, ROOT_INBOX, ROOT_USER
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from tests.attacks.conftest import MakeUserStage
    from tests.support.user_stage import UserStage

pytestmark = pytest.mark.integration


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def small_user_stage(make_user_stage: MakeUserStage) -> UserStage:
    """A server, or three, that could be filled with what is written in a test."""
    return make_user_stage(config=MAX_PAYLOAD, jetstream=JETSTREAM, **OPTIONS)


def test_queue_b_works_whatever_a_worker_of_queue_a_writes(small_user_stage: UserStage) -> None:
    answers = flood(small_user_stage)

    assert answers[STORED] > answers.total() / 2
    assert not harm_to_b(small_user_stage)
    survey = survey_of(small_user_stage)
    found = {row["check"]: row["details"] for row in survey if row["status"] == "full"}
    full = (NAMES.results_stream, NAMES.dead_letters_stream, NAMES.workers_stream)
    assert set(found) == {f"stream {name}" for name in full}
    assert "queue a has " in found[f"stream {NAMES.dead_letters_stream}"]


def test_without_sizes_the_same_stops_queue_b(small_user_stage: UserStage) -> None:
    """The attack is one: what holds it back are the streams' sizes."""
    unbound(small_user_stage)
    flood(small_user_stage)

    assert harm_to_b(small_user_stage)


def test_an_operator_makes_room_again(small_user_stage: UserStage) -> None:
    flood(small_user_stage)
    for kind in Store:
        purge = partial(carry_out, purge=purge_of(NAMES, kind, None))
        row = small_user_stage.ask("operator", purge)
        assert row["removed_messages"] > 0
        assert row["left_messages"] == row["left_bytes"] == 0
        assert row["freed_bytes"] > 0

    assert not harm_to_b(small_user_stage)
    assert not [row for row in survey_of(small_user_stage) if row["status"] == "full"]


def survey_of(user_stage: UserStage) -> list[dict[str, Any]]:
    async def look(broker: Broker) -> list[dict[str, Any]]:
        settings = user_stage.settings("operator", **OPTIONS)
        return check_rows(await take_survey(broker, settings), settings)

    rows: list[dict[str, Any]] = user_stage.ask("operator", look, **OPTIONS)
    return rows


def test_no_header_empties_the_bucket_of_workers(user_stage: UserStage) -> None:
    headers = b"NATS/1.0\r\nNats-Rollup: all\r\n\r\n"
    with (
        user_stage.raw("worker_a") as a,
        user_stage.raw("worker_b") as b,
        user_stage.raw(ROOT_USER) as root,
    ):
        for client, user in ((a, "worker_a"), (b, "worker_b")):
            client.subscribe(f"_INBOX_{user}.>")
            root.subscribe("_INBOX_root.>")
        (of_b,) = (s for s in writable(user_stage, "worker_b") if "$KV." in s)
        subject = of_b.replace("*", "b1").replace(">", "b1")
        assert said(b.ask(subject, b"here", "_INBOX_worker_b.x")) == STORED
        (of_a,) = (s for s in writable(user_stage, "worker_a") if "$KV." in s)
        a.publish(of_a.replace("*", "a1").replace(">", "a1"), b"", "_INBOX_worker_a.x", headers)

        assert "rollup" in said(a.next())
        info = root.ask(f"$JS.API.STREAM.INFO.{NAMES.workers_stream}", b"", ROOT_INBOX).answer
        assert info["state"]["messages"] == 1


def test_a_log_of_several_whole_chunks_is_stored(user_stage: UserStage) -> None:
    """In a cluster a message from another account is measured with one header more."""
    text = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"end"

    async def put(broker: Broker) -> None:
        with io.BytesIO(text) as file:
            await store.put(broker, NAMES, "a", "whole.log", file)

    async def read(broker: Broker) -> bytes:
        [part] = (await store.find(broker, NAMES, "a", "whole.log")).parts
        found = await store.chunks(broker, NAMES, "a", "whole.log", part, part.numbers)
        return b"".join(chunk or b"" for chunk in found)

    user_stage.ask("worker_a", put)
    assert user_stage.ask("api_server", read) == text


class Flooded(RoleStage):
    """A stage with a stream of reports that a few seconds fill."""

    def settings(self, user: str) -> Settings:
        return self.user_stage.settings(user, **QUICK, max_results_bytes=MIB)


@pytest.fixture
def user_stage_of_few_reports(user_stage: UserStage) -> UserStage:
    user_stage.set_up(max_results_bytes=MIB)
    return user_stage


@pytest.fixture
async def role_stage(
    user_stage_of_few_reports: UserStage, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Flooded]:
    async with AsyncExitStack() as exits:
        role_stage = Flooded(user_stage_of_few_reports, defaultdict(set), exits)
        monkeypatch.setattr(worker_module, "ProcessPool", lambda **_: role_stage.pool.branch())
        monkeypatch.setattr(Worker, "listen_to_signals", lambda _: None)
        await role_stage.begin()
        yield role_stage


@pytest.mark.anyio
async def test_a_task_whose_claim_is_flooded_out_ends_once_and_spends_no_try(
    role_stage: Flooded,
) -> None:
    dispatch = await role_stage.send("d1")
    run = await role_stage.run_of("d1")
    run.begin()
    await role_stage.reported("d1", State.RUNNING)
    attacker, claim = await role_stage.broker("worker_a"), NAMES.result("a", "d1")
    written = 0
    while await role_stage.root.last(NAMES.results_stream, claim) is not None:
        assert written < 100, "a megabyte holds the claim and all that"
        body = bytes(REPORT_BYTES - HEADERS_BYTES)
        await attacker.publish(NAMES.result("a", f"x{written}"), body)
        written += 1

    inspector = role_stage.dispatcher.inspector
    dispatch.state, dispatch.worker, dispatch.worker_name = (
        State.RUNNING,
        role_stage.worker.state.id,
        "w",
    )
    await inspector.watch([dispatch])
    await inspector.sweep([dispatch])
    await inspector.search([dispatch])
    assert [finding for finding in inspector.findings if finding.loss] == []
    await role_stage.finished(dispatch)

    assert [r.state for r in role_stage.reports if r.dispatch_id == "d1" and r.state.is_final] == [
        State.SUCCESS
    ]
    assert {r.attempt for r in role_stage.reports if r.dispatch_id == "d1"} == {1}
    await wait_until(lambda: not role_stage.worker.crew.tasks, 5, "the errand to end")
