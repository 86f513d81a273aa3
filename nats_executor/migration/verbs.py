"""Lists each command and flag of Celery, and each screen of Flower, with what takes its place."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WORKER_FLAGS"]


class Counterverb(NamedTuple):
    """One thing that people do, and how they do it here; `ours` is '' where nothing is."""

    theirs: str
    ours: str
    note: str = ""


class Flag(NamedTuple):
    """A flag of `airflow celery worker`.

    Attributes:
        names: how it can be written.
        ours: the flag of `airflow nats worker`; '' where there is none.
        takes: whether a value follows.
        is_open: whether a person has to decide what becomes of it.
    """

    names: tuple[str, ...]
    ours: str
    note: str = ""
    takes: bool = True
    is_open: bool = False


WORKER_FLAGS = (
    Flag(("-q", "--queues"), "-q", "Put a name with a comma in it in double quotes."),
    Flag(("-c", "--concurrency"), "-c"),
    Flag(("-H", "--celery-hostname"), "-H", "The name of the worker, without `celery@`."),
    Flag(("-t", "--team"), "-t"),
    Flag(("--pid",), "--pid"),
    Flag(("-D", "--daemon"), "-D", takes=False),
    Flag(("--stdout",), "--stdout"),
    Flag(("--stderr",), "--stderr"),
    Flag(("-l", "--log-file"), "-l"),
    Flag(
        ("-a", "--autoscale"),
        "-c",
        "Take the larger number. The number of slots is fixed; scale the number of workers.",
        is_open=True,
    ),
    Flag(
        ("-u", "--umask"),
        "",
        "Set it where the worker is started, as `UMask=` of systemd.",
        is_open=True,
    ),
    Flag(
        ("-s", "--skip-serve-logs"),
        "",
        "The default here. Workers open a port for logs with --serve-logs only.",
        takes=False,
    ),
    Flag(("--without-mingle",), "", "Workers do not talk to each other.", takes=False),
    Flag(("--without-gossip",), "", "Workers do not talk to each other.", takes=False),
    Flag(("-v", "--verbose"), "-v", takes=False),
)

COMMANDS = (
    Counterverb("airflow celery worker", "airflow nats worker", "The flags are in the next table."),
    Counterverb(
        "airflow celery stop",
        "airflow nats workers stop",
        "Name the worker, from anywhere; or send SIGTERM, as `systemctl stop` does.",
    ),
    Counterverb("airflow celery list-workers", "airflow nats workers list"),
    Counterverb("airflow celery shutdown-worker", "airflow nats workers stop"),
    Counterverb("airflow celery shutdown-all-workers", "airflow nats workers stop --all"),
    Counterverb("airflow celery add-queue", "airflow nats workers add-queue"),
    Counterverb("airflow celery remove-queue", "airflow nats workers remove-queue"),
    Counterverb(
        "airflow celery remove-all-queues",
        "airflow nats workers drain",
        "`airflow nats workers undrain` ends it. A drain outlasts a restart.",
    ),
    Counterverb("airflow celery flower", "airflow nats top", "Or the page in Airflow's UI."),
)

INSPECTIONS = (
    Counterverb("celery status, inspect ping", "airflow nats workers ping"),
    Counterverb("inspect active", "airflow nats workers show", "It lists the tasks of one worker."),
    Counterverb(
        "inspect reserved",
        "airflow nats queues peek",
        "Workers reserve nothing: all that waits is in NATS.",
    ),
    Counterverb("inspect active_queues", "airflow nats workers list", "The column `queues`."),
    Counterverb("inspect stats, conf, report", "airflow nats doctor", "--bundle writes a file."),
    Counterverb("inspect scheduled, registered, clock, query_task", "", "Nothing to look at."),
    Counterverb("inspect revoked, control revoke", "airflow nats tasks cancel"),
    Counterverb("control pool_grow, pool_shrink", "airflow nats workers set-concurrency"),
    Counterverb("control autoscale", "", "Slots are fixed; the number of workers changes."),
    Counterverb("control add_consumer", "airflow nats workers add-queue"),
    Counterverb("control cancel_consumer", "airflow nats workers remove-queue"),
    Counterverb(
        "control rate_limit",
        "",
        "[nats_executor] queue_limits limits how many tasks of a queue run at a time.",
    ),
    Counterverb("control time_limit", "", "Use `execution_timeout` of the task."),
    Counterverb("control shutdown", "airflow nats workers stop"),
    Counterverb("control pool_restart", "airflow nats workers stop", "Its platform restarts it."),
    Counterverb("control enable_events", "", "Events are always there."),
    Counterverb("celery purge", "airflow nats queues purge"),
    Counterverb("celery events", "airflow nats top"),
    Counterverb("redis-cli LLEN, rabbitmqctl list_queues", "airflow nats queues list"),
)

SCREENS = (
    Counterverb("Workers", "airflow nats workers list", "The page has a tab for them."),
    Counterverb("Worker: pool, broker, system", "airflow nats workers show"),
    Counterverb("Worker: grow, shrink", "airflow nats workers set-concurrency"),
    Counterverb("Worker: queues, add, cancel", "airflow nats workers add-queue"),
    Counterverb("Worker: shut down", "airflow nats workers stop"),
    Counterverb(
        "Tasks",
        "airflow nats queues peek",
        "The page lists the next ones of a queue. Ended tasks are in Airflow's own UI.",
    ),
    Counterverb(
        "Task: its state and its arguments", "airflow nats why", "It says why a task still waits."
    ),
    Counterverb("Task: revoke, terminate", "airflow nats tasks cancel"),
    Counterverb("Task: rate limit, time limit", "", "See `control` above."),
    Counterverb("Broker", "airflow nats queues list"),
    Counterverb("/metrics", "", "[nats_executor] health_port: docs/how-to/observability.md."),
    Counterverb("HTTP API", "", "Each list has `-o json`."),
)
