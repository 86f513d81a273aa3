"""The built wheel, alone with its dependencies in a virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.require import require
from tests.tools.boundaries import ROOT

BESIDE = Path(sys.executable).parent


@dataclass(frozen=True)
class Installation:
    """A virtual environment that holds the wheel and its dependencies, nothing of the checkout."""

    bin: Path
    home: Path

    def run(self, *command: str, **settings: str) -> str:
        """Return what a command prints; outside the checkout, or it could be found by chance."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "PYTHON"))
        }
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=self.home,
            env=environment | {"AIRFLOW_HOME": str(self.home), "COLUMNS": "100000"} | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def uv() -> str:
    found = shutil.which("uv", path=f"{BESIDE}{os.pathsep}{os.environ.get('PATH', '')}")
    require(found, "uv is not installed")
    return str(found)


@pytest.fixture(scope="session")
def wheel(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as a release would, from what the checkout holds."""
    directory = tmp_path_factory.mktemp("dist")
    build = [uv, "build", "-q", "--wheel", "--no-build-isolation", "-o", str(directory)]
    subprocess.run([*build, "-p", sys.executable, str(ROOT)], check=True, capture_output=True)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def installation(uv: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    directory = tmp_path_factory.mktemp("installation")
    home = tmp_path_factory.mktemp("home")
    venv = [uv, "venv", "-q", "-p", sys.executable, str(directory)]
    install = [uv, "pip", "install", "-q", "-p", str(directory), str(wheel)]
    subprocess.run(venv, check=True, capture_output=True)
    subprocess.run(
        [*install, "-c", str(ROOT / "requirements.lock")], check=True, capture_output=True
    )
    return Installation(directory / "bin", home)
