"""Runs the command for teams that come from Celery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.cli.arguments import command, quiet, show

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["migrate_check"]


@command
@quiet
def migrate_check(args: Namespace) -> None:
    """Print what becomes of each thing; exit 1 if something is left to decide."""
    # Only this command needs Airflow's models.
    from nats_executor.migration.reading import read_deployed
    from nats_executor.migration.translating import check_for_celery, is_decided

    rows = check_for_celery(read_deployed(args.files))
    show(rows, args.output)
    if not is_decided(rows):
        raise SystemExit(1)
