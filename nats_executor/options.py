"""Lists the options of `[nats_executor]`, for Airflow's metadata, the docs and the parser."""

from __future__ import annotations

from nats_executor.option import Option

__all__ = ["LOG_SCHEME", "OPTIONS", "SECTION"]

SECTION = "nats_executor"
# Of Airflow's `[logging] remote_base_log_folder`, for logs that are kept in NATS.
LOG_SCHEME = "nats"

OPTIONS: tuple[Option, ...] = (
    # Where the broker is and who we are
    Option(
        name="servers",
        type="string",
        default="nats://127.0.0.1:4222",
        example="nats://nats-1:4222,nats://nats-2:4222",
        description="Addresses of the NATS servers, separated by commas. Schemes: nats, tls, ws, "
        "wss. Do not put a password into an address: use the options below.",
    ),
    Option(
        name="user",
        type="string",
        example="worker_gpu",
        description="User name for NATS. Set `password`, too.",
        is_login=True,
    ),
    Option(
        name="password",
        type="string",
        example="set by password_cmd or password_secret",
        description="Password of `user`.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="token",
        type="string",
        example="set by token_cmd or token_secret",
        description="Authentication token, for servers that ask for one instead of users.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="nkey_seed",
        type="string",
        example="set by nkey_seed_cmd or nkey_seed_secret",
        description="Seed of an NKey, or the path of a file that holds one.",
        sensitive=True,
        is_login=True,
    ),
    Option(
        name="credentials_file",
        type="string",
        example="/etc/nats/worker.creds",
        description="Path of a NATS credentials file (JWT and seed), read at each connection.",
        is_login=True,
    ),
    Option(
        name="tls_ca_file",
        type="string",
        example="/etc/nats/ca.pem",
        description="CA certificate of the servers. The default is the system's CAs.",
    ),
    Option(
        name="tls_certificate_file",
        type="string",
        example="/etc/nats/client.pem",
        description="Path of the client certificate for mutual TLS. Set `tls_key_file`, too.",
        is_login=True,
    ),
    Option(
        name="tls_key_file",
        type="string",
        example="/etc/nats/client-key.pem",
        description="Path of the private key of `tls_certificate_file`.",
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
        example="_INBOX_worker_gpu",
        description="Prefix of the subjects where answers arrive. Give each NATS user one of its "
        "own: users with the same prefix can read each other's answers and task tokens. The "
        "default is `_INBOX_` and `user`, or `_INBOX_airflow` for a login without a user name.",
    ),
    Option(
        name="connect_timeout_seconds",
        type="float",
        default="5",
        example="10",
        description="Seconds that one attempt to connect may take. A starting process also waits "
        "this long for the broker, then goes on without it. It never stops trying to reconnect.",
    ),
    # How streams are named and kept
    Option(
        name="subject_prefix",
        type="string",
        default="airflow",
        example="airflow-prod",
        description="First token of every subject and, in capitals, of every stream. Use "
        "lower-case letters, digits, `-` and `_`. A team without one gets this prefix, `-` and "
        "its own name. Each Airflow on the same NATS servers needs its own.",
    ),
    Option(
        name="jetstream_domain",
        type="string",
        example="hub",
        description="JetStream domain of the streams. Set it for processes behind a leaf node "
        "(`docs/how-to/far-workers.md`). Workers with NATS accounts of their own need `lent` "
        "(`docs/explanation/security.md`).",
    ),
    Option(
        name="replicas",
        type="integer",
        default="1",
        example="3",
        description="Number of copies of each stream: 1, 3 or 5. One server needs 1, production 3.",
    ),
    Option(
        name="storage",
        type="string",
        default="file",
        example="memory",
        description="Place where the server keeps the streams: `file` or `memory`. With `memory`, "
        "a restart of the server loses the queued tasks. The scheduler then sends them again.",
    ),
    Option(
        name="max_stream_bytes",
        type="integer",
        default="536870912",
        example="2147483648",
        description="Largest size of the task stream in bytes; -1 means no limit. The server "
        "reserves this size on each replica. A full stream refuses new tasks, which then wait in "
        "the scheduler. The default holds about 300,000 queued tasks of 1.6 KB "
        "(`docs/explanation/security.md`).",
    ),
    Option(
        name="max_results_bytes",
        type="integer",
        default="536870912",
        example="2147483648",
        description="Largest size of the stream of reports in bytes, at least 1048576. The server "
        "reserves this size on each replica. A full stream drops its oldest reports. Let it hold "
        "those of `result_retention_seconds`: the default is enough for 900,000 workloads.",
    ),
    Option(
        name="max_dead_letters_bytes",
        type="integer",
        default="134217728",
        example="1073741824",
        description="Largest size of the stream of dead letters in bytes, at least 16777216. The "
        "server reserves this size on each replica. A full stream drops its oldest letters.",
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
        "if `[logging] remote_base_log_folder` is `nats://` (`docs/how-to/logs.md`).",
    ),
    Option(
        name="max_log_bucket_bytes",
        type="integer",
        default="1073741824",
        example="10737418240",
        description="Largest size of all stored task logs in bytes. The server reserves this size "
        "on each replica. A full bucket drops its oldest logs, and no workloads.",
    ),
    # Delivery
    Option(
        name="publish_timeout_seconds",
        type="float",
        default="5",
        example="2",
        description="Seconds that one batch of workloads may take to reach the broker. After "
        "that, the scheduler's loop goes on and sends the rest later.",
    ),
    Option(
        name="ack_wait_seconds",
        type="float",
        default="30",
        example="60",
        description="Seconds after which the broker offers a workload to other workers, if its "
        "own worker has not renewed it. Workers renew it three times in this time, so a task may "
        "run for days. Long tasks and long cuts of the network need no other value.",
    ),
    Option(
        name="sweep_seconds",
        type="float",
        default="30",
        example="60",
        description="Seconds between two sweeps of the executor. A sweep reads the last report of "
        "each workload that has not ended, and so finds reports that the executor has missed.",
    ),
    Option(
        name="explain_after_seconds",
        type="float",
        default="60",
        example="300",
        description="Seconds until Airflow's audit log tells why a task waits. 0: off.",
    ),
    Option(
        name="max_attempts",
        type="integer",
        default="5",
        example="3",
        description="Number of times that workers may claim one workload. If each of them dies or "
        "gives it back before it starts, it becomes a dead letter.",
    ),
    # Who goes first
    Option(
        name="priority_bands",
        type="string",
        form="integers",
        default="10,100",
        example="50",
        description="Thresholds of `priority_weight`, in ascending order. They divide each queue "
        "into bands; a weight equal to a threshold belongs to the higher band. Workers take a "
        "higher band first, but give one slot in eight to a lower band. `none`: one band, in "
        "order of arrival. Schedulers and workers need the same value. Change it only while the "
        "queues are empty.",
    ),
    Option(
        name="queue_limits",
        type="string",
        form="limits",
        example="gpu=4,warehouse=10",
        description="Number of workloads of a queue that all workers together run at a time. Use "
        "it for something scarce. Such a queue has one priority band. Run `airflow nats setup` "
        'after a change. Put a name with a comma or outer spaces in quotes: `"a,b"=4,gpu=2`.',
    ),
    # Workers
    Option(
        name="worker_concurrency",
        type="integer",
        default="16",
        example="32",
        description="Number of workloads that one worker runs at a time. `-c` overrides it.",
    ),
    Option(
        name="starts_at_once",
        type="string",
        default="1000",
        example="auto",
        form="auto",
        description="Number of workloads that a worker starts at a time, whatever slots are free. "
        "A start ends when the API server accepts it. Until then the next workload waits in NATS, "
        "for any worker. The default is above any number of slots. `auto`: one for each "
        "processor, and more while processors are idle.",
    ),
    Option(
        name="pool_slots_as_weight",
        type="boolean",
        default="False",
        example="True",
        description="Let a task take as many of a worker's slots as its `pool_slots`, but at most "
        "all. If too few are free, the worker keeps the task and takes nothing else until then.",
    ),
    Option(
        name="workloads_per_supervisor",
        type="integer",
        default="50",
        example="1",
        description="Number of workloads that one supervisor process runs, one after the other, "
        "before a new one takes its place. Each task has a process of its own in any case. 1 "
        "means a new one for each workload: a quarter more CPU time for short tasks.",
    ),
    Option(
        name="dag_zygotes",
        type="string",
        default="off",
        example="auto",
        description="Start tasks from a process that has already parsed their Dag file, a zygote: "
        "`off`, `auto` or `on`. With `auto` a worker does so for a file whose parse it has watched "
        "and found to do nothing but make Dags. `on` also takes files that read the clock. A "
        "zygote is built at the second task of a file within five minutes.",
    ),
    Option(
        name="preload_modules",
        type="string",
        default=None,
        example="pandas,company.sdk,numpy!",
        form="modules",
        description="Modules that a worker imports once for all its tasks, by commas. Name "
        "installed packages that many Dags import, no Dag. Each is tried in a process of its own "
        "first. One that starts a thread or process is left to the tasks: forks have none of "
        "that. `!` behind its name imports it all the same.",
    ),
    Option(
        name="memory_high_percent",
        type="float",
        default="90",
        example="80",
        description="Percentage of the memory of the machine, or of the worker's cgroup. While "
        "more is in use, the worker takes no new workloads; running tasks go on. It resumes 5 "
        "percentage points below. Caches that the kernel can drop do not count. 0: no limit.",
    ),
    Option(
        name="memory_pressure_percent",
        type="float",
        default="0",
        example="20",
        description="Percentage of the last ten seconds that processes waited for memory (`some "
        "avg10` of the kernel's pressure stall information). Above it, a worker pauses, too. 0: "
        "no limit.",
    ),
    Option(
        name="heartbeat_seconds",
        type="float",
        default="5",
        example="2",
        description="Seconds between two presence records of a worker. Lower it, together with "
        "`worker_lost_seconds`, to notice a dead worker sooner.",
    ),
    Option(
        name="worker_lost_seconds",
        type="float",
        default="15",
        example="6",
        description="A worker counts as lost when it does not answer and its presence record is "
        "older than this many seconds. It has to be at least twice `heartbeat_seconds`. Far "
        "workers need more (`docs/how-to/far-workers.md`).",
    ),
    Option(
        name="worker_forgotten_seconds",
        type="float",
        default="300",
        example="3600",
        description="Seconds that `airflow nats check` names a lost worker. `airflow nats workers "
        "list` shows it for an hour. A queue that waits for a worker stays a finding.",
    ),
    Option(
        name="start_timeout_seconds",
        type="float",
        default="120",
        example="300",
        description="Seconds that a worker may take to start a workload, until it asks Airflow's "
        "API server to accept the start. The wait for the API server's answer does not count. A "
        "start that takes longer hangs, for example on a log folder or a name server. The worker "
        "logs where it hangs, ends it and gives the workload back.",
    ),
    Option(
        name="drain_seconds",
        type="float",
        default="540",
        example="3600",
        description="Seconds that running tasks may go on after a worker is told to stop. Then "
        "their processes get SIGTERM. Keep a container's grace period above `drain_seconds` + "
        "`kill_seconds`. Raise it if your tasks run longer and cannot be retried.",
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
        description="Port where a worker answers `/livez`, `/readyz` and `/metrics` "
        "(`docs/how-to/observability.md`). 0: none. Workers on one host cannot share a port.",
    ),
    Option(
        name="health_address",
        type="string",
        default="0.0.0.0",  # noqa: S104 - probes come from outside of a container
        example="127.0.0.1",
        description="IP address where a worker listens on `health_port`. `0.0.0.0` means every "
        "IPv4 address, `::` every address.",
    ),
)
