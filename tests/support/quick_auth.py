"""`airflow nats auth` with the default settings and without Airflow, which takes seconds to load.

Run as `python quick_auth.py nats auth --user ...`; a slow test holds it to the real command.
"""

from __future__ import annotations

import argparse
import os

from nats_executor.names import token
from nats_executor.permissions import Role, as_config, permissions
from tests.support.fixtures import settings_for


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs=2)
    parser.add_argument("--user", required=True)
    parser.add_argument("--role", required=True)
    parser.add_argument("--queues", default="default")
    parser.add_argument("--inbox-prefix")
    args = parser.parse_args()
    settings = settings_for("nats://127.0.0.1:4222")
    lanes = [lane for queue in args.queues.split(",") for lane in settings.lanes(queue)]
    inbox = args.inbox_prefix or f"_INBOX_{token(args.user)}"
    domain = os.environ.get("AIRFLOW__NATS_EXECUTOR__JETSTREAM_DOMAIN")
    granted = permissions(Role(args.role), settings.names, inbox, lanes=lanes, domain=domain)
    print(f"# for [nats_executor] inbox_prefix = {inbox}")  # noqa: T201 - what is asked for
    print(as_config(args.user, granted))  # noqa: T201


if __name__ == "__main__":
    main()
