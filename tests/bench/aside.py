"""A contender in a process of its own, so that none inherits another's state or garbage."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Aside", "Broken", "answer", "asked", "run_aside"]

ROOT = Path(__file__).parents[2]
LAST_WORDS = 300


class Broken(Exception):
    """The other process ended without an answer."""


class Aside:
    """`python -m MODULE REQUEST ANSWER`, with all that it starts; ends with its context."""

    def __init__(
        self, module: str, place: Path, environment: Mapping[str, str], **request: Any
    ) -> None:
        self.module = module
        number = len(list(place.iterdir()))
        name = f"{number:03}-{module.rpartition('.')[2]}"
        self.reply = place / f"{name}.json"
        self.log = place / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(request), str(self.reply)],
                env=dict(environment), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A worker has a session of its own, and what it started ends with it.
        for pid in descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def answer(self, timeout: float) -> Any:
        """Wait for its end and return what it answered."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Broken(f"{self.module} did not end within {timeout:g} s") from None
        if code or not self.reply.exists():
            words = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
            raise Broken(f"{self.module} ended with exit code {code}: {words[:LAST_WORDS]}")
        return json.loads(self.reply.read_text())


def run_aside(
    module: str,
    place: Path,
    environment: Mapping[str, str],
    *,
    timeout: float = 600.0,
    **request: Any,
) -> Any:
    """Run a module with a request, wait for its end and return its answer.

    Raises:
        Broken: there was none; says what its log ends with.
    """
    with Aside(module, place, environment, **request) as aside:
        return aside.answer(timeout)


# In the other process


def asked() -> Any:
    """Return the request."""
    return json.loads(sys.argv[1])


def answer(values: Any) -> None:
    """Leave the answer; whole or not at all, because a reader may be waiting for it."""
    path = Path(sys.argv[2])
    half = path.with_suffix(".part")
    half.write_text(json.dumps(values))
    half.rename(path)
