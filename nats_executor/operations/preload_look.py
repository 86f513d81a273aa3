"""Has the modules of `preload_modules` tried as a worker on this machine would try them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from nats_executor.errors import DecodeError
from nats_executor.operations.survey import check_row
from nats_executor.preloads import PRELOADS, decode_trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.fleet.queues import Row

__all__ = ["preload_findings"]

# A program of the other half, named as text because nothing here may import it.
TRIALS_PROGRAM = "nats_worker.processes.rehearsal"
# For Airflow's own imports, and for each module; a trial ends earlier by itself.
BASE_SECONDS, MODULE_SECONDS = 60.0, 70.0


def preload_findings(modules: Sequence[str]) -> list[Row]:
    """Return a row for each module; none where the option is not set."""
    if not modules:
        return []
    answer, error = try_all(modules)
    rows = []
    for line in answer.splitlines():
        try:
            trial = decode_trial(line)
        except DecodeError:
            break
        rows.append(check_row("preload", trial.status, trial.text))
    if len(rows) < len(modules):
        left = ", ".join(modules[len(rows) :])
        rows.append(
            check_row("preload", "not preloaded", f"{PRELOADS}: {left} cannot be tried: {error}")
        )
    return rows


def try_all(modules: Sequence[str]) -> tuple[str, str]:
    """Return a line for each module, and why there are no more."""
    told = os.memfd_create("trials")
    seconds = BASE_SECONDS + MODULE_SECONDS * len(modules)
    error = "the trials ended early; start a worker, whose log says more"
    with os.fdopen(told, "r", errors="replace") as lines:
        try:
            subprocess.run(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-P", "-m", TRIALS_PROGRAM, str(told), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[told],
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            error = f"the trials took longer than {seconds:g} s"
        lines.seek(0)
        return lines.read(), error
