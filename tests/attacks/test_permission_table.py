"""The property of the users: what a server allows is what `docs/reference/permissions.md` says.

A thousand and more subjects are made of the names, not of the grants: every stream, bucket, kind of
subject, verb of JetStream's API and of control, both forms of acks, inboxes, with and without
wildcards. Every user tries all of them.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from nats_executor.access.accounts import DOMAIN, HUB
from nats_executor.access.permissions import Role, as_config
from nats_executor.wire.names import SchedulerVerb, Verb
from tests.support.raw_nats import RawClient
from tests.support.user_stage import NAMES, PASSWORD, QUEUES, ROOT_USER, USERS, grants
from tests.tools.document_permissions import LANES, documented, is_match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.access.permissions import Permissions
    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer
    from tests.support.user_stage import User, UserStage

pytestmark = pytest.mark.integration

STREAMS = (NAMES.tasks_stream, NAMES.results_stream, NAMES.dead_letters_stream,
           NAMES.workers_stream, NAMES.holds_stream, NAMES.logs_stream, "OTHER")  # fmt: skip
# Of queues that a worker serves, and of one that no worker serves.
EACH = (*QUEUES, LANES[0].queue, "nobodys")
BANDS = ("", "--b1", "--b2", "--b9")
APIS = ("$JS.API", f"$JS.{DOMAIN}.API", f"$JS.{HUB}.API")
OF_STREAMS = ("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT",
              "RESTORE", "LEADER.STEPDOWN", "PEER.REMOVE")  # fmt: skip
OF_CONSUMERS = ("INFO", "CREATE", "DURABLE.CREATE", "DELETE", "PAUSE", "RESET", "UNPIN",
                "LEADER.STEPDOWN", "MSG.NEXT")  # fmt: skip
OF_ALL = ("INFO", "STREAM.LIST", "STREAM.NAMES", "META.LEADER.STEPDOWN", "ACCOUNT.PURGE.AIRFLOW",
          "SERVER.REMOVE", "ACCOUNT.STREAM.MOVE.AIRFLOW.AIRFLOW_TASKS")  # fmt: skip
VERBS = ("unheard-of", *Verb)
# Where workers are asked, and schedulers.
ASKED = NAMES.control("w", Verb.PING), NAMES.scheduler("7", SchedulerVerb.STATE)


def of_queue(queue: str) -> Iterator[str]:
    yield from (f"airflow.results.{queue}.d1", f"airflow.dead.{queue}.d1")
    yield from (f"airflow.results.{queue}", f"airflow.results.{queue}.d1.x")
    chunk = f"$O.{NAMES.logs_bucket}.C.{queue}.log.part"
    yield from (chunk, f"{chunk}.0", f"$KV.{NAMES.workers_bucket}.{queue}.w")
    yield from (
        NAMES.queue_hold(queue), NAMES.worker_hold(queue, "w"), NAMES.queue_history(queue)
    )  # fmt: skip
    for lane in (queue + band for band in BANDS):
        yield from (f"airflow.tasks.{lane}.d1", f"airflow.tasks.{lane}.d1.x")
        for forms in ("$JS.ACK", "$JS.ACK.hub.hash"):
            for count in range(3, 8):
                yield f"{forms}.{NAMES.tasks_stream}.{lane}{'.1' * count}"
    # One form of an ack's subject that reads as the other form of another queue's.
    for other in EACH:
        yield f"$JS.ACK.{NAMES.tasks_stream}.{other}.{NAMES.tasks_stream}.{queue}.1.1.1"
        yield f"$JS.ACK.{NAMES.tasks_stream}.{other}.{NAMES.tasks_stream}.{queue}.1.1.1.1.0"


def of_api(api: str) -> Iterator[str]:
    yield from (f"{api}.{verb}" for verb in OF_ALL)
    for stream in STREAMS:
        yield from (f"{api}.STREAM.{verb}.{stream}" for verb in OF_STREAMS)
        yield from (f"{api}.CONSUMER.{verb}.{stream}" for verb in ("LIST", "NAMES", "CREATE"))
        yield f"{api}.DIRECT.GET.{stream}"
    for verb, lane in itertools.product(OF_CONSUMERS, lanes()):
        yield f"{api}.CONSUMER.{verb}.{NAMES.tasks_stream}.{lane}"
        yield f"{api}.CONSUMER.{verb}.{NAMES.tasks_stream}.{lane}.airflow.tasks.{lane}.*"
    for verb in OF_CONSUMERS:
        yield f"{api}.CONSUMER.{verb}.{NAMES.results_stream}.x"
    for queue in EACH:
        yield f"{api}.DIRECT.GET.{NAMES.results_stream}.airflow.results.{queue}.d1"
        yield f"{api}.DIRECT.GET.{NAMES.dead_letters_stream}.airflow.dead.{queue}.d1"
        yield f"{api}.DIRECT.GET.{NAMES.logs_stream}.$O.airflow_logs.C.{queue}.log.part.0"
        keys = (
            NAMES.queue_hold(queue), NAMES.worker_hold(queue, "w"), NAMES.queue_history(queue)
        )  # fmt: skip
        for key in keys:
            yield f"{api}.DIRECT.GET.{NAMES.holds_stream}.{key}"
            yield f"{api}.{key}"
    for lane in lanes():
        yield f"{api}.DIRECT.GET.{NAMES.tasks_stream}.airflow.tasks.{lane}.d1"
    for presence in (*(NAMES.presence(queue, "w") for queue in EACH), NAMES.older_presence("w")):
        yield f"{api}.DIRECT.GET.{NAMES.workers_stream}.{presence}"
        yield f"{api}.{presence}"


def lanes() -> list[str]:
    return [queue + band for queue in EACH for band in BANDS]


def of_nobody() -> Iterator[str]:
    yield from (f"{NAMES.prefix}.ctl.w.{verb}" for verb in VERBS)
    yield from (f"{NAMES.prefix}.schedulers.7.{verb}" for verb in ("unheard-of", *SchedulerVerb))
    yield from (
        NAMES.peer("w"),
        NAMES.older_presence("w"),
        f"{NAMES.log_name('x')}",
        "$O.airflow_logs.x",
    )
    yield from ("unheard-of", "airflow.unheard-of", "$SRV.PING", "$SYS.REQ.SERVER.PING")
    yield from ("$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.AIRFLOW.INFO", "_INBOX.x", "$G.x")
    for inbox in (*(user.inbox for user in USERS), "_INBOX_site", "_INBOX_api-server"):
        yield from (f"{inbox}.x", f"{inbox}.x.y", f"{inbox}.x.y.z", f"{inbox}x.y")


PUBLISHED = list(
    dict.fromkeys(
        itertools.chain(
            *(of_queue(queue) for queue in EACH), *(of_api(api) for api in APIS), of_nobody()
        )
    )
)


def widened(subject: str) -> Iterator[str]:
    """Return a subject and every pattern that is next to it: one token or the rest of it open."""
    tokens = subject.split(".")
    yield subject
    for place in range(len(tokens)):
        yield ".".join([*tokens[:place], "*", *tokens[place + 1 :]])
        yield ".".join([*tokens[:place], ">"])


# No user may hear anything of the API, so that its roots are enough.
SUBSCRIBED = list(
    dict.fromkeys(
        pattern
        for subject in itertools.chain(*(of_queue(q) for q in EACH), of_nobody(), APIS, ["$JS.ACK"])
        for pattern in widened(subject)
    )
)


def refused(client: RawClient, verb: str, subjects: list[str]) -> set[str]:
    """Publish to or subscribe to all subjects at once; return those that the server forbids.

    A body that no request of JetStream's API can have, so that what is allowed changes nothing.
    """
    client.errors.clear()
    lines = (
        (f"PUB {subject} 1\r\n{{" for subject in subjects)
        if verb == "Publish"
        else (f"SUB {subject} {number}" for number, subject in enumerate(subjects, 1000))
    )
    client.send("\r\n".join(lines).encode())
    client.settle()
    found = [re.fullmatch(rf"'Permissions Violation for {verb}.* to \"(.*)\"'", error)
             for error in client.errors]  # fmt: skip
    assert all(found), client.errors
    return {match[1] for match in found if match}


def differences(client: RawClient, granted: Permissions) -> dict[str, list[str]]:
    """Return what a server allows and the page does not, and the other way round."""
    found = {}
    for verb, subjects, allowed in (
        ("Subscription", SUBSCRIBED, granted.subscribe),
        ("Publish", PUBLISHED, granted.publish),
    ):
        forbidden = refused(client, verb, subjects)
        said = {s for s in subjects if not any(is_match(pattern, s) for pattern in allowed)}
        found[f"{verb}: forbidden, and the page allows it"] = sorted(forbidden - said)
        found[f"{verb}: allowed, and the page does not say so"] = sorted(said - forbidden)
    return {what: which for what, which in found.items() if which}


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_server_allows_a_user_what_the_page_says(user_stage: UserStage, user: User) -> None:
    name = user.name
    with user_stage.raw(name) as client:
        assert differences(client, user_stage.grants(name)) == {}


def test_the_page_shows_what_the_users_here_are_granted() -> None:
    """It shows one worker, of another queue; grants differ in queues and inboxes alone."""
    for user in USERS:
        shown = documented(user.role, user.inbox)
        granted = grants(user)
        queue = "".join(user.queues)
        published = {re.sub(rf"\b{LANES[0].queue}\b", queue, s) for s in shown.publish}
        assert ({*granted.publish}, granted.subscribe) == (published, shown.subscribe)
        assert granted.answers == shown.answers


def test_a_server_allows_a_site_what_the_page_says(make_nats_server: MakeNatsServer) -> None:
    """Here it is a client; tests/faults/test_leaf_node.py has a real leaf node."""
    granted = documented(Role.SITE)
    server = make_nats_server(
        config=f'NATS_PASSWORD_SITE: "{PASSWORD}"\n'
        f"accounts {{ AIRFLOW {{ jetstream: enabled, users: [{as_config('site', granted)}] }} }}"
    )
    with client_of(server, "site") as client:
        assert differences(client, granted) == {}


def client_of(server: NatsServer, user: str) -> RawClient:
    return RawClient(server, user, PASSWORD)


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_only_who_is_asked_may_answer_and_once_where_the_page_says_so(
    user_stage: UserStage, user: User
) -> None:
    name = user.name
    granted = user_stage.grants(name)
    with user_stage.raw(ROOT_USER) as root, user_stage.raw(name) as client:
        root.subscribe("_INBOX_root.>")
        assert client.publish("_INBOX_root.x", b"unasked")
        is_scheduler = user.role is Role.SCHEDULER
        client.subscribe(NAMES.schedulers() if is_scheduler else NAMES.controls())
        block_for_interest(root, ASKED[is_scheduler], heard=granted.answers)
        if not granted.answers:
            assert client.publish("_INBOX_root.x", b"unasked")
            return
        asked = client.next()
        words = [client.publish(asked.reply, body) for body in (b"first", b"second")]

        assert words[0] == ""
        assert "Permissions Violation for Publish" in words[1]
        assert root.next().body == b"first"


def block_for_interest(root: RawClient, subject: str, *, heard: bool) -> None:
    """Ask until a user hears it, if any may: across servers interest takes a moment."""
    for _ in range(1000):
        root.arrived.clear()
        root.publish(subject, b"asked", "_INBOX_root.x")
        root.settle()
        is_heard = not any("503" in message.headers for message in root.arrived)
        root.arrived.clear()
        if is_heard == heard:
            return
    raise AssertionError(f"heard by nobody: {heard}")


def test_every_line_of_the_page_is_tried(user_stage: UserStage) -> None:
    """Each grant has a subject among those that are tried; and there are a thousand of both."""
    tried = {"publish": PUBLISHED, "subscribe": SUBSCRIBED}
    for user in USERS:
        granted = user_stage.grants(user.name)
        for kind, subjects in tried.items():
            for pattern in getattr(granted, kind):
                assert any(is_match(pattern, subject) for subject in subjects), (user, pattern)
    assert min(len(PUBLISHED), len(SUBSCRIBED)) > 1000
    with user_stage.raw(ROOT_USER) as root:
        assert refused(root, "Subscription", SUBSCRIBED) == set()
        root.errors.clear()
