"""Starts a worker, as `airflow nats worker` or `nats-worker`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from nats_executor.errors import NatsExecutorError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from nats_executor.settings import Settings
    from nats_worker.worker import Plan

__all__ = ["main", "start"]

log = logging.getLogger(__name__)

# The log server dies with the worker, also when that is killed.
LOG_SERVER = """\
import sys
from nats_worker.processes import die_with
die_with(int(sys.argv[1]))
from airflow.utils.serve_logs import serve_logs
serve_logs()
"""
LOG_SERVER_SECONDS = 5.0


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
        process_name="nats-worker",
        callback=lambda: run(args, settings, plan),
        should_setup_logging=True,
        pid_file=args.pid,
    )


def run(args: Namespace, settings: Settings, plan: Plan) -> None:
    """Run a worker; a reason that ends it is one line on stderr and exit code 1."""
    from nats_worker.pool import PoolBroken
    from nats_worker.worker import Worker

    if not args.daemon:
        level = logging.DEBUG if args.verbose else logging.INFO
        for package in ("nats_executor", "nats_worker"):
            logging.getLogger(package).setLevel(level)
    try:
        with log_server(skip=args.skip_serve_logs):
            asyncio.run(Worker(settings, plan).run())
    except* (NatsExecutorError, PoolBroken) as group:
        for exc in leaves(group):
            sys.stderr.write(f"error: {exc}\n")
        raise SystemExit(1) from None


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc


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
    )


@contextlib.contextmanager
def log_server(*, skip: bool) -> Iterator[None]:
    """Serve this host's task logs to the UI while the worker runs, by Airflow's own log server.

    A second worker on a host shares the first one's server, as it shares its log folder.
    """
    from airflow.configuration import conf

    port = conf.getint("logging", "worker_log_server_port")
    if skip or is_taken(port):
        if not skip:
            log.warning("[logging] worker_log_server_port %d is taken; going on without", port)
        yield
        return
    command = [sys.executable, "-P", "-c", LOG_SERVER, str(os.getpid())]
    server = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - all our own
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(LOG_SERVER_SECONDS)
        except subprocess.TimeoutExpired:  # somebody reads a log without an end
            server.kill()
            server.wait()


def is_taken(port: int) -> bool:
    """Whether something listens on a port of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
