"""An earlier release of this project: which one, and its code in a folder of its own, from git.

An earlier release's code comes with its own `tests`: what stands in for Airflow there knows the
inside of that release. Both releases' stand-ins meet in files and on sockets alone.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nats_executor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Release",
    "ReleaseMissing",
    "checkout",
    "last_release",
    "lay_out",
]

ROOT = Path(__file__).parents[2]
TAGS = "v[0-9]*"
# The last release for as long as there is no tag: the last commit that knows no priority bands, so
# that names, consumers, records and verbs differ.
BEFORE_THE_FIRST = "f4b2f78509699762402b45015914bef885f87546"
STARTER = Path(__file__).with_name("released.py")


class ReleaseMissing(Exception):
    """An earlier release's code is not to be had here; says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """The code of one release.

    Attributes:
        name: the tag, or the short name of the commit.
        tree: the folder with its packages.
    """

    name: str
    tree: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What has a Python prefer this code to the one that is installed.

        An editable install is a line in a .pth file, and PYTHONPATH comes before all of these.
        """
        return {"PYTHONPATH": str(self.tree)}

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return what runs a module of this code, or ends at once if Python finds another one."""
        return [sys.executable, "-P", str(STARTER), str(self.tree), module, *arguments]


def checkout() -> Release:
    """The code under test."""
    return Release("checkout", Path(nats_executor.__file__).parents[1])


def last_release() -> str:
    """Return the newest tag before this commit, or what stands for it until there is one."""
    try:
        return git("describe", "--tags", "--abbrev=0", f"--match={TAGS}", "HEAD^").decode().strip()
    except ReleaseMissing:
        return BEFORE_THE_FIRST


def lay_out(directory: Path, commit: str) -> Release:
    """Write the code of a tag or commit into a folder.

    Raises:
        ReleaseMissing: this is no git checkout, or one without that commit.
    """
    wanted = f"{commit}^{{commit}}"
    short = git("rev-parse", "--short", "--verify", "--end-of-options", wanted).decode().strip()
    packed = git("archive", "--format=zip", short, "nats_executor", "nats_worker", "tests")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(directory)
    return Release(commit if len(commit) < len(BEFORE_THE_FIRST) else short, directory)


def git(*arguments: str) -> bytes:
    # A checkout that belongs to another user, as in a container, is read all the same.
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
    except FileNotFoundError as exc:
        raise ReleaseMissing("git is not installed") from exc
    except subprocess.CalledProcessError as exc:
        raise ReleaseMissing(exc.stderr.decode(errors="replace").strip()) from exc
    return done.stdout
