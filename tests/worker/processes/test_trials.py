"""A module is tried in a process of its own, and what is wrong with it stays there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nats_executor.preloads import Trial, decode_trial
from nats_worker.processes.linux import children_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

# In an interpreter of its own, which has no threads, as a fork server.
TRY = """
import sys
from nats_executor.preloads import encode_trial
from nats_worker.processes.trials import try_module
for entry in sys.argv[2:]:
    module = entry.removesuffix("!")
    trial = try_module(module, is_forced=entry != module, seconds=float(sys.argv[1]))
    print(encode_trial(trial))
    assert module not in sys.modules
"""
MODULES = {
    "plain": "block = bytes(range(256)) * 80_000",
    "threaded": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    ),
    "spawning": "import subprocess\nchild = subprocess.Popen(['sleep', '600'])",
    "leaving": "import os, socket\nfile = open(os.devnull)\none, two = socket.socketpair()",
    "raising": "raise RuntimeError('not today')",
    "leaving_python": "import sys\nsys.exit('bye')",
    "crashing": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "exiting": "import os\nos._exit(7)",
    "hanging": "import signal\nsignal.pause()",
}


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def trials(folder: Path, *entries: str, seconds: float = 60.0) -> list[Trial]:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(seconds), *entries],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [decode_trial(line) for line in done.stdout.splitlines()]


def test_what_a_module_takes_and_leaves_is_seen(folder: Path) -> None:
    plain, threaded, forced, spawning, leaving = trials(
        folder, "plain", "threaded", "threaded!", "spawning", "leaving"
    )

    assert (plain.status, plain.threads, plain.descriptors) == ("ok", 0, 0)
    assert plain.seconds > 0
    assert plain.bytes > 10_000_000
    assert (threaded.status, threaded.threads) == ("not preloaded", 1)
    assert (forced.status, forced.threads) == ("ok", 1)
    assert (spawning.status, spawning.processes) == ("not preloaded", 1)
    assert (leaving.status, leaving.descriptors) == ("ok", 3)


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("absent", "ModuleNotFoundError: No module named 'absent'"),
        ("raising", "RuntimeError: not today"),
        ("leaving_python", "SystemExit: bye"),
        ("crashing", "its import ends the process with SIGSEGV"),
        ("exiting", "its import ends the process with exit code 7"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(folder: Path, module: str, error: str) -> None:
    [trial] = trials(folder, module)

    assert (trial.status, trial.error) == ("not preloaded", error)


def test_a_trial_that_hangs_is_ended(folder: Path) -> None:
    before = children_of(os.getpid())

    hanging, plain = trials(folder, "hanging", "plain", seconds=5)

    assert hanging.error == "its import takes longer than 5 s"
    assert plain.status == "ok"
    assert children_of(os.getpid()) == before
