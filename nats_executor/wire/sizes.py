"""Limits how large messages may be, in streams and for readers before they decode. Pure.

A client with a worker's login can write reports, presence records and dead letters, and so can the
author of a Dag who finds that login. Each bound is far above what this project itself sends.
"""

from __future__ import annotations

__all__ = [
    "ANSWER_BYTES",
    "AVERAGE_BYTES",
    "CUT_LETTER_BYTES",
    "HEADERS_BYTES",
    "HISTORY_BYTES",
    "HOLDS_BUCKET_BYTES",
    "HOLD_BYTES",
    "LETTER_BYTES",
    "LOG_ENTRY_BYTES",
    "MOST_NAMES",
    "MOST_RECORDS",
    "MOST_RECORD_BYTES",
    "PRESENCE_BYTES",
    "QUESTION_BYTES",
    "REPORT_BYTES",
    "WAITING_BYTES",
    "WAITING_REPORTS",
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
# The name of a stored log's part, its size and its digest.
LOG_ENTRY_BYTES = 16 * 1024

# Between clients, without a stream. The ids of 500 dispatches go into one question.
QUESTION_BYTES = 256 * 1024
# A piece of a log is 256 KiB, and a path has 4 KiB at most; a ping's answer repeats ids.
ANSWER_BYTES = 320 * 1024

# Bounds of one look at many records. A worker's record has 300 bytes.
MOST_RECORDS = 10_000
MOST_RECORD_BYTES = 8 * 1024 * 1024
# Names of queues in all of them: a name costs much more in memory than in a message.
MOST_NAMES = 100_000

# Reports that wait for the scheduler's thread. The rest waits in NATS.
WAITING_REPORTS = 20_000
WAITING_BYTES = 8 * 1024 * 1024

# A stream counts a message's headers as well. Those of reports and records are below 200 bytes,
# those of a dead letter hold its reason of 500 characters and its dispatch id. In a cluster, what
# comes from another account has one more while it is measured, which tells about the client.
HEADERS_BYTES = 4 * 1024
# A dead letter is the workload with the reason why it is one.
LETTER_BYTES = WORKLOAD_BYTES + HEADERS_BYTES
# So much is kept of a workload that does not fit beside its reason.
CUT_LETTER_BYTES = 64 * 1024
# A hold is a queue's name, a person's name and a reason; a drain lists its worker's queues.
HOLD_BYTES = 16 * 1024
# The last hour of a queue has four numbers for each minute.
HISTORY_BYTES = 4 * 1024
# All holds: one for each of some thousand queues and drained workers, and those queues' last hour.
HOLDS_BUCKET_BYTES = 4 * 1024 * 1024
# All presence records: one of 300 bytes for each of 50,000 workers.
WORKERS_BUCKET_BYTES = 16 * 1024 * 1024
# A stream may hold as many messages as if each had this size. An empty one takes 55 bytes of
# storage, but the server keeps 300 bytes in memory for its subject. This project's are larger.
AVERAGE_BYTES = 256
