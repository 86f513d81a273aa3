"""Starts a worker, as `airflow nats worker` or `nats-worker`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.settings import Settings
    from nats_worker.state import Plan

__all__ = ["main", "start"]

log = logging.getLogger(__name__)

# Of a daemon's pid and log files.
PROCESS = "nats-worker"


def main() -> None:
    """Run `nats-worker`, which takes the arguments of `airflow nats worker`."""
    from nats_executor.cli.arguments import command

    command(start)(worker_parser().parse_args())


def worker_parser() -> argparse.ArgumentParser:
    """Return the parser of `nats-worker`."""
    from nats_executor.cli.worker_definitions import WORKER_ARGS, WORKER_EPILOG

    parser = argparse.ArgumentParser(
        prog="nats-worker",
        description="Start a worker of the NATS executor.",
        epilog=WORKER_EPILOG.replace("airflow nats worker", "nats-worker"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for arg in WORKER_ARGS:
        arg.add_to_parser(parser)
    return parser


def start(args: Namespace) -> None:
    """Run a worker in this process, or in the background with --daemon, until it is stopped."""
    from airflow.cli.commands.daemon_utils import run_command_with_daemon_option

    from nats_executor.cli.arguments import named_queues, settings_for
    from nats_executor.metrics_package import require_metrics

    require_metrics()
    if args.daemon:
        settle_files(args)
    directory = Path.cwd()

    # Read here, so that a bad value is told on the terminal and not in a daemon's log.
    settings = settings_for(args)
    plan = plan_for(args, named_queues(args), settings.worker_concurrency)
    run_command_with_daemon_option(
        args=args,
        process_name=PROCESS,
        callback=lambda: become_worker(args, settings, plan, directory),
        should_setup_logging=True,
        pid_file=args.pid,
    )


def settle_files(args: Namespace) -> None:
    """Name a daemon's files by absolute paths, as seen from where it is started.

    Airflow opens some of them before the daemon leaves that directory, and the worker the others
    after that.
    """
    from airflow.utils.cli import setup_locations

    names = setup_locations(PROCESS, args.pid, args.stdout, args.stderr, args.log_file)
    args.pid, args.stdout, args.stderr, args.log_file = map(os.path.abspath, names)


def become_worker(args: Namespace, settings: Settings, plan: Plan, directory: Path) -> None:
    """Become the worker's main process.

    Args:
        directory: where the worker was started; relative paths in the configuration, such as
            AIRFLOW_HOME, mean the same for a daemon, which Airflow has moved to /.
    """
    from airflow.configuration import conf

    from nats_worker import main

    if args.daemon:
        # It may be closed to the worker's user, who then needs absolute paths, as in any directory.
        with contextlib.suppress(OSError):
            os.chdir(directory)
    main.become(
        main.Start(
            settings=settings,
            plan=plan,
            is_verbose=args.verbose,
            is_json=conf.getboolean("logging", "json_logs", fallback=False),
            pid_file=args.pid if args.daemon else None,
            log_file=args.log_file if args.daemon else None,
        )
    )


def plan_for(args: Namespace, queues: list[str], concurrency: int) -> Plan:
    from airflow.configuration import conf
    from airflow.utils.net import get_hostname

    from nats_executor.installation import installed
    from nats_worker.state import Plan

    here = installed()
    return Plan(
        name=args.hostname or get_hostname(),
        queues=tuple(dict.fromkeys(queues)),
        concurrency=args.concurrency or concurrency,
        team=args.team_name,
        cleanup_seconds=conf.getfloat(
            "dag_processor", "stale_bundle_cleanup_interval", fallback=1800.0
        ),
        version=here.version,
        airflow=here.airflow,
        python=here.python,
        serves_logs=is_log_server_wanted(args),
        log_folder=os.path.abspath(conf.get_mandatory_value("logging", "base_log_folder")),  # noqa: PTH100 - a path of Airflow's may not be there yet
    )


def is_log_server_wanted(args: Namespace) -> bool:
    """Whether this worker serves its host's task logs over a port, beside NATS.

    A second worker on a host shares the first one's server, as it shares its log folder.
    """
    from airflow.configuration import conf

    from nats_worker.processes.log_server import is_taken

    port = conf.getint("logging", "worker_log_server_port")
    if not args.serve_logs or not is_taken(port):
        return bool(args.serve_logs)
    log.warning("[logging] worker_log_server_port %d is taken; going on without", port)
    return False
