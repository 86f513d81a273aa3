"""How large a message may be: what the streams refuse, and readers before they decode. Pure.

Whoever has a worker's login can write reports, presence records and dead letters; so can the author
of a Dag who gets at it. Each bound is far above what this project itself sends.
"""

from __future__ import annotations

__all__ = ["PRESENCE_BYTES", "REPORT_BYTES", "WORKLOAD_BYTES"]

# A report is at most four texts of Airflow's keys (250 characters each), a token of 2 kB and a
# reason of 4000 characters.
REPORT_BYTES = 64 * 1024
# A record lists the names of its worker's queues.
PRESENCE_BYTES = 64 * 1024
# As `max_payload` in deploy/nats/cluster.conf: callbacks may have large arguments.
WORKLOAD_BYTES = 8 * 1024 * 1024
