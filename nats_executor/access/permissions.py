"""Computes what each NATS user may do, as subjects: the least that its part needs.

Pure. `airflow nats auth` prints it, `deploy/nats/` uses it, and tests hold a real server to it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nats_executor.errors import ConfigError
from nats_executor.wire.names import ORDERS, SchedulerVerb, Verb, in_domain, token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.wire.names import Lane, Names

__all__ = ["Permissions", "Role", "as_claims", "as_config", "config_string", "permissions"]

# An answer goes to the asker's inbox, which no permission names; the server allows one for each
# question, for as long as it may take to give it.
RESPONSE_SECONDS = 60
# The inboxes of users that ask workers, as `deploy/nats/make-users` names them.
ASKER_INBOXES = ("_INBOX_admin", "_INBOX_operator", "_INBOX_scheduler", "_INBOX_api-server")
# The public key of a user.
NKEY = re.compile(r"U[A-Z2-7]{55}")
INBOX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# The tokens after the consumer in an ack's subject, as servers write it: of the older form exactly
# these, of the newer one (with domain and account in front) at least so many. Without the numbers,
# one form of a queue's grant would match the other form of another queue's acks, and an ack can
# also ask for a message.
ACK = "*.*.*.*.*"
NEWER_ACK = "*.*.*.*.>"


class Role(StrEnum):
    """The part of a deployment that a user is for."""

    # `airflow nats setup`, `queues delete`; who may change a stream may also have it copied
    ADMIN = "admin"
    OPERATOR = "operator"  # a person's daily commands: `check`, `queues ...`, `dead-letters ...`
    SCHEDULER = "scheduler"
    WORKER = "worker"  # of certain queues
    API_SERVER = "api-server"  # reads logs; shows the page in Airflow's UI, and takes its orders
    TRIGGERER = "triggerer"  # stores the logs of triggers
    MONITOR = "monitor"  # `airflow nats check`, `queues list` and `workers list`
    SITE = "site"  # a leaf node, whose own users are the workers of certain queues


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a user may publish to and subscribe to; everything else is denied.

    Attributes:
        answers: whether it may answer a question that it is asked.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Api:
    """Subjects of JetStream's API, in this account or a domain."""

    names: Names
    domain: str | None

    @property
    def prefix(self) -> str:
        return f"$JS.{self.domain}.API" if self.domain else "$JS.API"

    @property
    def streams(self) -> list[str]:
        names = self.names
        buckets = (names.workers_stream, names.holds_stream, names.logs_stream)
        return [names.tasks_stream, names.results_stream, names.dead_letters_stream, *buckets]

    def info(self, *streams: str) -> list[str]:
        return [f"{self.prefix}.STREAM.INFO.{stream}" for stream in streams]

    def batch(self, *streams: str) -> list[str]:
        """Look up any messages of streams: the request's body says which."""
        return [f"{self.prefix}.DIRECT.GET.{stream}" for stream in streams]

    def message(self, stream: str, subject: str) -> str:
        """Look up the last message of a subject."""
        return f"{self.prefix}.DIRECT.GET.{stream}.{subject}"

    def look_at_consumers(self) -> list[str]:
        stream = self.names.tasks_stream
        return [f"{self.prefix}.CONSUMER.LIST.{stream}", f"{self.prefix}.CONSUMER.INFO.{stream}.*"]

    def announce(self, queue: str) -> str:
        """Write presence records in a queue."""
        return in_domain(self.names.presences(queue), self.domain)

    def hold_queues(self) -> list[str]:
        """Pause and resume consumers, and write down who did so, and who drained workers."""
        return [
            f"{self.prefix}.CONSUMER.PAUSE.{self.names.tasks_stream}.*",
            in_domain(self.names.holds(), self.domain),
            f"{self.prefix}.STREAM.PURGE.{self.names.holds_stream}",
        ]

    def delete_queues(self) -> list[str]:
        """Delete consumers, and what was said about the pause of their queue."""
        return [
            f"{self.prefix}.CONSUMER.DELETE.{self.names.tasks_stream}.*",
            f"{self.prefix}.STREAM.PURGE.{self.names.holds_stream}",
        ]

    def create_consumers(self) -> str:
        return f"{self.prefix}.CONSUMER.CREATE.{self.names.tasks_stream}.>"


def permissions(
    role: Role, names: Names, inbox: str, *, lanes: Sequence[Lane] = (), domain: str | None = None
) -> Permissions:
    """Return what a user needs.

    Args:
        inbox: its inbox prefix; two users with one could read each other's answers.
        lanes: of a worker's queues, all of their bands.
        domain: JetStream domain of the streams, if they are reached through a leaf node.

    Raises:
        ConfigError: the inbox prefix would show more than the user's own answers.
    """
    require_private(inbox, names)
    api = Api(names, domain)
    subscribe = [f"{inbox}.>"]
    match role:
        case Role.ADMIN:
            publish = for_admin(api)
        case Role.OPERATOR:
            publish = for_operator(api)
        case Role.SCHEDULER:
            publish = for_scheduler(api)
            subscribe += [names.schedulers()]
        case Role.WORKER:
            publish = for_worker(api, lanes)
            subscribe += [names.controls(), names.peers()]
        case Role.SITE:
            publish = for_site(api, lanes)
            subscribe += [names.controls(), names.peers()]
        case Role.API_SERVER:
            publish = for_api_server(api)
        case Role.TRIGGERER:
            publish = [names.log_chunks(), names.log_names()]
        case Role.MONITOR:
            publish = for_monitor(api)
    answers = role in {Role.SCHEDULER, Role.WORKER}
    return Permissions(tuple(publish), tuple(subscribe), answers=answers)


def require_private(inbox: str, names: Names) -> None:
    if not INBOX.fullmatch(inbox) or inbox.partition(".")[0] == names.prefix:
        raise ConfigError(
            f"inbox prefix {inbox!r}: use tokens of letters, digits, - and _, joined by dots, "
            f"the first of which is not {names.prefix!r}"
        )


def for_admin(api: Api) -> list[str]:
    verbs = ("CREATE", "UPDATE")
    changes = [f"{api.prefix}.STREAM.{verb}.{stream}" for stream in api.streams for verb in verbs]
    more = [api.create_consumers(), *api.delete_queues(), *asked_by_people(api.names)]
    return [*for_monitor(api), *changes, *more]


def for_operator(api: Api) -> list[str]:
    names = api.names
    # Not of tasks: see `JetStream.remove`.
    purged = (
        names.results_stream, names.dead_letters_stream, names.workers_stream, names.logs_stream
    )  # fmt: skip
    purges = [f"{api.prefix}.STREAM.PURGE.{stream}" for stream in purged]
    # No token is in them, see `redaction.without_tokens`.
    letters = api.batch(names.dead_letters_stream)
    asked = (*asked_by_people(names), *map(names.controls, (Verb.DESCRIBE, Verb.PING)))
    return [*for_monitor(api), *letters, *purges, *api.hold_queues(), *asked]


def asked_by_people(names: Names) -> list[str]:
    """Return the orders to workers and the questions to schedulers."""
    return [*map(names.controls, ORDERS), *map(names.schedulers, SchedulerVerb)]


def for_api_server(api: Api) -> list[str]:
    """Return what logs need, and what its page shows and orders for users whom Airflow lets.

    Not the reports: a task's new token may be in them.
    """
    names = api.names
    purged = (names.dead_letters_stream, names.workers_stream)
    return [
        *map(names.controls, (Verb.LOG, Verb.DESCRIBE, Verb.PING)),
        *for_monitor(api),
        *api.batch(names.logs_stream, names.dead_letters_stream),
        *(f"{api.prefix}.STREAM.PURGE.{stream}" for stream in purged),
        *api.hold_queues(),
        *map(names.controls, ORDERS),
        names.schedulers(SchedulerVerb.STATE),
    ]


def for_monitor(api: Api) -> list[str]:
    return [
        f"{api.prefix}.INFO",  # how full the account is
        *api.info(*api.streams),
        *api.look_at_consumers(),
        *api.batch(api.names.workers_stream, api.names.holds_stream),
    ]


def for_scheduler(api: Api) -> list[str]:
    names = api.names
    tasks, results = names.tasks_stream, names.results_stream
    return [
        names.tasks(),
        names.results(),
        *map(names.controls, (Verb.PING, Verb.STOP)),
        *api.info(*api.streams),
        *api.look_at_consumers(),
        api.create_consumers(),
        # What queues were like in the last hour.
        in_domain(names.queue_histories(), api.domain),
        *api.batch(tasks, results, names.workers_stream, names.holds_stream),
        api.message(tasks, names.tasks()),
        api.message(results, names.results()),
        f"{api.prefix}.STREAM.MSG.DELETE.{tasks}",
        # Its reader of the results is an ephemeral consumer, whose name the server chooses.
        f"{api.prefix}.CONSUMER.CREATE.{results}",
        f"{api.prefix}.CONSUMER.MSG.NEXT.{results}.*",
    ]


def for_worker(api: Api, lanes: Sequence[Lane]) -> list[str]:
    names = api.names
    queues = dict.fromkeys(lane.queue for lane in lanes)
    return [
        *(subject for lane in lanes for subject in for_lane(api, lane)),
        *(subject for queue in queues for subject in for_queue(api, queue)),
        # Whether another worker lives that holds a claim or the name. Records of the release before
        # have keys without a queue, which no user of this release can write.
        api.message(names.workers_stream, names.older_presences()),
        names.peers(),
        # How the tools of NATS find a log. Airflow is shown what is stored for the log's queue.
        names.log_names(),
        # The broker's clock, by which it judges ages; whether there are notes of drains at all.
        *api.info(names.results_stream, names.workers_stream, names.holds_stream),
    ]


def for_site(api: Api, lanes: Sequence[Lane]) -> list[str]:
    """Return what a leaf node needs for its workers.

    A server allows no answers across a leaf node but to subjects that are named.
    """
    queues = dict.fromkeys(lane.queue for lane in lanes)
    inboxes = [*ASKER_INBOXES, *(f"_INBOX_{token(f'worker-{queue}')}" for queue in queues)]
    return [
        *for_worker(api, lanes),
        # The hub checks this one, too, before it passes on a message to the domain's.
        *(map(api.names.presences, queues) if api.domain else []),
        *(f"{inbox}.*.*" for inbox in inboxes),
    ]


def for_lane(api: Api, lane: Lane) -> list[str]:
    tasks, consumer = api.names.tasks_stream, api.names.consumer(*lane)
    return [
        f"{api.prefix}.CONSUMER.MSG.NEXT.{tasks}.{consumer}",
        api.message(tasks, api.names.tasks(lane)),
        f"$JS.ACK.{tasks}.{consumer}.{ACK}",
        # From nats-server 2.16 on the domain and the account's hash are in front.
        f"$JS.ACK.*.*.{tasks}.{consumer}.{NEWER_ACK}",
    ]


def for_queue(api: Api, queue: str) -> list[str]:
    names = api.names
    return [
        names.results(queue),
        api.message(names.results_stream, names.results(queue)),
        names.dead_letters(queue),
        # Its own presence, and that of the other workers of the queue.
        api.announce(queue),
        api.message(names.workers_stream, names.presences(queue)),
        names.log_chunks(queue),
        # Whether an operator has drained it.
        api.message(names.holds_stream, names.worker_holds(queue)),
    ]


def as_config(user: str, granted: Permissions, *, has_certificate: bool = False) -> str:
    """Return a user's block for `users: [...]` in a nats-server's configuration.

    Args:
        user: its name, whose password is then a variable of that file or of the server's
            environment, or the public key of its NKey.
        has_certificate: whether it logs in with a TLS certificate, which its name is in.
    """
    lines = [
        "{",
        *login_lines(user, has_certificate=has_certificate),
        "  permissions {",
        *allow_list("publish", granted.publish),
        *allow_list("subscribe", granted.subscribe),
    ]
    if granted.answers:
        lines.append(f'    allow_responses: {{ max: 1, expires: "{RESPONSE_SECONDS}s" }}')
    return "\n".join([*lines, "  }", "}"])


def login_lines(user: str, *, has_certificate: bool) -> list[str]:
    if NKEY.fullmatch(user):
        return [f"  nkey: {user}"]
    name = f"  user: {config_string(user)}"
    if has_certificate:
        return [name]
    variable = re.sub(r"[^A-Z0-9]+", "_", user.upper()).strip("_")
    return [name, f"  password: $NATS_PASSWORD_{variable}"]


def allow_list(name: str, subjects: Sequence[str]) -> list[str]:
    return [f"    {name}: {{ allow: [", *(f"      {json.dumps(s)}" for s in subjects), "    ] }"]


def config_string(text: str) -> str:
    """Write a text for a server's configuration, which knows the escapes of JSON that this uses."""
    return json.dumps(text, ensure_ascii=False)


def as_claims(granted: Permissions) -> dict[str, Any]:
    """Return the permissions as the `nats` part of a user's JWT has them, as `nsc` writes it."""
    claims: dict[str, Any] = {
        "pub": {"allow": list(granted.publish)},
        "sub": {"allow": list(granted.subscribe)},
    }
    if granted.answers:
        claims["resp"] = {"max": 1, "ttl": RESPONSE_SECONDS * 1_000_000_000}
    return claims
