"""The lines for each trouble; docs/how-to/troubleshooting.md has them all, with these examples."""

from __future__ import annotations

__all__ = ["EXAMPLES", "LINES"]

EXAMPLES = {
    "bucket": "KV_airflow_workers",
    "here": "default",
    "there": "gpu",
    "key": "$KV.airflow_workers.gpu.etl-1",
    "keys": "$KV.airflow_workers.>",
    "part": "scheduler",
    "queue": "gpu",
    "subject": "airflow.results.gpu.d1",
    "worker": "etl-1",
    "address": "nats-1:4222",
    "command": "airflow nats auth --user worker_gpu --role worker --queues QUEUES",
    "copies": "1",
    "found": "1 replica",
    "name": "AIRFLOW_TASKS",
    "offline": "nats-3",
    "pending": "12",
    "permission": "publish to airflow.results.gpu.*",
    "option": "max_results_bytes",
    "reason": "insufficient storage resources available, NATS error 10047",
    "wanted": "536870912",
    "stream": "AIRFLOW_RESULTS",
    "used": "120.8",
    "room": "134.2",
    "share": "90%",
    "most": "98.1",
    "most_streams": "20",
    "streams": "18",
    "most_consumers": "2000",
    "consumers": "1800",
    "more": "5 streams",
    "enough": "23",
    "needed": "300 consumers",
    "raised": "2100",
    "number": "18",
    "operator": "ann",
    "why": "new driver",
    "resume": "airflow nats queues resume gpu",
    "undrain": "airflow nats workers undrain etl-1",
    "servers": "nats-1, nats-2, nats-3",
    "size": "1400000",
    "limit": "1048576",
    "until": "2026-11-29T19:00:00+00:00",
    "url": "nats://nats-1:4222",
    "user": "worker_gpu",
    "version": "2.11.11",
    "release": "2.12.8",
}
LINES = {
    "unreachable": (
        "cannot reach NATS at {url}: [Errno 111] Connect call failed ({address}); "
        "check [nats_executor] servers"
    ),
    "wrong password": (
        "NATS at {url} refuses user {user}: Authorization Violation; "
        "check [nats_executor] user and password"
    ),
    "no login": (
        "NATS at {url} refuses a client without a login: Authorization Violation; set "
        "[nats_executor] user and password, token, nkey_seed or credentials_file"
    ),
    "expired certificate": (
        "the certificate of NATS at {url} is not valid: certificate has expired; "
        "renew it on the server, or set the clock right"
    ),
    "unknown CA": (
        "the certificate of NATS at {url} is not valid: unable to get local issuer certificate; "
        "name the CA that signed it in [nats_executor] tls_ca_file"
    ),
    "no client certificate": (
        "NATS at {url} asks for a client certificate; set [nats_executor] tls_certificate_file "
        "and tls_key_file"
    ),
    "client certificate": (
        "NATS at {url} ends the TLS connection; check [nats_executor] servers, and that the "
        "client certificate in tls_certificate_file is valid and trusted there"
    ),
    "permission": (
        "NATS does not allow user {user} to {permission}: put what `{command}` prints into the "
        "servers' configuration"
    ),
    "no quorum": (
        "NATS has no quorum: more than half of its servers ({servers}) have to be up and in touch "
        "with each other; start those that are down, or mend the routes between them"
    ),
    "offline": (
        "2 of 3 servers have all of it, {offline} is offline; start or mend that server before "
        "another one fails"
    ),
    "being copied": (
        "{copies} of 3 servers have it: NATS is still copying it, or is no cluster of so many "
        "servers; look again in a minute"
    ),
    "being handed over": (
        "NATS is still moving it to its servers; stop no server until that is done"
    ),
    "too few replicas": (
        "stream {name} has {found}, [nats_executor] replicas is 3: run `airflow nats setup`"
    ),
    "more replicas": (
        "stream {name} has 3 replicas, [nats_executor] replicas is 1: set replicas = 3, or run "
        "`airflow nats setup` to have fewer"
    ),
    "single server": (
        "[nats_executor] replicas = 3, but NATS is a single server (replicas > 1 not supported in "
        "non-clustered mode, NATS error 10074): set a smaller number, or run NATS as a cluster of "
        "3 servers with JetStream"
    ),
    "small cluster": (
        "[nats_executor] replicas = 5, but NATS has fewer than 5 servers for it (no suitable peers "
        "for placement, NATS error 10005): set a smaller number, or run NATS as a cluster of "
        "5 servers with JetStream"
    ),
    "no streams": (
        "stream {name} does not answer: it has no leader, or `airflow nats setup` was not run"
    ),
    "full": (
        "maximum bytes exceeded (NATS error 10077); start more workers, raise [nats_executor] "
        "max_stream_bytes or make room on the server"
    ),
    "full account": (
        "resource limits exceeded for account (NATS error 10002); `airflow nats check` shows what "
        "fills it, `airflow nats purge` empties that; or raise max_file of the account in the "
        "servers' configuration"
    ),
    "full server": (
        "insufficient resources (NATS error 10023); `airflow nats check` shows what fills it, "
        "`airflow nats purge` empties that; or raise max_file_store in the servers' configuration"
    ),
    "no room": (
        "[nats_executor] {option} = {wanted}: NATS has no room to set {wanted} bytes aside for "
        "stream {stream} ({reason}); set a smaller number, or raise max_file_store of the servers "
        "or max_file of the account, which counts every replica"
    ),
    "account nearly full": (
        "{used} MB of {room} MB are used ({share}), every replica counted; {most} MB of that is "
        "stream {stream}; full, it stops all queues: run `airflow nats purge`, or raise max_file "
        "of the account in the servers' configuration"
    ),
    "no more streams": (
        "max_streams of the account = {most_streams}: {streams} are there, and {more} more "
        "cannot be made; set it to {enough} or more in the servers' configuration and reload them "
        "(`airflow nats limits` computes it). Nothing was changed"
    ),
    "no more consumers": (
        "max_consumers of the account = {most_consumers}: {consumers} are there, and {needed} "
        "more cannot be made; set it to {raised} or more in the servers' configuration and reload "
        "them (`airflow nats limits` computes it). Nothing was changed"
    ),
    "consumers used up": (
        "maximum consumers limit reached (NATS error 10026); raise max_consumers of the account "
        "in the servers' configuration: each queue has a consumer for each of its priority bands, "
        "and nats-server 2.15 and later allow 1000 where none is set"
    ),
    "streams nearly used up": (
        "{streams} of {most_streams} ({share}) streams are used; at the limit `airflow nats setup` "
        "makes none for another team: raise max_streams of the account in the servers' "
        "configuration"
    ),
    "consumers nearly used up": (
        "{consumers} of {most_consumers} ({share}) consumers of stream {name} are used, one for "
        "each priority band of each queue; at the limit the workloads of a new queue wait in the "
        "scheduler: raise max_consumers of the account in the servers' configuration, or run "
        "`airflow nats queues delete` for queues that are gone"
    ),
    "letters nearly full": (
        "{used} MB of {room} MB are used ({share}); queue gpu has {number} of {number} messages; "
        "full, it drops its oldest letters: look at them, then run `airflow nats purge "
        "dead-letters`"
    ),
    "too large": (
        "too large for NATS: {size} bytes; the server's max_payload is {limit}: raise it there, or "
        "make the workload smaller"
    ),
    "paused": (
        "{pending} pending, paused by {operator} until {until} ({why}); to resume now: {resume}"
    ),
    "drained": (
        "3 running, drained by {operator} ({why}); to let it take workloads again: {undrain}"
    ),
    "cannot be drained": (
        "worker {worker} does not answer, last seen 12 s ago: it is gone, or its release 0.1 "
        "cannot be drained; this is noted: once it has started again, with a release that can, it "
        "takes nothing until it is undrained"
    ),
    "unsafe server": (
        "nats-server {version} lets the login of any worker delete tasks of other queues; run "
        "2.14.4 or later (2.12.5 is the first that does not)"
    ),
    "weak server": (
        "nats-server {release} works, but may lose a message when a subject reaches its "
        "limit while other messages are being removed; 2.14.4 or later is recommended"
    ),
    "metrics package": (
        "[metrics] statsd_on = True, but a package is not installed (No module named 'statsd'), "
        "and this Airflow starts neither scheduler, API server nor tasks without it; run: pip "
        "install 'apache-airflow[statsd]' everywhere, or set [metrics] statsd_on = False"
    ),
    "clear text": (
        "[nats_executor] password goes to NATS at {url} in clear text, for anybody on the way to "
        "read; enable tls on the server, and write tls:// in [nats_executor] servers"
    ),
    "name taken": (
        "a worker named '{worker}' runs already on host-7 (process 7) for queue '{queue}': give "
        "this one another name with --hostname"
    ),
    "several workers": (
        "several workers are named '{worker}': host-7 (process 7) for {here}; host-8 (process 8) "
        "for {there}; say which one with --serving QUEUE"
    ),
    "unreadable record": "unreadable presence record {key}: it is about queues of other keys",
    "too many records": (
        "stream {bucket} has more under {keys} than one look takes; next: the first 10000 count; "
        "remedy: see who writes there"
    ),
    "large report": "unreadable report on {subject}: more than 65536 bytes; next: ignoring it",
    "too deep": "cannot be sent over NATS: ValueError: nested deeper than 100 levels",
    "dead letter": "dead letter: nested deeper than 100 levels",
    "dropped": (
        "more messages came to this {part} than it can keep, and some were dropped; next: what "
        "matters is asked for again; remedy: see who sends so much"
    ),
    "bad value": "[nats_executor] servers = 'http://nats-1:4222': "
    "write nats://host:port, separated by commas",
}
