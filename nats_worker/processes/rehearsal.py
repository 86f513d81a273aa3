"""Tries the modules of `preload_modules` as a fork server does, for `airflow nats doctor`.

`python -Pm nats_worker.processes.rehearsal FD MODULE ...` writes a line for each module to an
inherited descriptor.
"""

from __future__ import annotations

import os
import sys

from nats_executor.preloads import encode_trial
from nats_executor.settings import Settings
from nats_worker.processes.concealment import environment_without_login
from nats_worker.processes.preloading import preload

__all__: list[str] = []


def main(descriptor: int, *modules: str) -> None:
    """Try modules as a fork server does, one after the other, and tell of each."""
    from airflow.configuration import conf

    # A worker's processes have no login, and what a module's import does is not ours.
    kept = environment_without_login(os.environ, Settings.load(conf), team=None)
    os.environ.clear()
    os.environ.update(kept)
    with os.fdopen(descriptor, "w") as told:
        preload(modules=modules, tell=lambda trial: told.write(f"{encode_trial(trial)}\n"))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
