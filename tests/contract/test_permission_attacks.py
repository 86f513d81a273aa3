"""Attacks of a worker of queue `a` on queue `b`, with requests that would work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.user_stage import (
    NAMES,
    QUEUES,
    ROOT_USER,
    UserStage,
    accounts_config,
    one_account_config,
    secret,
)
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer
    from tests.support.raw_nats import RawClient

pytestmark = pytest.mark.integration

TASKS, RESULTS = NAMES.tasks_stream, NAMES.results_stream
API = "$JS.API"
INBOX = "_INBOX_worker_a.x"
VERBS = (b"+ACK", b"-NAK", b"+TERM", b"+WPI", b"+NXT", b"")
PULL = b'{"batch": 1, "no_wait": true}'
OF_C = {"ack_policy": "explicit", "filter_subject": "airflow.tasks.c.*"}


@pytest.fixture(params=["one account", "accounts"])
def user_stage(request: pytest.FixtureRequest, make_nats_server: MakeNatsServer) -> UserStage:
    """All users, in one account or with one for each worker user; a task in each queue."""
    has_accounts = request.param == "accounts"
    config = accounts_config() if has_accounts else one_account_config()
    return filled(make_nats_server(config=config), has_accounts=has_accounts)


def filled(server: NatsServer, *, has_accounts: bool = False) -> UserStage:
    user_stage = UserStage(server, has_accounts)
    user_stage.set_up()
    for queue in QUEUES:
        user_stage.send(queue)
    return user_stage


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def consumer(stream: str, **config: str) -> bytes:
    return encoded({"stream_name": stream, "config": config})


# In an order in which the user without limits can carry them all out.
OPERATIONS: tuple[tuple[str, bytes], ...] = (
    (f"{API}.INFO", b""),
    (f"{API}.STREAM.LIST", b""),
    (f"{API}.STREAM.NAMES", b""),
    (f"{API}.STREAM.INFO.{TASKS}", encoded({"subjects_filter": ">"})),
    (f"{API}.STREAM.MSG.GET.{TASKS}", encoded({"last_by_subj": "airflow.tasks.b.d1"})),
    (f"{API}.CONSUMER.LIST.{TASKS}", b""),
    (f"{API}.CONSUMER.NAMES.{TASKS}", b""),
    (f"{API}.CONSUMER.INFO.{TASKS}.b", b""),
    (f"{API}.STREAM.CREATE.OTHER", encoded({"name": "OTHER", "sources": [{"name": RESULTS}]})),
    (f"{API}.CONSUMER.CREATE.{TASKS}.c", consumer(TASKS, name="c", **OF_C)),
    (f"{API}.CONSUMER.DURABLE.CREATE.{TASKS}.c", consumer(TASKS, durable_name="c", **OF_C)),
    (f"{API}.CONSUMER.PAUSE.{TASKS}.b", encoded({"pause_until": "2099-01-01T00:00:00Z"})),
    (f"{API}.CONSUMER.CREATE.{RESULTS}", consumer(RESULTS)),
    (f"{API}.STREAM.MSG.DELETE.{TASKS}", encoded({"seq": 2})),
    (f"{API}.STREAM.PURGE.{TASKS}", b""),
    (f"{API}.CONSUMER.DELETE.{TASKS}.b", b""),
    (f"{API}.STREAM.DELETE.{TASKS}", b""),
)  # fmt: skip


def test_what_a_worker_is_denied_can_be_done_by_one_who_may(user_stage: UserStage) -> None:
    with user_stage.raw("worker_a") as worker, user_stage.raw(ROOT_USER) as root:
        for subject, body in OPERATIONS:
            word = worker.publish(subject, body, INBOX)
            assert word == f"'Permissions Violation for Publish to \"{subject}\"'"
        assert root.subscribe("_INBOX_root.>") == ""
        for subject, body in OPERATIONS:
            answer = root.ask(subject, body, "_INBOX_root.x").answer
            assert "error" not in answer, (subject, answer)


def pulled(client: RawClient, queue: str, api: str = API) -> tuple[bytes, str]:
    """Take a task of a queue and return it with its ack's subject."""
    inbox = f"_INBOX_{client.user}"
    client.subscribe(f"{inbox}.>")
    message = client.ask(f"{api}.CONSUMER.MSG.NEXT.{TASKS}.{queue}", PULL, f"{inbox}.x")
    assert message.reply.startswith("$JS.ACK."), message
    return message.body, message.reply


def pending(client: RawClient, queue: str) -> int:
    info = client.ask(f"{API}.CONSUMER.INFO.{TASKS}.{queue}", b"", "_INBOX_root.x").answer
    return int(info["num_ack_pending"])


def test_a_delivery_is_acked_by_its_own_worker_only(user_stage: UserStage) -> None:
    with (
        user_stage.raw("worker_a") as a,
        user_stage.raw("worker_b") as b,
        user_stage.raw(ROOT_USER) as root,
    ):
        root.subscribe("_INBOX_root.>")
        body, ack = pulled(b, "b", user_stage.api("worker_b"))
        assert body == secret("b")
        for verb in VERBS:
            assert "Permissions Violation" in a.publish(ack, verb, INBOX)
        assert pending(root, "b") == 1

        assert b.publish(ack, b"+ACK", "_INBOX_worker_b.x") == ""
        b.next()
        assert pending(root, "b") == 0


@pytest.mark.parametrize(
    "question",
    [
        {"last_by_subj": "airflow.tasks.b.d1"},
        {"multi_last": ["airflow.tasks.b.*"]},
        {"next_by_subj": "airflow.tasks.b.*"},
        {"next_by_subj": "airflow.tasks.b.*", "seq": 1, "batch": 10},
        {"seq": 2},
        {"start_time": "2020-01-01T00:00:00Z"},
        {"batch": 10},
    ],
    ids=json.dumps,
)
def test_a_look_at_ones_own_subject_shows_no_other_whatever_it_asks(
    user_stage: UserStage, question: dict[str, Any]
) -> None:
    """The subject is what is allowed; a request's body could name another one."""
    api = user_stage.api("worker_a")
    subjects = [f"{api}.DIRECT.GET.{TASKS}.airflow.tasks.a.{key}" for key in ("d1", "*", ">")]
    with user_stage.raw("worker_a") as worker:
        worker.subscribe("_INBOX_worker_a.>")
        assert worker.ask(subjects[0], b"", INBOX).body == secret("a")
        for subject in subjects:
            worker.publish(subject, encoded(question), INBOX)
        # The server answers in order: this is the last one.
        last = worker.ask(f"{api}.STREAM.INFO.{RESULTS}", b"", INBOX)
        seen = [*worker.arrived, last]

    assert not [message for message in seen if secret("b") in message.body]


SEVEN = f"""
accounts {{{{ AIRFLOW {{{{ jetstream: enabled, users: [
  {{{{ user: root, password: secret }}}},
  {{{{ user: seven, password: secret, permissions: {{{{
    publish: ["$JS.ACK.*.*.{TASKS}.7.{{rest}}"], subscribe: ["_INBOX_seven.>"] }}}} }}}}
] }}}} }}}}
"""


@pytest.mark.parametrize("rest", [">", "*.*.*.*.>"], ids=["open", "as granted"])
def test_why_the_grant_of_an_ack_counts_tokens(make_nats_server: MakeNatsServer, rest: str) -> None:
    """The newer form of queue 7 reads as the older form of queue b: ask for its next message."""
    user_stage = UserStage(make_nats_server(config=SEVEN.format(rest=rest)))
    user_stage.set_up(ROOT_USER)
    with user_stage.raw(ROOT_USER) as root, user_stage.raw("seven") as seven:
        root.subscribe("_INBOX_root.>")
        for number in range(1, 9):
            root.ask(NAMES.task("b", f"d{number}"), secret("b"), "_INBOX_root.x")
        for _ in range(7):
            pulled(root, "b")
        seven.subscribe("_INBOX_seven.>")
        word = seven.publish(f"$JS.ACK.{TASKS}.b.{TASKS}.7.7.1.1", b"+NXT", "_INBOX_seven.x")
        if rest == ">":
            assert word == ""
            assert seven.next().body == secret("b")
        else:
            assert "Permissions Violation" in word


@pytest.mark.parametrize("inbox", ["", "_INBOX"], ids=["of its own", "shared"])
def test_why_each_user_has_an_inbox_prefix_of_its_own(
    make_nats_server: MakeNatsServer, inbox: str
) -> None:
    """With a shared one, a worker of queue a reads the tasks of queue b."""
    user_stage = filled_with(make_nats_server, inbox)
    of_b = f"{inbox or '_INBOX_worker_b'}.x"
    with user_stage.raw("worker_a") as a, user_stage.raw("worker_b") as b:
        words = [a.subscribe(subject) for subject in ("_INBOX.>", "_INBOX_worker_b.>")]
        b.subscribe(of_b)
        task = b.ask(f"{API}.CONSUMER.MSG.NEXT.{TASKS}.b", PULL, of_b)
        assert task.body == secret("b")
        a.settle()
        seen = [message.body for message in a.arrived]

    assert [bool(word) for word in words] == ([False, True] if inbox else [True, True])
    assert seen == ([secret("b")] if inbox else [])


def filled_with(make_nats_server: MakeNatsServer, inbox: str) -> UserStage:
    user_stage = UserStage(make_nats_server(config=one_account_config(inbox=inbox)))
    user_stage.set_up(ROOT_USER)
    with user_stage.raw(ROOT_USER) as root:
        root.subscribe("_INBOX_root.>")
        root.ask(NAMES.task("b", "d1"), secret("b"), "_INBOX_root.x")
    return user_stage


# What a worker of queue a has JetStream say to whom, as it has no right to say it itself.
SPY = {"deliver_subject": INBOX, "ack_policy": "none"}
ANSWERS: dict[str, tuple[str, bytes]] = {
    "a workload": ("airflow.tasks.b.forged", b"forged"),
    "a report": ("airflow.results.b.forged", b"forged"),
    "a stop": ("airflow.ctl.b1.stop", b"d1"),
    "a purge": (f"{API}.STREAM.PURGE.{TASKS}", b""),
    "a stream": (f"{API}.STREAM.CREATE.OTHER", b'{"name": "OTHER"}'),
    "a reader": (f"{API}.CONSUMER.CREATE.{RESULTS}", consumer(RESULTS, **SPY)),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_goes_wherever_the_request_says_but_never_leaves_an_account(
    user_stage: UserStage, what: str
) -> None:
    """JetStream sends answers with rights of its own, and the asker names their subject.

    No permission holds that back, on any server so far. An account does.
    """
    subject, body = ANSWERS[what]
    look = f"{user_stage.api('worker_a')}.DIRECT.GET.{RESULTS}.airflow.results.a.d1"
    with (
        user_stage.raw("worker_a") as worker,
        user_stage.raw(ROOT_USER) as root,
        user_stage.raw(ROOT_USER) as listener,
    ):
        worker.subscribe("_INBOX_worker_a.>")
        root.subscribe("_INBOX_root.>")
        listener.subscribe("airflow.ctl.>")
        assert "error" not in worker.ask("airflow.results.a.d1", body, INBOX).answer
        assert not is_harmed(root, listener)

        assert worker.publish(look, b"", subject) == ""

        if user_stage.has_accounts:
            # Answers come in order, so that one has gone where it could.
            assert worker.ask(look, b"", INBOX).body == body
            assert not is_harmed(root, listener)
        else:
            block_until(lambda: is_harmed(root, listener), 5, what)


def is_harmed(root: RawClient, listener: RawClient) -> bool:
    """Whether anything is not as it was before, or a worker of queue b is told something.

    The listener asks nothing: an order would arrive there in place of an answer.
    """
    listener.settle()
    return bool(listener.arrived) or state(root) != {
        "AIRFLOW_TASKS": {"airflow.tasks.a.d1", "airflow.tasks.b.d1"},
        "AIRFLOW_RESULTS": {"airflow.results.a.d1"},
        "AIRFLOW_DEAD_LETTERS": set(),
        "KV_airflow_workers": set(),
        "KV_airflow_holds": set(),
        "OBJ_airflow_logs": set(),
        "readers": set(),
    }


def state(root: RawClient) -> dict[str, set[str]]:
    """Return what each stream holds, and who reads the results."""
    inbox = "_INBOX_root.x"
    streams = root.ask(f"{API}.STREAM.NAMES", b"", inbox).answer["streams"]
    readers = root.ask(f"{API}.CONSUMER.NAMES.{RESULTS}", b"", inbox).answer["consumers"]
    everything = encoded({"subjects_filter": ">"})
    infos = {s: root.ask(f"{API}.STREAM.INFO.{s}", everything, inbox).answer for s in streams}
    held = {stream: set(info["state"].get("subjects") or {}) for stream, info in infos.items()}
    return held | {"readers": set(readers or [])}


def test_an_answer_never_acks(user_stage: UserStage) -> None:
    """An ack's subject keeps its name from account to account, so that no client may ask for it."""
    with (
        user_stage.raw("worker_a") as a,
        user_stage.raw("worker_b") as b,
        user_stage.raw(ROOT_USER) as root,
    ):
        root.subscribe("_INBOX_root.>")
        a.subscribe("_INBOX_worker_a.>")
        _, ack = pulled(b, "b", user_stage.api("worker_b"))
        a.ask("airflow.results.a.d1", b"+ACK", INBOX)
        look = f"{user_stage.api('worker_a')}.DIRECT.GET.{RESULTS}.airflow.results.a.d1"

        word = a.publish(look, b"", ack)

        assert word == f"'Permissions Violation for Publish with Reply of \"{ack}\"'"
        assert pending(root, "b") == 1
