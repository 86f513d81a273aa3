"""How large a message may be: what the streams refuse, and readers before they decode. Pure.

Whoever has a worker's login can write reports, presence records and dead letters; so can the author
of a Dag who gets at it. Each bound is far above what this project itself sends.
"""

from __future__ import annotations

__all__ = [
    "AVERAGE_BYTES",
    "CUT_LETTER_BYTES",
    "HEADERS_BYTES",
    "LETTER_BYTES",
    "PRESENCE_BYTES",
    "REPORT_BYTES",
    "WORKERS_BUCKET_BYTES",
    "WORKLOAD_BYTES",
]

# A report is at most four texts of Airflow's keys (250 characters each), a token of 2 kB and a
# reason of 4000 characters.
REPORT_BYTES = 64 * 1024
# A record lists the names of its worker's queues.
PRESENCE_BYTES = 64 * 1024
# As `max_payload` in deploy/nats/cluster.conf: callbacks may have large arguments.
WORKLOAD_BYTES = 8 * 1024 * 1024

# A stream counts a message's headers as well. Those of reports and records are below 200 bytes,
# those of a dead letter hold its reason of 500 characters and its dispatch id. In a cluster, what
# comes from another account has one more while it is measured, which tells about the client.
HEADERS_BYTES = 4 * 1024
# A dead letter is the workload with the reason why it is one.
LETTER_BYTES = WORKLOAD_BYTES + HEADERS_BYTES
# So much is kept of a workload that does not fit beside its reason.
CUT_LETTER_BYTES = 64 * 1024
# All presence records: one of 300 bytes for each of 50,000 workers.
WORKERS_BUCKET_BYTES = 16 * 1024 * 1024
# A stream holds so many messages as if each had this size: an empty one takes 55 bytes of storage,
# but the server keeps 300 bytes in memory for its subject. What this project sends has more.
AVERAGE_BYTES = 256
