"""Look for what would hurt a user of this: `make audit`.

Known weaknesses of what is pinned, dangerous calls, shell scripts, Dockerfiles, secrets in the tree
and in its history. It says plainly what it could not see, and fails for what it found alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.tools.boundaries import PACKAGES, ROOT
from tests.tools.secrets_in import SCHEMES, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["CHECKS", "Report", "advisories", "dockerfile_faults", "main", "shell_scripts"]

LOCK = "requirements.lock"
SHELL = re.compile(rb"#!.*\b(ba)?sh\b")
SECRET_NAME = re.compile(r"(?i)\b\w*(password|secret|token|api_?key)\w*=")


@dataclass
class Report:
    """What one check came to.

    Attributes:
        seen: what was looked at.
        unseen: what could not be, which is no fault.
        faults: what has to be mended.
    """

    seen: str
    unseen: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def tracked(root: Path = ROOT) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    return [root / name for name in listed.stdout.decode().split("\0") if name]


# What others have found out about what is pinned


def known_weaknesses() -> Report:
    command = ("pip-audit", "--disable-pip", "--no-deps", "--progress-spinner=off")
    done = run(*command, "-r", LOCK, "-f", "json")
    try:
        return advisories(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return Report("no package", [f"advisories of anything in {LOCK}: {reason}"])


def advisories(dependencies: Iterable[dict[str, Any]]) -> Report:
    """Judge what pip-audit says; it calls it success if it could look up nothing at all."""
    found = list(dependencies)
    skipped = [one["name"] for one in found if "skip_reason" in one]
    report = Report(f"the advisories of {len(found) - len(skipped)} of {len(found)} packages")
    if skipped:
        names = ", ".join(skipped[:3]) + (", ..." if len(skipped) > len(skipped[:3]) else "")
        report.unseen.append(
            f"advisories of {len(skipped)} packages ({names}): this machine reaches no database of "
            "them; run `make audit` where it does, before a release"
        )
    for one in found:
        for weakness in one.get("vulns", ()):
            fixed = ", ".join(weakness["fix_versions"]) or "nothing yet"
            text = f"{one['name']} {one['version']}: {weakness['id']}, mended in {fixed}"
            report.faults.append(f"{text}; raise it in {LOCK}")
    return report


# Our own code


def dangerous_calls() -> Report:
    places = (*PACKAGES, "deploy", "tests/tools")
    done = run("ruff", "check", "--select", "S", "--output-format", "concise", "--quiet", *places)
    excused = run("ruff", "check", "--select", "S", "--ignore-noqa", "--output-format", "json",
                  *places)  # fmt: skip
    count = len(json.loads(excused.stdout or "[]"))
    faults = done.stdout.splitlines() if done.returncode else []
    return Report(
        f"ruff's S rules in {', '.join(places)}; {count} places say why they may", [], faults
    )


def scripts() -> Report:
    names = [str(path.relative_to(ROOT)) for path in shell_scripts(tracked())]
    done = run("shellcheck", "--exclude=SC1091", "--format=gcc", *names)
    return Report(f"{len(names)} shell scripts with shellcheck", [], done.stdout.splitlines())


def shell_scripts(paths: Iterable[Path]) -> list[Path]:
    return [p for p in paths if p.is_file() and SHELL.match(p.read_bytes()[:64])]


# The image


def images() -> Report:
    names = [path for path in tracked() if path.name.endswith("Dockerfile")]
    faults = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in names
        for fault in dockerfile_faults(path.read_text(), is_ours="tests" not in path.parts)
    ]
    unseen = ["the packages of the operating system in the base image: scan the built image"]
    if run("docker", "info").returncode:
        unseen.append("the built image: no container engine; `tests/containers` looks into it")
    return Report(f"{len(names)} Dockerfiles", unseen, faults)


def dockerfile_faults(text: str, *, is_ours: bool = True) -> list[str]:
    """Return what is wrong with a Dockerfile.

    Args:
        is_ours: whether it makes an image for others; the tests' images may run as root.
    """
    lines = re.sub(r"\\\n", " ", text).splitlines()
    steps = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    defaults = dict(rest.split("=", 1) for verb, *(rest,) in steps if verb == "ARG" and "=" in rest)
    faults: list[str] = []
    stages: set[str] = set()
    user = "root"
    for verb, rest in steps:
        if verb == "FROM":
            image, *name = rest.split(" AS ")
            image = re.sub(r"\$\{(\w+)\}", lambda found: defaults.get(found[1], ""), image)
            is_known = image in stages | {"scratch", ""}
            if is_ours and not is_known and not re.search(r":(?!latest$)[\w.-]+$", image):
                faults.append(f"the base {image!r} has no version")
            stages.update(name)
            user = "root"
        elif verb == "USER":
            user = rest.partition(":")[0]
        elif verb == "ADD":
            faults.append(f"ADD {rest}: fetches and unpacks what it is given; use COPY")
        elif verb in {"ARG", "ENV"} and SECRET_NAME.search(rest):
            faults.append(f"{verb} {rest}: a secret stays in the image's history")
        elif (
            verb == "RUN"
            and "pip install" in rest
            and not re.search(r"--require-hashes|--no-index|requirements\.lock", rest)
        ):
            faults.append("RUN pip install: without the lock's hashes")
    if is_ours and user in {"root", "0"}:
        faults.append("runs as root")
    return faults


# Secrets


def secrets() -> Report:
    found = scan(ROOT)
    seen = (
        f"{found.files} files of the tree and {found.blobs} of the history for {len(SCHEMES)} kinds"
    )
    unseen = ["secrets of other kinds, such as a password without its name"]
    if found.is_shallow:
        unseen.append("older commits: this clone is shallow")
    return Report(f"{seen} of secrets", unseen, found.faults)


CHECKS: dict[str, Callable[[], Report]] = {
    "known weaknesses": known_weaknesses,
    "dangerous calls": dangerous_calls,
    "shell scripts": scripts,
    "images": images,
    "secrets": secrets,
}


def main() -> int:
    count = 0
    for name, check in CHECKS.items():
        report = check()
        count += len(report.faults)
        sys.stdout.write(f"{name}: {len(report.faults)} found; looked at {report.seen}\n")
        sys.stdout.writelines(f"  could not see: {line}\n" for line in report.unseen)
        sys.stdout.writelines(f"  FOUND: {line}\n" for line in report.faults)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
