"""`airflow nats worker` whose fork server is another program, the one that `BENCH_PYTHON` names.

Run as a module with the words of `airflow`. `held` has that program put its marks.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    from airflow.__main__ import main

    from nats_worker import main as worker_main

    worker_main.become = worker_main.run  # type: ignore[assignment] # the change below must stay
    sys.executable = os.environ["BENCH_PYTHON"]
    sys.argv[0] = "airflow"
    main()
