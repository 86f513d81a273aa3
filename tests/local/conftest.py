"""Fixtures of one-machine set-ups: processes that can be recognised by a mark."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "NATS_EXECUTOR_TEST_MARK"


@dataclass(frozen=True)
class Mark:
    """A variable that every descendant of a process inherits, wherever it moves to.

    A process that sets its title (the API server) overwrites it; but its leash keeps it.
    """

    value: str

    @property
    def environment(self) -> dict[str, str]:
        # Other tests of this process may have configured their own Airflow.
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("AIRFLOW__")}
        return {**inherited, VARIABLE: self.value}

    def processes(self) -> dict[int, str]:
        """Return the living processes with this mark, with their command lines."""
        wanted = f"{VARIABLE}={self.value}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = line
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return found

    def require_gone(self) -> None:
        block_until(lambda: not self.processes(), 15, f"the end of {self.processes()}")


@pytest.fixture
def mark() -> Mark:
    return Mark(secrets.token_hex(8))


@dataclass(frozen=True)
class Command:
    """A running `airflow nats ...` in a temporary directory of its own, with its output."""

    process: subprocess.Popen[bytes]
    output: Path
    temporary: Path
    mark: Mark

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for_text(self, text: str, *, seconds: float = 120) -> None:
        """Wait for text in the output, and fail at once if the command ends without it."""

        def is_there() -> bool:
            has_ended = self.process.poll() is not None
            if text in self.text:
                return True
            assert not has_ended, f"ended without {text!r}:\n{self.text}"
            return False

        block_until(is_there, seconds, f"{text!r} in\n{self.text}")

    def wait(self, *, seconds: float = 120) -> int:
        """Return the exit code, and make sure that nothing but the output is left."""
        code = self.process.wait(seconds)
        assert self.mark.processes() == {}
        return code

    def component(self, name: str) -> int:
        """Return the pid of a component that runs, by the leash that holds it."""

        def found() -> list[int]:
            lines = self.mark.processes().items()
            leashes = [pid for pid, line in lines if "leash.py" in line and f" {name} " in line]
            return [child for pid in leashes for child in children(pid)]

        [pid] = block_until(found, 300, f"component {name}")
        return int(pid)


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a place for compiled modules, so that only the first of many processes compiles."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def airflow_nats(tmp_path: Path, mark: Mark, bytecode: Path) -> Iterator[Callable[..., Command]]:
    """Start `airflow nats <arguments>`; what still runs at the end is killed."""
    started = []
    (temporary := tmp_path / "tmp").mkdir()

    def start(*arguments: str, **variables: str) -> Command:
        env = {
            **mark.environment,
            "TMPDIR": str(temporary),
            "AIRFLOW_HOME": str(tmp_path / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **variables,
        }
        if env.pop("PYTHONDONTWRITEBYTECODE", None):
            env.setdefault("PYTHONPYCACHEPREFIX", str(bytecode))
        output = tmp_path / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "nats", *arguments],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return Command(process, output, temporary, mark)

    yield start
    for process in started:
        process.kill()
        process.wait()
    mark.require_gone()
