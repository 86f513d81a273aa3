"""The real fork server, which starts the light supervisors of `supervision.py`.

Run as `python -Pm tests.chaos.forkserver REQUESTS EVENTS`, like the one it stands in for.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from nats_worker import processes
from nats_worker.processes import forkserver, self_test
from tests.chaos import supervision

__all__: list[str] = []


def main() -> None:
    """Put the stand-in in the place of Airflow, and serve."""
    sys.modules["nats_worker.processes.airflow_supervisor"] = supervision
    sys.modules["nats_worker.processes.warm_up"] = supervision
    vars(processes).update(airflow_supervisor=supervision, warm_up=supervision)
    vars(forkserver)["preload"] = lambda *_, **__: supervision.warm_up()
    vars(self_test)["STEPS"] = (supervision.self_test,)
    supervisor = importlib.import_module("nats_worker.processes.supervisor")
    run = supervisor.Supervisor.run

    def run_known(self: Any, request: dict[str, Any]) -> Any:
        supervision.enter(request["id"].rpartition(".")[0])  # the pool numbers a dispatch's runs
        return run(self, request)

    supervisor.Supervisor.run = run_known
    forkserver.main(*map(int, sys.argv[1:]))


if __name__ == "__main__":
    main()
