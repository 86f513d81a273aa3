"""The callbacks of a missed deadline, in the worker's callback process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.airflow.lib.proving_marks import hold


def note(text: str, **_: Any) -> None:
    Path(os.environ["TEST_MARKS"], "callback").write_text(text)


def linger(name: str, **_: Any) -> None:
    hold(name)


def speak(name: str, **_: Any) -> None:
    print("a word that was spoken")  # noqa: T201 - it goes to the log
    Path(os.environ["TEST_MARKS"], f"{name}-spoke").touch()
