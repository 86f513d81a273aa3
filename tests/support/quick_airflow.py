"""`airflow nats auth` and `accounts` with the default settings, without the seconds of Airflow.

Run as `python -m tests.support.quick_airflow nats accounts USER=QUEUE ...`; a slow test holds it to
the real command.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from nats_executor.access.accounts import accounts_for, as_accounts, everyone
from nats_executor.access.permissions import Role, as_config, permissions
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.settings import Settings


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
    args = parser.parse_args()
    args.run(args, settings_for("nats://127.0.0.1:4222"))


def print_accounts(args: Namespace, settings: Settings) -> None:
    users = everyone(settings, args.worker_users, args.sites)
    print(as_accounts(accounts_for(settings.names, users)))  # noqa: T201 - what is asked for


def print_user(args: Namespace, settings: Settings) -> None:
    lanes = [lane for queue in args.queues.split(",") for lane in settings.lanes(queue)]
    domain = os.environ.get("AIRFLOW__NATS_EXECUTOR__JETSTREAM_DOMAIN")
    granted = permissions(
        Role.WORKER, settings.names, args.inbox_prefix, lanes=lanes, domain=domain
    )
    print(f"# for [nats_executor] inbox_prefix = {args.inbox_prefix}")  # noqa: T201
    print(as_config(args.user, granted))  # noqa: T201


if __name__ == "__main__":
    main()
