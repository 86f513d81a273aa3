"""Gives each worker user an account, which borrows from Airflow's what the worker needs.

JetStream sends an answer to whatever subject its request names, with rights of its own, so within
one account permissions do not hold a malicious client back. An answer that leaves the account
goes to the asker's account instead, where nothing but the asker's own is. So each worker user
gets an account that borrows the subjects that its permissions name, and no others.

Pure. `airflow nats accounts` prints them, `deploy/nats/make-users` makes files of that, and tests
hold real servers to it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nats_executor.access.permissions import (
    Permissions,
    Role,
    as_claims,
    as_config,
    config_string,
    permissions,
)
from nats_executor.errors import ConfigError
from nats_executor.wire.names import Verb, token, without_domain
from nats_executor.wire.queue_names import in_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Lane, Names

__all__ = [
    "DOMAIN",
    "accounts_for",
    "as_account_claims",
    "as_accounts",
    "everyone",
    "owned_by_team",
]

# Requests that may get more than one answer: pulls, and lookups of several messages at once. Of
# any other the server forgets the asker with the first answer, which keeps acks cheap.
MANY_ANSWERS = re.compile(r"\$JS\.API\.(CONSUMER\.MSG\.NEXT\..+|DIRECT\.GET\.[^.]+)")
# `[nats_executor] jetstream_domain` of workers with accounts of their own. On $JS.API the server
# itself answers an account without JetStream, beside the one that lends.
DOMAIN = "lent"
# The domain of the cluster for its leaf nodes, as deploy/nats/cluster.conf has it.
HUB = "hub"
# This line ends the part that belongs into Airflow's account.
BESIDE = "# Beside that account:"


@dataclass(frozen=True, slots=True)
class User:
    """One who logs in, with an inbox prefix of its own."""

    name: str
    role: Role
    inbox: str
    granted: Permissions


def member(names: Names, name: str, role: Role, lanes: Sequence[Lane] = ()) -> User:
    """Return a user with what it needs, with the inbox prefix that is the default of its name."""
    inbox = f"_INBOX_{token(name)}"
    domain = {Role.WORKER: DOMAIN, Role.SITE: HUB}.get(role)
    return User(name, role, inbox, permissions(role, names, inbox, lanes=lanes, domain=domain))


def everyone(settings: Settings, workers: Sequence[str], sites: Sequence[str]) -> list[User]:
    """Return one user for each role of which a deployment has one, and those of USER=QUEUE,QUEUE.

    Raises:
        ConfigError: one of them is not written so.
    """
    users = [
        member(settings.names, role, role) for role in Role if role not in {Role.WORKER, Role.SITE}
    ]
    for role, ones in ((Role.WORKER, workers), (Role.SITE, sites)):
        for words in ones:
            name, queues = in_user(words)
            if not name or not queues:
                raise ConfigError(f"{words!r}: write USER=QUEUE or USER=QUEUE,QUEUE")
            lanes = [lane for queue in queues for lane in settings.lanes(queue)]
            users.append(member(settings.names, name, role, lanes))
    return users


@dataclass(frozen=True, slots=True)
class Export:
    """A subject on which some other accounts may ask."""

    subject: str
    to: tuple[str, ...]

    @property
    def response_type(self) -> str:
        return "Stream" if MANY_ANSWERS.fullmatch(self.subject) else "Singleton"


@dataclass(frozen=True, slots=True)
class Import:
    """A subject of another account, and what it is called here."""

    account: str
    subject: str
    local: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the server, and the users who log in to it."""

    name: str
    users: tuple[User, ...]
    exports: tuple[Export, ...]
    imports: tuple[Import, ...]


def accounts_for(names: Names, users: Sequence[User]) -> list[Account]:
    """Return Airflow's account, the relay of pings among workers, and one for each worker user.

    Raises:
        ConfigError: two of them would have one name.
    """
    main = names.prefix.upper()
    relay = f"{main}_PEERS"
    workers = [user for user in users if user.role is Role.WORKER]
    borrowing = tuple(user.name for user in workers)
    require_distinct([main, relay, *(user.name for user in users)])
    asked, peers = names.controls(), names.peers()
    borrowers: defaultdict[str, list[str]] = defaultdict(list)
    for user in workers:
        for found in borrowed(user, names, main):
            borrowers[found.subject].append(user.name)
    # A server takes it for a cycle if Airflow's account lends to a worker's what it borrows from
    # there, depending on which it reads first; the detour ends that.
    pings = names.controls(Verb.PING)
    lent = [Export(subject, tuple(to)) for subject, to in borrowers.items()]
    others = tuple(user for user in users if user.role is not Role.WORKER)
    return [
        Account(
            main,
            others,
            (*lent, Export(pings, (relay,))),
            tuple(Import(name, asked, asked) for name in borrowing),
        ),
        Account(relay, (), (Export(peers, borrowing),), (Import(main, pings, peers),)),
        *(of_worker(user, names, main, relay) for user in workers),
    ]


def of_worker(user: User, names: Names, main: str, relay: str) -> Account:
    peers = Import(relay, names.peers(), names.peers())
    imports = (*borrowed(user, names, main), peers)
    return Account(user.name, (user,), (Export(names.controls(), (main,)),), imports)


def borrowed(user: User, names: Names, main: str) -> list[Import]:
    """Return what a worker publishes on, except to other workers, whom it reaches by the relay."""
    return [
        Import(main, without_domain(subject, DOMAIN), subject)
        for subject in user.granted.publish
        if subject != names.peers()
    ]


def require_distinct(found: Iterable[str]) -> None:
    doubled = [name for name, count in Counter(found).items() if count > 1]
    if doubled:
        raise ConfigError(f"two users or accounts would be called {doubled[0]!r}")


def owned_by_team(made: Sequence[Account], team: str) -> list[Account]:
    """Return the accounts of a team that shares servers with others, under names of its own.

    Users keep the inboxes by which workers know them: another account does not see those.
    """
    members = {user.name for account in made for user in account.users}

    def named(name: str) -> str:
        return f"{team}-{name}" if name in members else name

    return [
        Account(
            named(account.name),
            tuple(replace(user, name=named(user.name)) for user in account.users),
            tuple(replace(e, to=tuple(map(named, e.to))) for e in account.exports),
            tuple(replace(i, account=named(i.account)) for i in account.imports),
        )
        for account in made
    ]


def as_accounts(
    made: Sequence[Account], *, have_certificates: bool = False, limits: Sequence[str] = ()
) -> str:
    """Return the accounts for a server's configuration.

    Put the part before `BESIDE` into Airflow's account itself, beside `jetstream`, so that its
    limits stay where people change them.

    Args:
        have_certificates: whether users log in with TLS certificates, which their names are in.
        limits: the `jetstream` block of the first account; with it that account is whole as well.
    """
    main, *beside = made

    def whole_account(account: Account, limits: Sequence[str] = ()) -> list[str]:
        inner = within(account, have_certificates)
        return [f"{config_string(account.name)} {{", *limits, *inner, "}"]

    if limits:
        blocks = [whole_account(main, limits), *map(whole_account, beside)]
        return "\n".join(line for block in blocks for line in block)
    blocks = [whole_account(account) for account in beside]
    lines = [
        f"# Inside of the account {main.name}, which has JetStream:",
        *within(main, have_certificates),
        BESIDE,
        *(line for block in blocks for line in block),
    ]
    return "\n".join(lines)


def within(account: Account, have_certificates: bool) -> list[str]:
    lines = [
        *block("exports", map(export_line, account.exports)),
        *block("imports", map(import_line, account.imports)),
    ]
    if account.users:
        lines += block("users", (user_lines(u, have_certificates) for u in account.users))
    return lines


def block(name: str, entries: Iterable[str]) -> list[str]:
    return [f"{name}: [", *entries, "]"]


def export_line(export: Export) -> str:
    to = ", ".join(map(config_string, export.to))
    kind = ", response_type: Stream" if export.response_type == "Stream" else ""
    return f'  {{ service: "{export.subject}", accounts: [{to}]{kind} }}'


def import_line(found: Import) -> str:
    account = config_string(found.account)
    to = "" if found.local == found.subject else f', to: "{found.local}"'
    return f'  {{ service: {{ account: {account}, subject: "{found.subject}" }}{to} }}'


def user_lines(user: User, have_certificates: bool) -> str:
    lines = [f"# for [nats_executor] inbox_prefix = {user.inbox}"]
    if user.role is Role.WORKER:
        lines.append(f"# and [nats_executor] jetstream_domain = {DOMAIN}")
    block = as_config(user.name, user.granted, has_certificate=have_certificates)
    return "\n".join([*lines, block])


def as_account_claims(made: Sequence[Account]) -> dict[str, Any]:
    """Return the accounts as the `nats` parts of their JWTs have them, and of their users' JWTs.

    Imports name accounts by their names here, in place of which their public keys belong.
    """
    return {
        account.name: {
            "exports": [
                {
                    "name": export.subject,
                    "subject": export.subject,
                    "type": "service",
                    "response_type": export.response_type,
                }
                for export in account.exports
            ],
            "imports": [
                {
                    "name": found.subject,
                    "subject": found.subject,
                    "account": found.account,
                    "local_subject": found.local,
                    "type": "service",
                }
                for found in account.imports
            ],
            "users": {user.name: as_claims(user.granted) for user in account.users},
        }
        for account in made
    }
