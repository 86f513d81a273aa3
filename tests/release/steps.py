"""The steps of a release's check that need no Airflow of their own."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.release import artifacts, roll
from tests.release.changelog import NotRolled, compatibility, notes
from tests.release.chart import chart_faults
from tests.release.report import Step, failed, passed, unchecked
from tests.release.running import BIN, HELM, TOOLS, run
from tests.support.charts import values
from tests.support.release import BEFORE_THE_FIRST, ReleaseMissing, last_release, lay_out
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import RECORD, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.release.report import Outcome

__all__ = ["STEPS", "built", "told_by_pytest"]

DIST = ROOT / "dist"
WORKFLOWS = ROOT / ".github" / "workflows"
SBOM = "airflow-nats-executor.cdx.json"


def told(faults: list[str], right: str) -> Iterator[Outcome]:
    yield from map(failed, faults) if faults else [passed(right)]


def tree() -> Iterator[Outcome]:
    changed = run("git", "status", "--porcelain").splitlines()
    yield from told([f"not committed: {line}" for line in changed], "everything is committed")
    run(TOOLS / "python", "-m", "tests.release.sbom", SBOM, "--check")
    yield passed(f"{SBOM} is what pyproject.toml declares, and valid")
    tag = run("git", "tag", "--points-at", "HEAD", "--list", "v*").split()
    version = roll.version()
    if tag:
        yield from told(
            [f"tag {t}, version {version}" for t in tag if t != f"v{version}"], f"tag {tag[0]}"
        )


def changelog() -> Iterator[Outcome]:
    """Before the roll it is tried; afterwards, as on a tag, the release has its section."""
    text, version = (ROOT / "CHANGELOG.md").read_text(), roll.version()
    try:
        if f"## [{version}]" in text:
            yield passed(
                f"CHANGELOG.md has {len(notes(text, version).splitlines())} lines on {version}"
            )
        else:
            roll.files("2026-01-01")
            yield passed(f"`make roll` can make [Unreleased] the section [{version}]")
        yield passed(compatibility(rows_of((ROOT / RECORD).read_text())))
    except NotRolled as exc:
        yield failed(str(exc))
    faults = roll.install_faults((ROOT / "README.md").read_text())
    yield from told(faults, "README.md has one line that installs")


def workflows() -> Iterator[Outcome]:
    files = sorted(WORKFLOWS.glob("*.yml"))
    run(TOOLS / "actionlint", "-shellcheck=", "-pyflakes=", *files)
    yield passed(f"actionlint finds nothing in {', '.join(path.name for path in files)}")
    run(TOOLS / "zizmor", "--offline", "--no-progress", "--persona=pedantic", *files)
    yield passed("zizmor finds nothing, offline")
    if os.environ.get("GH_TOKEN"):
        run(TOOLS / "zizmor", "--no-progress", "--persona=pedantic", *files)
        yield passed("zizmor finds nothing, online: each commit of an action is that of its tag")
    else:
        yield unchecked("whether each commit of an action is its tag's: set GH_TOKEN for zizmor")


def chart() -> Iterator[Outcome]:
    folder = ROOT / "deploy" / "helm"
    yield from told(
        chart_faults((folder / "Chart.yaml").read_text(), roll.version()),
        "Chart.yaml has what Artifact Hub shows",
    )
    with tempfile.TemporaryDirectory() as out:
        least = Path(out) / "values.json"
        least.write_text(json.dumps(values()))
        run(HELM, "lint", "--strict", folder, "-f", least)
        yield passed("helm lint --strict")
        run(HELM, "package", folder, "-d", out)
        [package] = Path(out).glob("*.tgz")
        run(HELM, "template", "release", package, "-f", least)
        yield passed(f"helm package makes {package.name}, and helm renders it")


# Wheel and sdist


def copied(folder: Path, mode: int) -> Path:
    """Copy what git tracks, with times and permissions of its own."""
    for name in run("git", "ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            target.chmod(mode)
            os.utime(target, (mode * 10**6, mode * 10**6))
    return folder


def build(folder: Path) -> dict[str, bytes]:
    run(
        BIN / "uv",
        "build",
        "-q",
        "--no-build-isolation",
        "-p",
        sys.executable,
        "-o",
        folder / "dist",
        folder,
    )
    names = sorted(path for path in (folder / "dist").iterdir() if path.suffix in {".whl", ".gz"})
    return {path.name: path.read_bytes() for path in names}


@functools.cache
def built() -> Path:
    """Return the wheel of this checkout, in `dist/`."""
    run(
        BIN / "uv",
        "build",
        "-q",
        "--no-build-isolation",
        "--clear",
        "-p",
        sys.executable,
        "-o",
        DIST,
        ROOT,
    )
    [wheel] = DIST.glob("*.whl")
    return wheel


def packages() -> Iterator[Outcome]:
    wheel = built()
    [sdist] = DIST.glob("*.tar.gz")
    own = {path.name: path.read_bytes() for path in (wheel, sdist)}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first = build(copied(Path(one) / "a", 0o644))
        second = build(copied(Path(other) / "another" / "folder", 0o600))
        for name in first:
            if own[name] == first[name] == second.get(name):
                yield passed(f"{name}: the same bytes from three folders, times and permissions")
            else:
                yield failed(f"{name}: other bytes from another folder, time or permission")
        run(
            sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", one, sdist, cwd=Path(one)
        )
        yield passed("pip builds a wheel from the sdist, with what [build-system] names")
    yield from told(
        artifacts.wheel_faults(wheel), f"{wheel.name} holds what it should, SBOM and licence too"
    )
    yield from told(artifacts.sdist_faults(sdist), f"{sdist.name} holds what it should")
    yield from told(
        artifacts.metadata_faults(artifacts.metadata_of(wheel)), "PyPI's page has no broken link"
    )
    run(TOOLS / "twine", "check", "--strict", wheel, sdist)
    yield passed("twine check --strict")


def upgrade() -> Iterator[Outcome]:
    before = last_release()
    try:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(Path(folder) / "tree", before)
    except ReleaseMissing as exc:
        yield unchecked(f"the release before is not in this clone: {exc}")
        return
    if before == BEFORE_THE_FIRST:
        yield unchecked(
            "no tag yet, so no release before this one: a commit of before stands for it"
        )
    command = [str(BIN / "pytest"), "-q", "-m", "not examples", "tests/upgrade"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["no answer"])[-1]
    what = f"workers, schedulers and setup of {before[:12]} and of now"
    yield from told_by_pytest(what, last, has_failed=bool(done.returncode))


def told_by_pytest(what: str, last: str, *, has_failed: bool) -> Iterator[Outcome]:
    """Yield what pytest's last line says; a test that was skipped has checked nothing."""
    if has_failed:
        yield failed(f"{what}: {last}")
        return
    if re.search(r"\b\d+ passed", last):
        yield passed(f"{what}: {last}")
    if skipped := re.search(r"\b\d+ skipped", last):
        yield unchecked(f"{what}: {skipped[0]}, for want of something on this machine")


STEPS = [
    Step("tree", "committed, the version, the SBOM", tree),
    Step("changelog", "can be rolled, or is", changelog),
    Step("workflows", "GitHub's workflows by their linters", workflows),
    Step("chart", "Artifact Hub's annotations, helm lint and package", chart),
    Step("packages", "wheel and sdist: reproducible, whole, ready for PyPI", packages),
    Step("upgrade", "from the release before", upgrade),
]
