"""The findings of `make audit`, and that it says what it could not see."""

from __future__ import annotations

import base64
import binascii
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.tools.audit import advisories, dockerfile_faults, shell_scripts
from tests.tools.secrets_in import SCHEMES, scan, secrets_in

if TYPE_CHECKING:
    from pathlib import Path


def seed(kind: bytes = b"\x95\x00") -> str:
    """Make a seed as NATS's tools do; no server knows it."""
    raw = kind + bytes(range(32))
    return (
        base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    )


# In pieces, so that this file holds none.
PLANTED = {
    "private key": "-----BEGIN EC " + "PRIVATE KEY-----\n" + "M" * 60,
    "NKey seed": seed(),
    "JWT": ".".join(["eyJ" + "h" * 20, "eyJ" + "p" * 20, "s" * 40]),
    "AWS key": "AKIA" + "A" * 16,
    "GitHub token": "ghp" + "_" + "a" * 36,
    "PyPI token": "pypi" + "-" + "A" * 90,
    "Slack token": "xoxb" + "-" + "1" * 24,
    "Fernet key": "FERNET_KEY=" + "f" * 43 + "=",
}


def git(root: Path, *args: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "clean").write_text("nothing to see\n")
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "a step")


def test_every_kind_of_secret_has_a_case() -> None:
    assert PLANTED.keys() == SCHEMES.keys()


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_in_the_tree_is_found_and_not_repeated(repository: Path, kind: str) -> None:
    assert scan(repository).faults == []
    (repository / "settings").write_text(f"first line\n{PLANTED[kind]}\n")
    commit(repository)

    faults = scan(repository).faults

    assert faults[0] == f"settings, line 2: {kind}"
    assert not any(PLANTED[kind] in fault for fault in faults)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_that_was_removed_again_is_still_in_the_history(
    repository: Path, kind: str
) -> None:
    (repository / "settings").write_text(PLANTED[kind])
    commit(repository)
    git(repository, "rm", "-q", "settings")
    commit(repository)

    [fault] = scan(repository).faults

    assert fault.startswith("settings in ")
    assert fault.endswith(f" of the history, line 1: {kind}")


def test_a_made_up_seed_of_an_example_is_none() -> None:
    real = seed()
    other = real[:20] + ("A" if real[20] != "A" else "B") + real[21:]

    assert list(secrets_in(real.encode())) == [(1, "NKey seed")]
    assert list(secrets_in(other.encode())) == []


def test_packages_that_could_not_be_looked_up_are_named() -> None:
    """pip-audit itself takes that for success."""
    skipped = [{"name": f"p{n}", "skip_reason": "not found"} for n in range(4)]

    report = advisories([*skipped, {"name": "q", "version": "1", "vulns": []}])

    assert report.seen == "the advisories of 1 of 5 packages"
    [line] = report.unseen
    assert line.startswith("advisories of 4 packages (p0, p1, p2, ...): ")
    assert report.faults == []


def test_a_known_weakness_is_a_fault_with_its_remedy() -> None:
    weakness = {"id": "PYSEC-1", "fix_versions": ["1.1"]}

    report = advisories([{"name": "q", "version": "1.0", "vulns": [weakness]}])

    assert report.unseen == []
    assert report.faults == ["q 1.0: PYSEC-1, mended in 1.1; raise it in requirements.lock"]


SOUND = "ARG BASE=python:3.12\nFROM ${BASE} AS one\nFROM one\nUSER 50000:0\n"
FAULTY = {
    "FROM python\nUSER 1\n": "the base 'python' has no version",
    "FROM python:latest\nUSER 1\n": "the base 'python:latest' has no version",
    "FROM python:3\n": "runs as root",
    "FROM python:3\nUSER 1\nUSER 0:0\n": "runs as root",
    f"{SOUND}ADD archive /\n": "ADD archive /: fetches and unpacks what it is given; use COPY",
    f"{SOUND}ENV PASSWORD=x\n": "ENV PASSWORD=x: a secret stays in the image's history",
    f"{SOUND}ARG API_TOKEN=x\n": "ARG API_TOKEN=x: a secret stays in the image's history",
    f"{SOUND}RUN true \\\n  && pip install x\n": "RUN pip install: without the lock's hashes",
}


def test_a_sound_dockerfile_has_no_fault() -> None:
    assert dockerfile_faults(SOUND) == []


@pytest.mark.parametrize("text", FAULTY)
def test_a_fault_of_a_dockerfile_is_named(text: str) -> None:
    assert dockerfile_faults(text) == [FAULTY[text]]


def test_shell_scripts_are_known_by_their_first_line(tmp_path: Path) -> None:
    firsts = {"a": "#!/bin/sh\n", "b": "#!/usr/bin/env bash\n", "c": "#!/usr/bin/env python\n",
              "d": "echo sh\n"}  # fmt: skip
    for name, text in firsts.items():
        (tmp_path / name).write_text(text)

    assert shell_scripts(sorted(tmp_path.iterdir())) == [tmp_path / "a", tmp_path / "b"]
