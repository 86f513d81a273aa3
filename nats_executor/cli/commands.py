"""Runs the `airflow nats` commands. Each returns normally for exit code 0."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from airflow.utils.platform import getuser

from nats_executor.access.permissions import Role, as_claims, as_config, permissions
from nats_executor.broker import exposure
from nats_executor.cli.arguments import (
    ask,
    command,
    lanes_of,
    named_queues,
    quiet,
    require_yes,
    say,
    settings_for,
    show,
    show_list,
)
from nats_executor.cli.cancel_commands import queues_delete, queues_purge, tasks_cancel
from nats_executor.cli.letter_commands import (
    dead_letters_list,
    dead_letters_purge,
    dead_letters_retry,
    dead_letters_show,
)
from nats_executor.cli.migrate_commands import migrate_check
from nats_executor.cli.probe_commands import doctor, ping
from nats_executor.cli.queue_commands import (
    queues_list,
    queues_pause,
    queues_peek,
    queues_resume,
    queues_show,
)
from nats_executor.cli.why_commands import why
from nats_executor.cli.worker_commands import (
    is_all_well,
    workers_add_queue,
    workers_forget,
    workers_ping,
    workers_remove_queue,
    workers_set_concurrency,
    workers_show,
    workers_stop,
)
from nats_executor.errors import ConfigError
from nats_executor.metrics_package import missing_package, require_metrics
from nats_executor.operations.choosing import Which
from nats_executor.operations.demands import demand_rows, demands_in, with_demands
from nats_executor.operations.draining import drain_workers, undrain_workers
from nats_executor.operations.idleness import IdleWatch, until_idle
from nats_executor.operations.purging import Store, carry_out, look, purge_of
from nats_executor.operations.survey import (
    check_row,
    check_rows,
    take_survey,
    worker_rows,
)
from nats_executor.text import lines
from nats_executor.topology.room import as_block, as_variables, room_for
from nats_executor.topology.setup import apply, inspect, known_queues
from nats_executor.wire.names import token
from nats_executor.wire.queue_names import in_text

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker
    from nats_executor.topology.drift import Drift

__all__ = [
    "accounts",
    "auth",
    "check",
    "dead_letters_list",
    "dead_letters_purge",
    "dead_letters_retry",
    "dead_letters_show",
    "demo",
    "doctor",
    "limits",
    "migrate_check",
    "ping",
    "purge",
    "queues_delete",
    "queues_list",
    "queues_pause",
    "queues_peek",
    "queues_purge",
    "queues_resume",
    "queues_show",
    "setup",
    "standalone",
    "tasks_cancel",
    "top",
    "why",
    "worker",
    "workers_add_queue",
    "workers_drain",
    "workers_forget",
    "workers_list",
    "workers_ping",
    "workers_remove_queue",
    "workers_set_concurrency",
    "workers_show",
    "workers_stop",
    "workers_undrain",
]


@command
@quiet
def setup(args: Namespace) -> None:
    """Create or update streams and consumers; with --check only look, and exit 1 on drift."""
    settings = settings_for(args)

    async def carry_out(broker: Broker) -> list[Drift]:
        queues = {*named_queues(args), *await known_queues(broker, settings)}
        if args.check:
            return await inspect(broker, settings, sorted(queues))
        return await apply(broker, settings, sorted(queues), may_drop=args.may_drop)

    drifts = ask(settings, carry_out)
    for drift in drifts:
        say(drift_line(drift, is_done=not args.check))
    if not drifts:
        print("everything is as it should be")
    elif args.check:
        raise SystemExit(1)


def drift_line(drift: Drift, *, is_done: bool) -> str:
    """Return a line about what differs, or about what was done about it."""
    if is_done and drift.setting == "existence":
        return f"created {drift.where}"
    if is_done:
        return f"changed {drift.where}: {drift.setting} from {drift.found!r} to {drift.wanted!r}"
    return f"{drift}; {drift.caution}" if drift.caution else str(drift)


@command
@quiet
def check(args: Namespace) -> None:
    """Print what needs attention; exit 1 if anything does, 2 if NATS does not answer."""
    demands = demands_in(args.queues, args.min_workers)
    settings = settings_for(args)
    survey = ask(settings, lambda broker: take_survey(broker, settings))
    rows = [check_row("login", "exposed", text) for text in exposure.exposed_logins()]
    if text := missing_package():
        rows.append(check_row("metrics", "missing", text))
    demanded = demand_rows(demands, survey.workers, settings)
    rows = with_demands(check_rows(survey, settings), demanded) + rows
    show(rows, args.output)
    if any(row["status"] != "ok" for row in rows):
        raise SystemExit(1)


@command
@quiet
def workers_list(args: Namespace) -> None:
    """Print one row for each worker that was seen in the last hour."""
    settings = settings_for(args)
    given = {"worker": args.worker_patterns, "queues": args.queue_patterns, "state": args.state}
    patterns = {column: in_text(text or "") for column, text in given.items()}
    show_list(args, settings, lambda survey: worker_rows(survey, settings), patterns)


@command
@quiet
def workers_drain(args: Namespace) -> None:
    """Have workers take nothing more, and wait if asked until they run nothing."""
    settings = settings_for(args)
    which = Which(in_text(args.workers or ""), args.queue)
    by = getuser()
    outcome = ask(
        settings,
        lambda broker: drain_workers(broker, settings, which, by=by, reason=args.reason),
    )
    is_well = is_all_well(outcome.results)
    if args.wait and outcome.obeying:
        watch = IdleWatch(outcome.obeying)
        try:
            is_idle = ask(
                settings, lambda broker: until_idle(broker, settings, watch, args.timeout, say_now)
            )
        except KeyboardInterrupt:  # what is left was said
            raise SystemExit(1) from None
        is_well = is_well and is_idle
    if not is_well:
        raise SystemExit(1)


def say_now(text: str) -> None:
    say(text)
    sys.stdout.flush()


@command
@quiet
def workers_undrain(args: Namespace) -> None:
    """Have workers take workloads again."""
    settings = settings_for(args)
    which = Which(in_text(args.workers or ""), args.queue)
    by = getuser()
    answers = ask(settings, lambda broker: undrain_workers(broker, settings, which, by=by))
    if not is_all_well(answers):
        raise SystemExit(1)


@command
@quiet
def purge(args: Namespace) -> None:
    """Empty a stream once a person has said yes; exit 1 if not, 2 if NATS does not answer."""
    settings = settings_for(args)
    what = purge_of(settings.names, Store(args.store), args.queue)
    contents = ask(settings, lambda broker: look(broker, what))
    sys.stderr.write(f"{lines(contents.describe(what))}\n")
    require_yes(args, "Remove them?", "nothing was removed")
    show([ask(settings, lambda broker: carry_out(broker, what))], args.output)


@command
@quiet
def auth(args: Namespace) -> None:
    """Print what a NATS user needs to be allowed, from names and settings alone."""
    settings = settings_for(args)
    inbox = args.inbox_prefix or f"_INBOX_{token(args.user)}"
    granted = permissions(
        Role(args.role),
        settings.names,
        inbox,
        lanes=lanes_of(settings, named_queues(args)),
        domain=settings.jetstream_domain,
    )
    if args.format == "jwt":
        print(json.dumps(as_claims(granted), indent=2))
        return
    print(f"# for [nats_executor] inbox_prefix = {inbox}")
    print(as_config(args.user, granted, has_certificate=args.certificate))


@command
@quiet
def accounts(args: Namespace) -> None:
    """Print all accounts and users of a deployment, from names and settings alone."""
    from nats_executor.access.accounts import (
        accounts_for,
        as_account_claims,
        as_accounts,
        everyone,
        owned_by_team,
    )

    settings = settings_for(args)
    if settings.jetstream_domain:
        raise ConfigError("[nats_executor] jetstream_domain: accounts do not reach over leaf nodes")
    users = everyone(settings, args.worker_users, args.sites or ())
    made = accounts_for(settings.names, users)
    block: list[str] = []
    if args.team_name:
        made = owned_by_team(made, args.team_name)
        block = as_block(room_for(settings, teams=1, queues=args.max_queues))
    if args.format == "jwt":
        print(json.dumps(as_account_claims(made), indent=2))
        return
    print(as_accounts(made, have_certificates=args.certificate, limits=block))


@command
@quiet
def limits(args: Namespace) -> None:
    """Print the limits of servers and accounts, from settings alone."""
    room = room_for(settings_for(args), teams=args.max_teams, queues=args.max_queues)
    print(as_variables(room))


@command
@quiet
def top(args: Namespace) -> None:
    """Show queues and workers on a terminal."""
    from nats_executor.cli.top import run_top

    run_top(args)


@command
def worker(args: Namespace) -> None:
    """Start a worker."""
    from nats_worker.cli import start

    start(args)


@command
def standalone(args: Namespace) -> None:
    """Run everything on this machine."""
    from nats_executor.local.standalone import login_again, run_standalone

    if args.login:
        print(login_again())
        return
    require_metrics()
    run_standalone(args)


@command
def demo(args: Namespace) -> None:
    """Run the example Dag on this machine."""
    from nats_executor.local.demo import run_demo

    require_metrics()
    run_demo(args)
