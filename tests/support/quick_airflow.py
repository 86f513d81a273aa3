"""`airflow nats auth`, `accounts`, `limits` and `setup`, without the seconds of Airflow.

Run as `python -m tests.support.quick_airflow nats accounts USER=QUEUE ...`; a slow test holds it to
the real commands. Settings are the defaults, and those that the environment has.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING

from nats_executor.access.accounts import accounts_for, as_accounts, everyone, owned_by_team
from nats_executor.access.permissions import Role, as_config, permissions
from nats_executor.broker.connection import connect
from nats_executor.settings import Settings
from nats_executor.topology.room import as_block, as_variables, room_for
from nats_executor.topology.setup import apply
from tests.support.fixtures import Options

if TYPE_CHECKING:
    from argparse import Namespace


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("group")
    commands = parser.add_subparsers(required=True)
    of_accounts = commands.add_parser("accounts")
    of_accounts.add_argument("worker_users", nargs="*")
    of_accounts.add_argument("--sites", nargs="+", default=[])
    of_accounts.set_defaults(run=print_accounts)
    auth = commands.add_parser("auth")
    auth.add_argument("--user", required=True)
    auth.add_argument("--queues", required=True)
    auth.add_argument("--inbox-prefix", required=True)
    auth.set_defaults(run=print_user)
    limits = commands.add_parser("limits")
    limits.add_argument("--max-teams", type=int, required=True)
    limits.set_defaults(run=print_limits)
    setup = commands.add_parser("setup")
    setup.add_argument("--queues", required=True)
    setup.set_defaults(run=set_up)
    for command in (of_accounts, auth, limits, setup):
        command.add_argument("--team-name")
        command.add_argument("--max-queues", type=int, default=1000)
    args = parser.parse_args()
    args.run(args, settings_of(args.team_name))


def settings_of(team: str | None) -> Settings:
    prefix = f"AIRFLOW__{team.upper()}___NATS_EXECUTOR__" if team else "AIRFLOW__NATS_EXECUTOR__"
    found = {
        name.removeprefix(prefix).lower(): value
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }
    return Settings.load(Options({"servers": "nats://127.0.0.1:4222"} | found), team=team)


def print_accounts(args: Namespace, settings: Settings) -> None:
    users = everyone(settings, args.worker_users, args.sites)
    made, block = accounts_for(settings.names, users), []
    if args.team_name:
        made = owned_by_team(made, args.team_name)
        block = as_block(room_for(settings, teams=1, queues=args.max_queues))
    print(as_accounts(made, limits=block))  # noqa: T201 - what is asked for


def print_user(args: Namespace, settings: Settings) -> None:
    lanes = [lane for queue in args.queues.split(",") for lane in settings.lanes(queue)]
    domain = os.environ.get("AIRFLOW__NATS_EXECUTOR__JETSTREAM_DOMAIN")
    granted = permissions(
        Role.WORKER, settings.names, args.inbox_prefix, lanes=lanes, domain=domain
    )
    print(f"# for [nats_executor] inbox_prefix = {args.inbox_prefix}")  # noqa: T201
    print(as_config(args.user, granted))  # noqa: T201


def print_limits(args: Namespace, settings: Settings) -> None:
    print(as_variables(room_for(settings, teams=args.max_teams, queues=args.max_queues)))  # noqa: T201


def set_up(args: Namespace, settings: Settings) -> None:
    async def carry_out() -> None:
        async with connect(settings, role="test") as admin:
            await admin.ready(20)
            await apply(admin, settings, args.queues.split(","))

    asyncio.run(carry_out())


if __name__ == "__main__":
    main()
