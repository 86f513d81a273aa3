"""Every operation of NATS that matters, by every user: the server allows what is listed only.

Each one is sent as it is, past the product, and denied means that the server calls it a violation
of permissions.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.nats_server import NatsServer
from tests.support.user_stage import NAMES, QUEUES, ROOT_USER, USERS, UserStage, one_account_config
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

TASKS, RESULTS = NAMES.tasks_stream, NAMES.results_stream
DEAD, WORKERS = NAMES.dead_letters_stream, NAMES.workers_stream
HOLDS = NAMES.holds_stream
LOGS = NAMES.logs_stream
STREAMS = (TASKS, RESULTS, DEAD, WORKERS, HOLDS, LOGS)
API = "$JS.API"
EVERYONE = {user.name for user in USERS}
# Whoever orders from day to day: by commands, and on the page of the API server.
PAGE = {"operator", "api_server"}
PEOPLE = {"admin", "monitor"} | PAGE
READERS = PEOPLE | {"scheduler"}
WORKER = {queue: f"worker_{queue}" for queue in QUEUES}
BOTH = set(WORKER.values())
BANDS = ("", "--b1", "--b2")

Table = dict[str, set[str]]


def of_queue(queue: str) -> Table:
    """What concerns one queue, and who may publish it."""
    mine = WORKER[queue]
    table: Table = {
        f"airflow.results.{queue}.d1": {"scheduler", mine},
        f"airflow.dead.{queue}.d1": {mine},
        f"{API}.DIRECT.GET.{RESULTS}.airflow.results.{queue}.d1": {"scheduler", mine},
        f"{API}.DIRECT.GET.{DEAD}.airflow.dead.{queue}.d1": set(),
        f"$KV.airflow_workers.{queue}.w": {mine},
        f"$KV.airflow_workers.{queue}.w.x": set(),
        f"{API}.DIRECT.GET.{WORKERS}.$KV.airflow_workers.{queue}.w": {mine},
        f"$KV.airflow_holds.worker.{queue}.w": PAGE,
        f"{API}.DIRECT.GET.{HOLDS}.$KV.airflow_holds.worker.{queue}.w": {mine},
        f"{API}.DIRECT.GET.{HOLDS}.$KV.airflow_holds.queue.{queue}": set(),
        f"$O.airflow_logs.C.{queue}.log.part": {"triggerer", mine},
        f"$O.airflow_logs.C.{queue}.log.part.0": {"triggerer", mine},
        f"{API}.DIRECT.GET.{LOGS}.$O.airflow_logs.C.{queue}.log.part.0": set(),
    }
    for lane in (queue + band for band in BANDS):
        table |= {
            f"airflow.tasks.{lane}.d1": {"scheduler"},
            f"{API}.CONSUMER.MSG.NEXT.{TASKS}.{lane}": {mine},
            f"{API}.DIRECT.GET.{TASKS}.airflow.tasks.{lane}.d1": {"scheduler", mine},
            f"{API}.CONSUMER.INFO.{TASKS}.{lane}": READERS,
            f"{API}.CONSUMER.CREATE.{TASKS}.{lane}.airflow.tasks.{lane}.*": {"admin", "scheduler"},
            f"{API}.CONSUMER.DURABLE.CREATE.{TASKS}.{lane}": set(),
            f"{API}.CONSUMER.DELETE.{TASKS}.{lane}": {"admin"},
            f"{API}.CONSUMER.PAUSE.{TASKS}.{lane}": PAGE,
            f"{API}.CONSUMER.RESET.{TASKS}.{lane}": set(),
            f"{API}.CONSUMER.LEADER.STEPDOWN.{TASKS}.{lane}": set(),
            f"$JS.ACK.{TASKS}.{lane}.1.1.1.1.0": {mine},
            f"$JS.ACK.hub.hash.{TASKS}.{lane}.1.1.1.1.0": {mine},
            f"$JS.ACK.hub.hash.{TASKS}.{lane}.1.1.1.1.0.x": {mine},
        }
    return table


def of_stream(stream: str) -> Table:
    informed = READERS | (BOTH if stream in {RESULTS, WORKERS, HOLDS} else set())
    looking = {
        TASKS: {"scheduler"},
        RESULTS: {"scheduler"},
        DEAD: PAGE,
        LOGS: {"api_server"},
        WORKERS: READERS,
        HOLDS: READERS,
    }
    listed = READERS if stream == TASKS else set()
    purging: Table = {TASKS: set(), HOLDS: {"admin"} | PAGE, DEAD: PAGE, WORKERS: PAGE}
    return {
        f"{API}.STREAM.INFO.{stream}": informed,
        f"{API}.DIRECT.GET.{stream}": looking[stream],
        f"{API}.STREAM.MSG.GET.{stream}": set(),
        f"{API}.STREAM.MSG.DELETE.{stream}": {"scheduler"} if stream == TASKS else set(),
        f"{API}.STREAM.CREATE.{stream}": {"admin"},
        f"{API}.STREAM.UPDATE.{stream}": {"admin"},
        f"{API}.STREAM.PURGE.{stream}": purging.get(stream, {"operator"}),
        f"{API}.STREAM.DELETE.{stream}": set(),
        f"{API}.STREAM.SNAPSHOT.{stream}": set(),
        f"{API}.STREAM.RESTORE.{stream}": set(),
        f"{API}.STREAM.LEADER.STEPDOWN.{stream}": set(),
        f"{API}.STREAM.PEER.REMOVE.{stream}": set(),
        f"{API}.CONSUMER.LIST.{stream}": listed,
        f"{API}.CONSUMER.NAMES.{stream}": set(),
        f"{API}.CONSUMER.CREATE.{stream}": {"scheduler"} if stream == RESULTS else set(),
        f"{API}.CONSUMER.CREATE.{stream}.x": {"admin", "scheduler"} if stream == TASKS else set(),
        f"{API}.CONSUMER.MSG.NEXT.{stream}.x": {"scheduler"} if stream == RESULTS else set(),
        f"{API}.CONSUMER.INFO.{stream}.x": listed,
        f"$JS.ACK.{stream}.x.1.1.1.1.0": set(),
    }


def of_anyone() -> Table:
    """What concerns no stream."""
    return {
        # Of the release before: no release writes them any more.
        "$KV.airflow_workers.w": set(),
        f"{API}.DIRECT.GET.{WORKERS}.$KV.airflow_workers.w": BOTH,
        "$O.airflow_logs.M.bmFtZQ==": {"triggerer"} | BOTH,
        "$O.airflow_logs.C.log": {"triggerer"},
        "$O.airflow_logs.x": set(),
        f"{API}.DIRECT.GET.{LOGS}.$O.airflow_logs.M.bmFtZQ==": set(),
        "$KV.airflow_holds.queue.a": PAGE,
        "$KV.airflow_holds.history.a": PAGE | {"scheduler"},
        "$KV.airflow_holds.history.a.b": PAGE,
        "airflow.ctl.w.ping": PAGE | {"scheduler"},
        "airflow.peers.w": BOTH,
        "airflow.ctl.w.stop": {"scheduler"},
        "airflow.ctl.w.set-concurrency": {"admin"} | PAGE,
        "airflow.ctl.w.add-queue": {"admin"} | PAGE,
        "airflow.ctl.w.remove-queue": {"admin"} | PAGE,
        "airflow.ctl.w.drain": {"admin"} | PAGE,
        "airflow.ctl.w.undrain": {"admin"} | PAGE,
        "airflow.ctl.w.shut-down": {"admin"} | PAGE,
        "airflow.ctl.w.describe": PAGE,
        "airflow.ctl.w.log": {"api_server"},
        "airflow.ctl.w.unheard-of": set(),
        "airflow.schedulers.7.state": {"admin", "operator", "api_server"},
        "airflow.schedulers.7.probe": {"admin", "operator"},
        "airflow.schedulers.7.unheard-of": set(),
        "airflow.unheard-of": set(),
        "unheard-of": set(),
        f"{API}.INFO": PEOPLE,
        f"{API}.STREAM.LIST": set(),
        f"{API}.STREAM.NAMES": set(),
        f"{API}.STREAM.CREATE.OTHER": set(),
        f"{API}.STREAM.INFO.OTHER": set(),
        f"{API}.META.LEADER.STEPDOWN": set(),
        f"{API}.ACCOUNT.PURGE.AIRFLOW": set(),
        "$SYS.REQ.USER.INFO": set(),
        "$SYS.REQ.SERVER.PING": set(),
        "$SRV.PING": set(),
        # One form of an ack's subject that reads as the other form of another queue's.
        f"$JS.ACK.{TASKS}.b.{TASKS}.a.1.1.1": {"worker_b"},
        f"$JS.ACK.{TASKS}.a.{TASKS}.b.1.1.1": {"worker_a"},
        f"$JS.ACK.{TASKS}.b.{TASKS}.a.1.1.1.1.0": {"worker_a"},
        f"$JS.ACK.{TASKS}.a.{TASKS}.b.1.1.1.1.0": {"worker_b"},
        f"$JS.ACK.hub.hash.{TASKS}.a.1.1.1": set(),
        **{f"{user.inbox}.x": set() for user in USERS},
    }


PUBLISHED: Table = {
    **of_queue("a"),
    **of_queue("b"),
    **{subject: who for stream in STREAMS for subject, who in of_stream(stream).items()},
    **of_anyone(),
}
# Subjects on which secrets or orders of other users arrive.
DENIED_TO_ALL = (
    "_INBOX.>", "*.>", "*.*", ">", "*", "_INBOX_*.>", "airflow.>", "airflow.*.*.*",
    "airflow.tasks.>", "airflow.tasks.a.*", "airflow.tasks.b.*", "airflow.results.>",
    "airflow.results.a.*", "airflow.results.b.d1", "airflow.dead.>", "airflow.ctl.>",
    "$O.>", "$O.airflow_logs.C.a.>", "$O.airflow_logs.M.>",
    "$KV.airflow_workers.>", "$KV.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>",
    f"{API}.CONSUMER.MSG.NEXT.{TASKS}.b", "$SYS.>", "$SRV.PING", "$G.>",
)  # fmt: skip
SUBSCRIBED: Table = {
    **{f"{user.inbox}.>": {user.name} for user in USERS},
    **{f"{user.inbox}.x.pull.1": {user.name} for user in USERS},
    **{f"airflow.ctl.w.{verb}": BOTH for verb in ("ping", "stop", "add-queue", "log")},
    "airflow.peers.w": BOTH,
    "airflow.schedulers.7.state": {"scheduler"},
    **{subject: set() for subject in DENIED_TO_ALL},
}


@pytest.fixture(scope="module")
def user_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserStage]:
    """All users, the streams, and one task in each queue; no test may change them."""
    with filled(tmp_path_factory.mktemp("nats")) as user_stage:
        yield user_stage


@pytest.fixture(scope="module")
def changing_user_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserStage]:
    """The same with a server of its own, for what is allowed."""
    with filled(tmp_path_factory.mktemp("nats")) as user_stage:
        yield user_stage


@contextmanager
def filled(directory: Path) -> Iterator[UserStage]:
    server = NatsServer(directory, config=one_account_config())
    try:
        user_stage = UserStage(server.start())
        user_stage.set_up()
        for queue in QUEUES:
            user_stage.send(queue)
        # A consumer counts a task only after the task's ack.
        block_until(
            lambda: pending(user_stage) == len(QUEUES), 10, "the consumers to count the tasks"
        )
        yield user_stage
    finally:
        server.kill()


def pending(user_stage: UserStage) -> int:
    return sum(count for *_, consumers in state(user_stage) for _, count in consumers)


def state(user_stage: UserStage) -> Any:
    """What must stay as it is."""
    account = user_stage.server.monitor("/jsz?streams=true&consumers=true&config=true")
    (detail,) = account["account_details"]
    return [
        (
            stream["name"], stream["config"], stream["state"]["messages"],
            [(c["name"], c["num_pending"]) for c in stream.get("consumer_detail") or []],
        )
        for stream in sorted(detail["stream_detail"], key=lambda found: str(found["name"]))
    ]  # fmt: skip


def is_violation(word: str, kind: str, subject: str) -> bool:
    return word.startswith(f"'Permissions Violation for {kind}") and f'"{subject}"' in word


@pytest.mark.parametrize("user", [user.name for user in USERS])
def test_a_user_may_publish_what_is_listed(changing_user_stage: UserStage, user: str) -> None:
    """An empty request changes nothing, so those that are allowed are harmless, too."""
    with changing_user_stage.raw(user) as client:
        words = {s: client.publish(s, b"{") for s, who in PUBLISHED.items() if user in who}
    assert {subject: word for subject, word in words.items() if word} == {}


@pytest.mark.parametrize("user", [user.name for user in USERS])
def test_a_user_may_publish_nothing_else(user_stage: UserStage, user: str) -> None:
    before = state(user_stage)
    with user_stage.raw(user) as client:
        words = {subject: client.publish(subject, b"{") for subject in forbidden(PUBLISHED, user)}
        unlisted = {s: w for s, w in words.items() if not is_violation(w, "Publish", s)}
    assert unlisted == {}
    assert state(user_stage) == before


def forbidden(table: Table, user: str) -> list[str]:
    return [subject for subject, who in table.items() if user not in who]


@pytest.mark.parametrize("user", [user.name for user in USERS])
def test_a_user_may_subscribe_to_what_is_listed_and_nothing_else(
    user_stage: UserStage, user: str
) -> None:
    with user_stage.raw(user) as client:
        words = {subject: client.subscribe(subject) for subject in SUBSCRIBED}

    allowed = {subject for subject, word in words.items() if not word}
    assert allowed == {subject for subject, who in SUBSCRIBED.items() if user in who}
    assert all(is_violation(w, "Subscription", s) for s, w in words.items() if w)


def test_no_line_of_the_tables_is_forbidden_to_all(changing_user_stage: UserStage) -> None:
    """The positive control: a user without limits may do what they say."""
    with changing_user_stage.raw(ROOT_USER) as client:
        # No JSON, so those that would harm do nothing here.
        words = [client.publish(subject, b"{") for subject in PUBLISHED]
    with changing_user_stage.raw(ROOT_USER) as client:
        words += [client.subscribe(subject) for subject in SUBSCRIBED]
    assert {*words} == {""}
    assert {name for who in PUBLISHED.values() for name in who} == EVERYONE
