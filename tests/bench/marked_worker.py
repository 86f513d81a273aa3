"""`airflow nats worker` whose fork server is another program, the one that `BENCH_PYTHON` names.

Run as a module with the words of `airflow`. `held` has that program leave marks.
"""

from __future__ import annotations

import os
import sys

from tests.bench.timed_worker import run_airflow

if __name__ == "__main__":
    sys.executable = os.environ["BENCH_PYTHON"]
    run_airflow()
