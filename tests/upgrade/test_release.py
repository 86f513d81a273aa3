"""One release comes before this code, and a process really runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import release as releases
from tests.support.release import ReleaseMissing, last_release, lay_out
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.release import Release

WHERE = "import nats_executor, nats_worker, tests; print(nats_executor.__file__)"


def git(directory: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *who, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits that takes the place of this one."""
    git(tmp_path, "init", "-q")
    for package in ("nats_executor", "nats_worker", "tests"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for name in ("one", "two"):
        (tmp_path / "nats_executor" / "which.py").write_text(name)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", name)
    monkeypatch.setattr(releases, "ROOT", tmp_path)
    return tmp_path


def test_the_last_release_is_the_newest_tag_before_this_commit(repository: Path) -> None:
    assert last_release() == releases.BEFORE_THE_FIRST

    git(repository, "tag", "v0.1.0", "HEAD^")
    git(repository, "tag", "v0.2.0")
    git(repository, "tag", "something-else", "HEAD^")

    assert last_release() == "v0.1.0"


def test_a_release_is_laid_out_as_it_was(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git(repository, "tag", "v0.1.0", "HEAD^")

    release = lay_out(tmp_path_factory.mktemp("laid") / "out", "v0.1.0")

    assert release.name == "v0.1.0"
    assert (release.tree / "nats_executor" / "which.py").read_text() == "one"
    assert git(repository, "status", "--porcelain") == ""


@pytest.mark.parametrize("commit", ["v9.9.9", "0" * 40, "--help"])
def test_a_commit_that_is_not_there_is_named(repository: Path, tmp_path: Path, commit: str) -> None:
    """As in a clone without its history."""
    assert repository.exists()

    with pytest.raises(ReleaseMissing, match="Needed a single revision"):
        lay_out(tmp_path / "out", commit)


def test_without_a_repository_there_is_no_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "ROOT", tmp_path)

    with pytest.raises(ReleaseMissing, match="not a git repository"):
        lay_out(tmp_path / "out", "v0.1.0")


def test_a_release_is_imported_before_what_is_installed(earlier_release: Release) -> None:
    """An editable install of this checkout is in the way."""
    environment = os.environ | earlier_release.environment
    command = [sys.executable, "-P", "-c", WHERE]
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.strip()

    assert found == str(earlier_release.tree / "nats_executor" / "__init__.py")


def test_a_process_that_would_run_other_code_ends_at_once(earlier_release: Release) -> None:
    done = subprocess.run(
        earlier_release.command("nats_worker", "--help"),
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 3
    assert f"which is not below {earlier_release.tree}" in done.stderr
    assert done.stdout == ""
