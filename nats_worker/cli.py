"""Starts a worker, as `airflow nats worker` or `nats-worker`."""

from __future__ import annotations

import argparse
import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.settings import Settings
    from nats_worker.worker import Plan

__all__ = ["main", "start"]

log = logging.getLogger(__name__)

# Of a daemon's pid and log files.
PROCESS = "nats-worker"


def main() -> None:
    """Run `nats-worker`, which takes the arguments of `airflow nats worker`."""
    from nats_executor.cli import WORKER_ARGS, WORKER_EPILOG
    from nats_executor.commands import worker

    parser = argparse.ArgumentParser(
        prog="nats-worker",
        description="Start a worker of the NATS executor.",
        epilog=WORKER_EPILOG.replace("airflow nats worker", "nats-worker"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for arg in WORKER_ARGS:
        arg.add_to_parser(parser)
    worker(parser.parse_args())


def start(args: Namespace) -> None:
    """Run a worker in this process, or in the background with --daemon, until it is stopped."""
    from airflow.cli.commands.daemon_utils import run_command_with_daemon_option

    from nats_executor.commands import queue_names, settings_for

    # Read here, so that a bad value is told on the terminal and not in a daemon's log.
    settings = settings_for(args)
    plan = plan_for(args, queue_names(args), settings.worker_concurrency)
    run_command_with_daemon_option(
        args=args,
        process_name=PROCESS,
        callback=lambda: run(args, settings, plan),
        should_setup_logging=True,
        pid_file=args.pid,
    )


def run(args: Namespace, settings: Settings, plan: Plan) -> None:
    """Become the worker's main process."""
    from airflow.configuration import conf
    from airflow.utils.cli import setup_locations

    from nats_worker import main

    pid_file = log_file = None
    if args.daemon:
        pid_file, _, _, log_file = setup_locations(PROCESS, args.pid, log=args.log_file)
    main.become(
        main.Start(
            settings=settings,
            plan=plan,
            is_verbose=args.verbose,
            is_json=conf.getboolean("logging", "json_logs", fallback=False),
            pid_file=pid_file,
            log_file=log_file,
        )
    )


def plan_for(args: Namespace, queues: list[str], concurrency: int) -> Plan:
    from airflow.configuration import conf
    from airflow.utils.net import get_hostname

    from nats_worker.worker import Plan

    return Plan(
        name=args.hostname or get_hostname(),
        queues=tuple(dict.fromkeys(queues)),
        concurrency=args.concurrency or concurrency,
        team=args.team_name,
        cleanup_seconds=conf.getfloat(
            "dag_processor", "stale_bundle_cleanup_interval", fallback=1800.0
        ),
        version=version("airflow-nats-executor"),
        serves_logs=is_log_server_wanted(args),
        log_folder=os.path.abspath(conf.get_mandatory_value("logging", "base_log_folder")),  # noqa: PTH100 - a path of Airflow's may not be there yet
    )


def is_log_server_wanted(args: Namespace) -> bool:
    """Whether this worker serves its host's task logs to the UI.

    A second worker on a host shares the first one's server, as it shares its log folder.
    """
    from airflow.configuration import conf

    from nats_worker.log_server import is_taken

    port = conf.getint("logging", "worker_log_server_port")
    if args.skip_serve_logs or not is_taken(port):
        return not args.skip_serve_logs
    log.warning("[logging] worker_log_server_port %d is taken; going on without", port)
    return False
