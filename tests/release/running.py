"""Run the programs of a release's check, outside the checkout where they must not find it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BIN", "HELM", "TOOLS", "Refused", "clean", "run"]

BIN = ROOT / ".venv" / "bin"
TOOLS = ROOT / ".release" / "bin"
HELM = ROOT / ".tools" / "helm"
LAST_LINES = 8


class Refused(Exception):
    """A program ended with an error; its last lines."""


def clean(**more: str) -> dict[str, str]:
    """Return an environment without what leads Python or Airflow to another installation."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL"))
    }
    return kept | more


def run(*command: str | Path, cwd: Path = ROOT, seconds: float = 1800, **env: str) -> str:
    """Return what a program prints.

    Raises:
        Refused: it failed, is not there, or did not end in time.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=clean(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Refused(str(exc)) from exc
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        # pip names each folder of its configuration that is not there.
        told = [line for line in lines if not line.startswith("WARNING: Location")]
        raise Refused(" | ".join(told[-LAST_LINES:]) or f"exit code {done.returncode}")
    return done.stdout
