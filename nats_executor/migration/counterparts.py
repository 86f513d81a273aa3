"""Lists each option of Celery's executor with what takes its place here.

`airflow nats migrate check` reads these rows, and `make docs` writes them into the page for teams
that come from Celery.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["COUNTERPARTS", "Change", "counterpart_of"]

# Every option of a section that has no row of its own.
ANY = "*"
# Flower's default; nothing is bound to it here.
FLOWER_HOST = "0.0.0.0"  # noqa: S104


class Change(StrEnum):
    """The step that a team takes for one thing."""

    SAME = "same"
    SET = "set"
    DROP = "drop"
    DECIDE = "decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterpart:
    """One option, and what takes its place.

    Attributes:
        ours: an option or a command, with `{value}` where the value is carried over.
        note: why, or what to do.
        harmless: values, in lower case, with which there is nothing to do.
        is_secret: whether the value is never shown.
    """

    section: str
    option: str
    change: Change
    ours: str = ""
    note: str
    harmless: tuple[str, ...] = ()
    is_secret: bool = False


def same(section: str, option: str, note: str) -> Counterpart:
    return Counterpart(
        section=section, option=option, change=Change.SAME, ours=f"[{section}] {option}", note=note
    )


def celery(
    option: str,
    change: Change,
    note: str,
    *,
    ours: str = "",
    harmless: tuple[str, ...] = (),
    is_secret: bool = False,
) -> Counterpart:
    return Counterpart(
        section="celery",
        option=option,
        change=change,
        ours=f"[nats_executor] {ours}" if ours else "",
        note=note,
        harmless=harmless,
        is_secret=is_secret,
    )


COUNTERPARTS = (
    celery(
        "broker_url",
        Change.SET,
        "Give NATS a user and a password of its own. Redis or RabbitMQ can go once Celery has "
        "nothing left.",
        ours="servers",
        is_secret=True,
    ),
    celery(
        "result_backend",
        Change.DROP,
        "Workers report over NATS. No task writes a result into the database.",
        is_secret=True,
    ),
    celery(
        "result_backend_sqlalchemy_engine_options",
        Change.DROP,
        "There is no result backend.",
        is_secret=True,
        harmless=("",),
    ),
    celery(
        "worker_concurrency",
        Change.SET,
        "The slots of a worker. You can change them while it runs: "
        "`airflow nats workers set-concurrency`.",
        ours="worker_concurrency = {value}",
        harmless=("16",),
    ),
    celery(
        "worker_autoscale",
        Change.DECIDE,
        "A worker has a fixed number of slots. Take the larger number, and let KEDA or your "
        "platform change the number of workers. Set [nats_executor] memory_high_percent if memory "
        "was the reason.",
        ours="worker_concurrency",
    ),
    celery(
        "worker_prefetch_multiplier",
        Change.DROP,
        "A worker takes a task when it has a free slot, and holds none in advance. No task waits "
        "behind a long one while another worker is idle.",
        harmless=("1",),
    ),
    celery(
        "worker_enable_remote_control",
        Change.DROP,
        "Workers always listen for orders.",
        harmless=("true",),
    ),
    celery(
        "worker_umask",
        Change.DECIDE,
        "A worker keeps the umask that it is started with. Set it there, as `UMask=` of systemd.",
    ),
    celery(
        "celery_app_name",
        Change.DROP,
        "There is no Celery app.",
        harmless=(
            "airflow.executors.celery_executor",
            "airflow.providers.celery.executors.celery_executor",
        ),
    ),
    celery("mp_start_method", Change.DROP, "A worker has a fork server of its own."),
    celery("mp_forkserver_preload", Change.DROP, "A worker's fork server loads what tasks need."),
    celery(
        "json_logs",
        Change.DECIDE,
        "A worker follows [logging] json_logs. Set that in the worker's environment.",
    ),
    celery(
        "task_logs_to_stdout",
        Change.DECIDE,
        "A worker does not print its tasks' logs. Store them in NATS or with other remote logging.",
        harmless=("false",),
    ),
    celery(
        "flower_host", Change.DROP, "The page is part of Airflow's UI.", harmless=(FLOWER_HOST,)
    ),
    celery("flower_port", Change.DROP, "The page is part of Airflow's UI.", harmless=("5555",)),
    celery("flower_url_prefix", Change.DROP, "The page is part of Airflow's UI.", harmless=("",)),
    celery(
        "flower_basic_auth",
        Change.DROP,
        "Airflow's own logins and permissions hold for the page.",
        is_secret=True,
        harmless=("",),
    ),
    celery(
        "sync_parallelism",
        Change.DROP,
        "The scheduler starts no processes to send tasks or to ask for their states.",
        harmless=("0",),
    ),
    celery(
        "celery_config_options",
        Change.DECIDE,
        "Look through the module that it names. Its routes and limits have no effect here.",
        harmless=("airflow.providers.celery.executors.default_celery.default_celery_config",),
    ),
    celery(
        "extra_celery_config",
        Change.DECIDE,
        "Look through it. For `worker_max_tasks_per_child` there is [nats_executor] "
        "workloads_per_supervisor; each task has a process of its own in any case.",
        harmless=("{}", "{{}}", ""),
        is_secret=True,
    ),
    celery(
        "ssl_active",
        Change.SET,
        "Write tls:// in front of each address.",
        ours="servers",
        harmless=("false",),
    ),
    celery(
        "ssl_mutual_tls",
        Change.DROP,
        "A client certificate is used where one is set.",
        harmless=("true",),
    ),
    celery(
        "ssl_key",
        Change.SET,
        "Use the key of a certificate that the NATS servers accept.",
        ours="tls_key_file",
        harmless=("",),
    ),
    celery(
        "ssl_cert",
        Change.SET,
        "Use a certificate that the NATS servers accept.",
        ours="tls_certificate_file",
        harmless=("",),
    ),
    celery(
        "ssl_cacert",
        Change.SET,
        "Use the CA of the NATS servers' certificates.",
        ours="tls_ca_file",
        harmless=("",),
    ),
    celery(
        "pool",
        Change.DECIDE,
        "Each task has a process of its own, as with `prefork`. With eventlet or gevent you may "
        "need fewer slots than now.",
        harmless=("prefork",),
    ),
    celery(
        "operation_timeout",
        Change.DROP,
        "[nats_executor] publish_timeout_seconds holds for a whole batch of tasks.",
        harmless=("1.0",),
    ),
    celery(
        "task_acks_late",
        Change.DROP,
        "A worker keeps a task by a lease and acknowledges it when it has ended.",
        harmless=("true",),
    ),
    celery("task_track_started", Change.DROP, "Workers report each start.", harmless=("true",)),
    celery(
        "worker_precheck",
        Change.DROP,
        "A worker tries a start before it takes tasks.",
        harmless=("false",),
    ),
    celery(
        "task_publish_max_retries",
        Change.DROP,
        "While NATS does not answer, tasks stay queued, and the scheduler tries again.",
        harmless=("3",),
    ),
    Counterpart(
        section="celery_broker_transport_options",
        option="visibility_timeout",
        change=Change.DROP,
        note="No task is too long. A worker renews its lease three times in [nats_executor] "
        "ack_wait_seconds; only a task whose worker is gone is given to another one.",
    ),
    Counterpart(
        section="celery_broker_transport_options",
        option=ANY,
        change=Change.DROP,
        note="They are about another broker. Name all NATS servers in [nats_executor] servers.",
        is_secret=True,
    ),
    Counterpart(
        section="celery_result_backend_transport_options",
        option=ANY,
        change=Change.DROP,
        note="There is no result backend.",
        is_secret=True,
    ),
    Counterpart(
        section="celery_kubernetes_executor",
        option="kubernetes_queue",
        change=Change.DECIDE,
        note="A queue chooses no executor. Add KubernetesExecutor to [core] executor, and name it "
        "in these tasks by executor=.",
        harmless=("kubernetes",),
    ),
    same("operators", "default_queue", "Tasks that name no queue go there."),
    same("core", "parallelism", "The limit holds for each executor of each scheduler."),
    same("core", "multi_team", "Each team has its own streams: docs/how-to/add-a-queue.md."),
    Counterpart(
        section="logging",
        option="remote_logging",
        change=Change.DECIDE,
        ours="[logging] remote_base_log_folder = nats://",
        note="Workers open no port for logs of ended tasks. Store them in NATS, or start workers "
        "with --serve-logs: docs/how-to/logs.md.",
        harmless=("true",),
    ),
    same("logging", "remote_base_log_folder", "Workers upload logs there, too."),
    same("logging", "worker_log_server_port", "It is used by workers with --serve-logs only."),
    same(
        "scheduler",
        "task_queued_timeout",
        "A task that waits its turn is not failed by it; one that is stuck is sent again.",
    ),
    same("sentry", "sentry_on", "Tasks report to Sentry from NATS workers, too."),
)


def counterpart_of(section: str, option: str) -> Counterpart | None:
    """Return the row of an option, that of its whole section, or None if no row is about it."""
    by_place = {(row.section, row.option): row for row in COUNTERPARTS}
    return by_place.get((section, option)) or by_place.get((section, ANY))
