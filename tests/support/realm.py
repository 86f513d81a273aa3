"""A server whose users may do what `nats_executor.permissions` grants, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nats_executor import accounts, topology
from nats_executor.broker import connect
from nats_executor.names import Names
from nats_executor.permissions import Permissions, Role, as_config, permissions
from tests.support.fixtures import settings_for
from tests.support.raw_nats import RawClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats_executor.names import Lane
    from nats_executor.ports import Broker
    from nats_executor.settings import Settings
    from tests.support.nats_server import NatsServer

__all__ = [
    "NAMES",
    "PASSWORD",
    "QUEUES",
    "ROOT_USER",
    "USERS",
    "Realm",
    "User",
    "accounts_config",
    "grants",
    "lanes",
    "realm_config",
    "secret",
]

NAMES = Names()
QUEUES = ("a", "b")
PASSWORD = "secret"
# One that may do everything, to look and to show that what others may not do can be done at all.
ROOT_USER = "root"


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
    made = accounts.accounts(NAMES, users)
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


def realm_config(more: str = "", *, inbox: str = "") -> str:
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
class Realm:
    """The server, and ways to be one of its users.

    Attributes:
        has_accounts: whether each worker user has one of its own.
    """

    server: NatsServer
    has_accounts: bool = False

    def settings(self, user: str, **options: Any) -> Settings:
        if self.has_accounts and user.startswith("worker"):
            options["jetstream_domain"] = accounts.DOMAIN
        stored = {"remote_base_log_folder": "nats://", **options}
        return settings_for(self.server.url, user=user, password=PASSWORD, **stored)

    def grants(self, name: str) -> Permissions:
        (user,) = (user for user in USERS if user.name == name)
        if self.has_accounts:
            return accounts.member(NAMES, name, user.role, lanes(user)).granted
        return grants(user)

    def api(self, user: str) -> str:
        """What JetStream's API is called where a user is."""
        domain = self.settings(user).jetstream_domain
        return f"$JS.{domain}.API" if domain else "$JS.API"

    def raw(self, user: str) -> RawClient:
        return RawClient(self.server, user, PASSWORD)

    def ask(self, user: str, question: Callable[[Broker], Awaitable[Any]], **options: Any) -> Any:
        """Connect as a user, ask one thing, disconnect; where there is no event loop."""

        async def talk() -> Any:
            async with connect(self.settings(user, **options), role="test") as broker:
                await broker.ready(10)
                return await question(broker)

        return asyncio.run(talk())

    def send(self, queue: str, dispatch_id: str = "d1", body: bytes = b"") -> None:
        """Publish a task as the scheduler."""
        with self.raw("scheduler") as scheduler:
            assert scheduler.subscribe("_INBOX_scheduler.>") == ""
            subject = NAMES.task(queue, dispatch_id)
            answer = scheduler.ask(subject, body or secret(queue), "_INBOX_scheduler.x").answer
            assert "error" not in answer, answer

    def set_up(self, user: str = "admin", **options: Any) -> list[topology.Drift]:
        settings = self.settings(user, **options)
        drifts: list[topology.Drift] = self.ask(
            user, lambda broker: topology.apply(broker, settings, QUEUES), **options
        )
        return drifts
