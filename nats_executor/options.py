"""Lists the options of `[nats_executor]`, for Airflow's metadata, the docs and the parser."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOG_SCHEME", "OPTIONS", "SECTION", "Option"]

SECTION = "nats_executor"
# Of Airflow's `[logging] remote_base_log_folder`, for logs that are kept in NATS.
LOG_SCHEME = "nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, in the terms of Airflow's provider metadata (`provider_info.schema.json`).

    Attributes:
        form: what a string holds, where that is not text; Airflow knows nothing of it.
        is_login: whether it is a part of the login, which no task may find.
    """

    name: str
    type: str
    default: str | None
    example: str
    description: str
    sensitive: bool = False
    is_login: bool = False
    form: str = ""
    version_added: str = "0.1.0"


OPTIONS: tuple[Option, ...] = (
    # Where the broker is and who we are
    Option(
        name="servers",
        type="string",
        default="nats://127.0.0.1:4222",
        example="nats://nats-1:4222,nats://nats-2:4222",
        description="Addresses of the NATS servers, separated by commas. Schemes: nats, tls, ws, "
        "wss. Put passwords into the options below, not into an address.",
    ),
    Option(
        name="user",
        type="string",
        default=None,
        example="worker_gpu",
        description="User name, together with `password`.",
        is_login=True,
    ),
    Option(
        name="password",
        type="string",
        default=None,
        example="set by password_cmd or password_secret",
        description="Password of `user`.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="token",
        type="string",
        default=None,
        example="set by token_cmd or token_secret",
        description="Authentication token, for servers that use one instead of users.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="nkey_seed",
        type="string",
        default=None,
        example="set by nkey_seed_cmd or nkey_seed_secret",
        description="Seed of an NKey, or the path of a file that holds one.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="credentials_file",
        type="string",
        default=None,
        example="/etc/nats/worker.creds",
        description="Path of a NATS credentials file (JWT and seed).",
        is_login=True,
    ),
    Option(
        name="tls_ca_file",
        type="string",
        default=None,
        example="/etc/nats/ca.pem",
        description="CA certificate that signs the servers' certificates. "
        "Without it the system's CAs are trusted.",
    ),
    Option(
        name="tls_certificate_file",
        type="string",
        default=None,
        example="/etc/nats/client.pem",
        description="Client certificate for mutual TLS, together with `tls_key_file`.",
        is_login=True,
    ),
    Option(
        name="tls_key_file",
        type="string",
        default=None,
        example="/etc/nats/client-key.pem",
        description="Private key of `tls_certificate_file`.",
        is_login=True,
    ),
    Option(
        name="tls_handshake_first",
        type="boolean",
        default="False",
        example="True",
        description="Start TLS before the server's greeting, for servers with `handshake_first`.",
    ),
    Option(
        name="inbox_prefix",
        type="string",
        default=None,
        example="_INBOX_worker_gpu",
        description="Prefix of the subjects on which answers arrive. Every NATS user needs one of "
        "its own, or it could read the answers, and so the task tokens, of others. The default is "
        "`_INBOX_` and `user`; set it where the login has no user name (then `_INBOX_airflow`).",
    ),
    Option(
        name="connect_timeout_seconds",
        type="float",
        default="5",
        example="10",
        description="Seconds that one attempt to connect may take, and that a start waits for the "
        "broker before it goes on without it. Reconnecting never gives up.",
    ),
    # How streams are named and kept
    Option(
        name="subject_prefix",
        type="string",
        default="airflow",
        example="airflow-prod",
        description="First token of every subject and, in capitals, of every stream. Lower-case "
        "letters, digits, `-` and `_`. A team without one gets this prefix, `-` and its own name.",
    ),
    Option(
        name="jetstream_domain",
        type="string",
        default=None,
        example="hub",
        description="JetStream domain of the streams, for processes that reach them through a leaf "
        "node (`docs/how-to/far-workers.md`); `lent` for workers with NATS accounts of their own "
        "(`docs/explanation/security.md`).",
    ),
    Option(
        name="replicas",
        type="integer",
        default="1",
        example="3",
        description="Copies of each stream in a NATS cluster: 1, 3 or 5. Use 3 in production.",
    ),
    Option(
        name="storage",
        type="string",
        default="file",
        example="memory",
        description="Where the server keeps the streams: file or memory. With memory a restart of "
        "the server loses queued tasks until the scheduler's own timeout sends them again.",
    ),
    Option(
        name="max_stream_bytes",
        type="integer",
        default="536870912",
        example="2147483648",
        description="Limit of the task stream in bytes, -1 for none. The server sets so much aside "
        "on each replica. A full stream refuses new tasks, which then wait in the scheduler. The "
        "default holds about 300,000 queued tasks of 1.6 KB (`docs/explanation/security.md`).",
    ),
    Option(
        name="max_results_bytes",
        type="integer",
        default="536870912",
        example="2147483648",
        description="Limit of the stream of reports in bytes, at least 1048576. The server sets so "
        "much aside on each replica. A full stream drops its oldest reports, so let it hold those "
        "of `result_retention_seconds`: the default holds about 900,000 workloads.",
    ),
    Option(
        name="max_dead_letters_bytes",
        type="integer",
        default="134217728",
        example="1073741824",
        description="Limit of the stream of dead letters in bytes, at least 16777216. The server "
        "sets so much aside on each replica. A full stream drops its oldest letters.",
    ),
    Option(
        name="result_retention_seconds",
        type="integer",
        default="86400",
        example="604800",
        description="Seconds that the last report of each workload stays readable, for schedulers "
        "that take over. Set it longer than any outage of all schedulers that you plan for.",
    ),
    Option(
        name="dead_letter_retention_seconds",
        type="integer",
        default="604800",
        example="86400",
        description="Seconds that dead letters, which no worker could handle, stay readable.",
    ),
    Option(
        name="log_retention_seconds",
        type="integer",
        default="2592000",
        example="604800",
        description="Seconds that a stored task log stays readable, counted from its upload. Used "
        "where `[logging] remote_base_log_folder` is `nats://`. See `docs/how-to/logs.md`.",
    ),
    Option(
        name="max_log_bucket_bytes",
        type="integer",
        default="1073741824",
        example="10737418240",
        description="Limit of all stored task logs in bytes, which the server sets aside for them "
        "on each replica. Full, the bucket drops its oldest logs; workloads have streams of "
        "their own and are not touched.",
    ),
    # Delivery
    Option(
        name="publish_timeout_seconds",
        type="float",
        default="5",
        example="2",
        description="Seconds that one batch of workloads may take to reach the broker. After that "
        "the scheduler's loop goes on and the workloads stay queued for a later attempt.",
    ),
    Option(
        name="ack_wait_seconds",
        type="float",
        default="30",
        example="60",
        description="The broker offers a workload to other workers when its worker has not renewed "
        "it for this many seconds. Workers renew it three times in this time, so a task may run "
        "for days.",
    ),
    Option(
        name="sweep_seconds",
        type="float",
        default="30",
        example="60",
        description="Seconds between two looks of the executor at the last report of every "
        "outstanding workload. A look finds the reports that the executor has missed.",
    ),
    Option(
        name="explain_after_seconds",
        type="float",
        default="60",
        example="300",
        description="Seconds after which the audit log tells what a queued task waits for. 0: off.",
    ),
    Option(
        name="max_attempts",
        type="integer",
        default="5",
        example="3",
        description="How often one workload may be claimed. If every worker that took it died or "
        "gave it back before it started, it becomes a dead letter after so many claims.",
    ),
    # Who goes first
    Option(
        name="priority_bands",
        type="string",
        form="integers",
        default="10,100",
        example="50",
        description="Thresholds of `priority_weight`, in ascending order, that divide each queue "
        "into bands: a workload at or above a threshold overtakes what waits in lower bands, "
        "except that one slot in eight goes to a lower band. Schedulers and workers need the same "
        "value. Change it only while the queues are empty. `none`: one band, in order of arrival.",
    ),
    Option(
        name="queue_limits",
        type="string",
        form="limits",
        default=None,
        example="gpu=4,warehouse=10",
        description="Workloads of a queue that all workers together run at a time, for queues that "
        "stand for something scarce. Such a queue has one priority band. Changed by `airflow nats "
        'setup`. A name with a comma or outer spaces stands in double quotes: `"a,b"=4,gpu=2`.',
    ),
    # Workers
    Option(
        name="worker_concurrency",
        type="integer",
        default="16",
        example="32",
        description="Workloads that one worker runs at a time, unless its command line says "
        "otherwise.",
    ),
    Option(
        name="pool_slots_as_weight",
        type="boolean",
        default="False",
        example="True",
        description="Let a task take as many of a worker's slots as its `pool_slots`, at most all. "
        "A worker that has too few free slots for a task keeps it and takes nothing else until "
        "there are enough.",
    ),
    Option(
        name="workloads_per_supervisor",
        type="integer",
        default="50",
        example="1",
        description="Workloads that one supervisor process runs at most, one after the other, "
        "before a new one takes its place. Each task has a process of its own in any case. 1: a "
        "new supervisor for each workload, which takes a quarter more CPU time for short tasks.",
    ),
    Option(
        name="memory_high_percent",
        type="float",
        default="90",
        example="80",
        description="Percentage of the memory of the machine, or of the worker's cgroup. While "
        "more is in use, a worker takes no more workloads, and those that run go on. It resumes 5 "
        "percentage points below. Caches that the kernel can drop do not count. 0: no limit.",
    ),
    Option(
        name="memory_pressure_percent",
        type="float",
        default="0",
        example="20",
        description="Percentage of the last ten seconds in which a process waited for memory, by "
        "the kernel's pressure stall information (`some avg10`). Above it a worker pauses in the "
        "same way. 0: no limit.",
    ),
    Option(
        name="heartbeat_seconds",
        type="float",
        default="5",
        example="2",
        description="Seconds between two presence records of a worker.",
    ),
    Option(
        name="worker_lost_seconds",
        type="float",
        default="15",
        example="6",
        description="A worker counts as lost when it does not answer and its presence record is "
        "older than this many seconds. At least twice `heartbeat_seconds`.",
    ),
    Option(
        name="worker_forgotten_seconds",
        type="float",
        default="300",
        example="3600",
        description="Seconds for which `airflow nats check` names a worker that is lost; "
        "`airflow nats workers list` shows it for an hour. A queue that waits for a worker "
        "remains a finding.",
    ),
    Option(
        name="start_timeout_seconds",
        type="float",
        default="120",
        example="300",
        description="Seconds that a worker may take to start a workload, until it asks Airflow's "
        "API server to accept the start. A start that takes longer hangs, on a log folder or a "
        "name server, for example. The worker then logs where it hangs, ends it and hands the "
        "workload back. The wait for the API server's answer does not count.",
    ),
    Option(
        name="drain_seconds",
        type="float",
        default="540",
        example="3600",
        description="Seconds that running tasks may go on after a worker was told to stop. Then "
        "their processes get SIGTERM. Keep a container's grace period above "
        "`drain_seconds` + `kill_seconds`.",
    ),
    Option(
        name="kill_seconds",
        type="float",
        default="30",
        example="60",
        description="Seconds between SIGTERM and SIGKILL for tasks that outlast `drain_seconds`.",
    ),
    Option(
        name="health_port",
        type="integer",
        default="0",
        example="8080",
        description="Port on which a worker answers `/livez`, `/readyz` and `/metrics`. 0: "
        "none, as workers of one host cannot share a port. See `docs/how-to/observability.md`.",
    ),
    Option(
        name="health_address",
        type="string",
        default="0.0.0.0",  # noqa: S104 - probes come from outside of a container
        example="127.0.0.1",
        description="IP address of the machine on which a worker listens at `health_port`, "
        "`0.0.0.0` for every IPv4 and `::` for every address.",
    ),
)
