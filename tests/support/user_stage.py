"""Servers whose users may do what `nats_executor.access.permissions` grants, and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nats_executor.access import accounts
from nats_executor.access.permissions import Permissions, Role, as_config, permissions
from nats_executor.broker.connection import connect
from nats_executor.topology import setup
from nats_executor.wire.names import Names
from tests.support.fixtures import settings_for
from tests.support.nats_server import NatsServer, nats_cluster, start_together
from tests.support.raw_nats import RawClient
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane

__all__ = [
    "ACCOUNTS",
    "CLUSTER",
    "KINDS",
    "NAMES",
    "ONE_ACCOUNT",
    "PASSWORD",
    "QUEUES",
    "ROOT_INBOX",
    "ROOT_USER",
    "USERS",
    "User",
    "UserStage",
    "accounts_config",
    "grants",
    "lanes",
    "one_account_config",
    "open_user_stage",
    "secret",
]

NAMES = Names()
QUEUES = ("a", "b")
PASSWORD = "secret"
# One that may do everything, to look and to show that what others may not do can be done at all.
ROOT_USER = "root"
ROOT_INBOX = "_INBOX_root.x"

# All users in one account; one for each worker user; the same on three servers.
ONE_ACCOUNT, ACCOUNTS, CLUSTER = "one account", "accounts", "cluster"
KINDS = (ONE_ACCOUNT, ACCOUNTS, CLUSTER)


@dataclass(frozen=True)
class User:
    """One of the users that a deployment has."""

    name: str
    role: Role
    queues: tuple[str, ...] = ()

    @property
    def inbox(self) -> str:
        return f"_INBOX_{self.name}"


USERS = (
    User("admin", Role.ADMIN),
    User("operator", Role.OPERATOR),
    User("scheduler", Role.SCHEDULER),
    User("worker_a", Role.WORKER, ("a",)),
    User("worker_b", Role.WORKER, ("b",)),
    User("api_server", Role.API_SERVER),
    User("triggerer", Role.TRIGGERER),
    User("monitor", Role.MONITOR),
)


def secret(queue: str) -> bytes:
    """What the first task of a queue holds."""
    return f"secret of {queue}".encode()


def grants(user: User, inbox: str = "") -> Permissions:
    return permissions(user.role, NAMES, inbox or user.inbox, lanes=lanes(user))


def lanes(user: User) -> list[Lane]:
    settings = settings_for("nats://127.0.0.1:4222")
    return [lane for queue in user.queues for lane in settings.lanes(queue)]


def accounts_config(more: str = "", *, is_open: bool = False) -> str:
    """Accounts as `airflow nats accounts` prints them, with the users' passwords.

    Args:
        is_open: whether workers may do whatever their accounts can do.
    """
    passwords = "".join(f'NATS_PASSWORD_{u.name.upper()}: "{PASSWORD}"\n' for u in USERS)
    users = [accounts.member(NAMES, u.name, u.role, lanes(u)) for u in USERS]
    made = accounts.accounts_for(NAMES, users)
    if is_open:
        made = [made[0], *map(opened, made[1:])]
    main, beside = accounts.as_accounts(made).split(accounts.BESIDE)
    root = f'users: [ {{ user: {ROOT_USER}, password: "{PASSWORD}" }}'
    main = main.replace("users: [", root)
    return f"{passwords}accounts {{ AIRFLOW {{ jetstream: enabled\n{main}}}\n{beside} }}\n{more}"


def opened(account: accounts.Account) -> accounts.Account:
    everything = Permissions(publish=(">",), subscribe=(">",))
    users = (replace(user, granted=everything) for user in account.users)
    return replace(account, users=tuple(users))


def one_account_config(more: str = "", *, inbox: str = "") -> str:
    """Users as `airflow nats auth` prints them, in one account, with their passwords.

    Args:
        inbox: an inbox prefix for all of them; each has its own without it.
    """
    passwords = "".join(f'NATS_PASSWORD_{u.name.upper()}: "{PASSWORD}"\n' for u in USERS)
    blocks = ",\n".join(as_config(user.name, grants(user, inbox)) for user in USERS)
    root = f'{{ user: {ROOT_USER}, password: "{PASSWORD}" }}'
    return (
        f"{passwords}accounts {{ AIRFLOW {{ jetstream: enabled, users: [\n{blocks},\n{root}\n"
        f"] }} }}\n{more}"
    )


@dataclass
class UserStage:
    """The server, and ways to be one of its users.

    Attributes:
        server: the one that raw clients talk to.
        has_accounts: whether each worker user has one of its own.
        others: the rest of a cluster; every stream is on all of them.
    """

    server: NatsServer
    has_accounts: bool = False
    others: Sequence[NatsServer] = ()

    @property
    def servers(self) -> list[NatsServer]:
        return [self.server, *self.others]

    def settings(self, user: str, **options: Any) -> Settings:
        if self.has_accounts and user.startswith("worker"):
            options["jetstream_domain"] = accounts.DOMAIN
        usual = {"remote_base_log_folder": "nats://", "replicas": len(self.servers)}
        urls = [server.url for server in self.servers]
        return settings_for(*urls, user=user, password=PASSWORD, **usual | options)

    def grants(self, name: str) -> Permissions:
        (user,) = (user for user in USERS if user.name == name)
        if self.has_accounts:
            return accounts.member(NAMES, name, user.role, lanes(user)).granted
        return grants(user)

    def api(self, user: str) -> str:
        """What JetStream's API is called where a user is."""
        domain = self.settings(user).jetstream_domain
        return f"$JS.{domain}.API" if domain else "$JS.API"

    def raw(self, user: str, server: NatsServer | None = None) -> RawClient:
        return RawClient(server or self.server, user, PASSWORD)

    def ask(self, user: str, question: Callable[[Broker], Awaitable[Any]], **options: Any) -> Any:
        """Connect as a user, ask one thing, disconnect; where there is no event loop."""

        async def talk() -> Any:
            async with connect(self.settings(user, **options), role="test") as broker:
                await broker.ready(10)
                return await question(broker)

        return asyncio.run(talk())

    def send(self, queue: str, dispatch_id: str = "d1", body: bytes = b"") -> None:
        """Publish a task as the scheduler."""
        subject, sent = NAMES.task(queue, dispatch_id), body or secret(queue)
        with self.raw("scheduler") as scheduler:
            assert scheduler.subscribe("_INBOX_scheduler.>") == ""
            answer = scheduler.ask(subject, sent, "_INBOX_scheduler.x").answer
            assert "error" not in answer, answer

    def set_up(self, user: str = "admin", **options: Any) -> list[setup.Drift]:
        settings = self.settings(user, **options)
        drifts: list[setup.Drift] = self.ask(
            user, lambda broker: setup.apply(broker, settings, QUEUES), **options
        )
        block_until(self.is_reached, 10, "the streams to be known at every server")
        return drifts

    def is_reached(self) -> bool:
        """Whether the streams are reached from every server, which takes a moment after setup."""
        return all(map(self.is_reached_at, self.servers))

    def is_reached_at(self, server: NatsServer) -> bool:
        # Refused by the stream, so that nothing is stored.
        headers = b"NATS/1.0\r\nNats-Expected-Stream: NONE\r\n\r\n"
        with self.raw(ROOT_USER, server) as root:
            root.subscribe("_INBOX_root.>")
            for subject in (NAMES.task("a", "d0"), NAMES.result("a", "d0")):
                root.publish(subject, b"", ROOT_INBOX, headers)
                if root.next().headers:  # no stream was there
                    return False
        return True

    def clear(self) -> None:
        """Delete every stream."""
        with self.raw(ROOT_USER) as root:
            root.subscribe("_INBOX_root.>")
            names = root.ask("$JS.API.STREAM.NAMES", b"", ROOT_INBOX).answer["streams"]
            for name in names or ():
                answer = root.ask(f"$JS.API.STREAM.DELETE.{name}", b"", ROOT_INBOX).answer
                assert answer.get("success"), answer
        # Servers of a cluster follow one by one; one that is behind may not answer for what is made
        # again under the same name.
        block_until(lambda: not any(map(streams_at, self.servers)), 20, "the streams' end")


def streams_at(server: NatsServer) -> int:
    return int(server.monitor("/jsz")["streams"])


@contextmanager
def open_user_stage(
    directory: Path, kind: str, *, config: str = "", jetstream: str = ""
) -> Iterator[UserStage]:
    """Start the server or servers of a stage, one of `KINDS`; no stream is made yet.

    Args:
        config: more configuration at the top level, such as `max_payload`.
        jetstream: more configuration of JetStream, such as `max_file_store: 64MB`.
    """
    has_accounts = kind != ONE_ACCOUNT
    whole = accounts_config(config) if has_accounts else one_account_config(config)
    size = 3 if kind == CLUSTER else 1
    servers = (
        [NatsServer(directory, config=whole, jetstream=jetstream)]
        if size == 1
        else nats_cluster(directory, size=size, config=whole, jetstream=jetstream)
    )
    try:
        start_together(servers)
        yield UserStage(servers[0], has_accounts, servers[1:])
    finally:
        for server in servers:
            server.kill()
