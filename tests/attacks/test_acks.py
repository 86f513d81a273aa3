"""A worker acks what is another queue's: its grant names its consumer, the rest is numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.releases import danger
from tests.support.user_stage import NAMES, ROOT_INBOX, ROOT_USER, secret
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from tests.support.raw_nats import Message, RawClient
    from tests.support.user_stage import UserStage

pytestmark = pytest.mark.integration

TASKS = NAMES.tasks_stream
# Whatever an ack may say, and whether it is the message's end.
VERBS = {b"+ACK": True, b"": True, b"+TERM": True, b"+NXT": True, b"-NAK": False, b"+WPI": False}
KEYS = [f"d{number}" for number in range(len(VERBS))]
OF_A = "$JS.ACK.{stream}.a.1.{sequence}.{number}.1700000000000000000.0"


def version(user_stage: UserStage) -> str:
    return str(user_stage.server.monitor("/varz")["version"])


def pull(user_stage: UserStage, queue: str, batch: int) -> list[Message]:
    """Take tasks of a queue; they stay unacked."""
    user, inbox = f"worker_{queue}", f"_INBOX_worker_{queue}"
    with user_stage.raw(user) as worker:
        worker.subscribe(f"{inbox}.>")
        subject = f"{user_stage.api(user)}.CONSUMER.MSG.NEXT.{TASKS}.{queue}"
        asked = json.dumps({"batch": batch, "expires": 10_000_000_000}).encode()
        return [
            worker.ask(subject, asked, f"{inbox}.x"),
            *(worker.next() for _ in range(batch - 1)),
        ]


def sequences(root: RawClient, queue: str) -> dict[str, int]:
    """Return where the tasks of a queue are."""
    found = {}
    for key in KEYS:
        asked = json.dumps({"last_by_subj": NAMES.task(queue, key)}).encode()
        answer = root.ask(f"$JS.API.STREAM.MSG.GET.{TASKS}", asked, ROOT_INBOX).answer
        if message := answer.get("message"):
            found[key] = int(message["seq"])
    return found


def attack(user_stage: UserStage, queue: str, root: RawClient) -> set[str]:
    """Ack another queue's tasks as worker a, each in its own way; return those that are gone."""
    for key in KEYS:
        user_stage.send(queue, key)
        user_stage.send("a", key)
    root.subscribe("_INBOX_root.>")
    before = sequences(root, queue)
    assert len(before) == len(KEYS)
    of_a = pull(user_stage, "a", len(KEYS))
    with user_stage.raw("worker_a") as worker:
        worker.subscribe("_INBOX_worker_a.>")
        for number, (verb, sequence) in enumerate(zip(VERBS, before.values(), strict=True), 1):
            forged = OF_A.format(stream=TASKS, sequence=sequence, number=number)
            assert worker.publish(forged, verb, "_INBOX_worker_a.y") == ""
        # A consumer's acks are handled in order: when this one has been, the others were.
        assert worker.publish(of_a[-1].reply, b"+ACK", "_INBOX_worker_a.y") == ""
        block_until(lambda: KEYS[-1] not in sequences(root, "a"), 10, "the last ack")
    return before.keys() - sequences(root, queue).keys()


@pytest.mark.parametrize("is_running", [False, True], ids=["waiting", "running"])
def test_an_ack_of_another_queues_task_does_what_our_judgement_of_the_release_says(
    user_stage: UserStage, is_running: bool
) -> None:
    """On a release that we call unsafe it removes the task; on any other it does nothing at all."""
    is_unsafe = bool(danger(version(user_stage)))
    if is_running:
        user_stage.send("b", "earlier")
        [earlier] = pull(user_stage, "b", 1)
    with user_stage.raw(ROOT_USER) as root:
        gone = attack(user_stage, "b", root)

    if is_unsafe:
        assert gone == {key for key, ends in zip(KEYS, VERBS.values(), strict=True) if ends}
        return
    assert gone == set()
    # They are still worker b's to run, each once.
    assert [task.body for task in pull(user_stage, "b", len(KEYS))] == [secret("b")] * len(KEYS)
    if is_running:
        with user_stage.raw("worker_b") as worker:
            worker.subscribe("_INBOX_worker_b.>")
            assert worker.ask(earlier.reply, b"+ACK", "_INBOX_worker_b.y").body == b""


def test_a_task_of_a_queue_without_a_consumer_is_anybodys_to_remove_on_every_release(
    user_stage: UserStage,
) -> None:
    """No consumer wants it. The executor makes a queue's consumers before it sends."""
    with user_stage.raw(ROOT_USER) as root:
        gone = attack(user_stage, "c", root)

    assert gone == {key for key, ends in zip(KEYS, VERBS.values(), strict=True) if ends}
