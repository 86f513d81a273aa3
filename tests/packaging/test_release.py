"""What a release is checked by, and as much of that check as takes seconds."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from email.message import Message
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.release import roll
from tests.release.airflows import releases
from tests.release.artifacts import (
    LABELS,
    links,
    metadata_faults,
    metadata_of,
    sdist_faults,
    wheel_faults,
)
from tests.release.changelog import NotRolled, compatibility, notes, rolled
from tests.release.chart import DEMANDED, chart_faults
from tests.release.report import Line, State, exit_code, failed, passed, table, unchecked
from tests.release.running import TOOLS, Refused, run
from tests.release.steps import told_by_pytest
from tests.support.require import require
from tests.tools.boundaries import ROOT
from tests.tools.document_tested import RECORD, Row, rows_of

if TYPE_CHECKING:
    from pathlib import Path

CHART = (ROOT / "deploy/helm/Chart.yaml").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TOOLS_MISSING = "no tools of `make .release/.stamp`"


# The report


def line(step: str, state: State) -> Line:
    make = {State.PASSED: passed, State.FAILED: failed, State.NOT_CHECKED: unchecked}[state]
    return Line(step, make(f"{step} {state}"), 1.5)


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.PASSED], 0),
        ([State.PASSED, State.NOT_CHECKED], 2),
        ([State.NOT_CHECKED, State.FAILED], 1),
        ([], 2),
    ],
)
def test_what_was_not_checked_has_not_passed(states: list[State], code: int) -> None:
    assert exit_code([line("one", state) for state in states]) == code


@pytest.mark.parametrize(
    ("last", "has_failed", "states"),
    [
        ("9 passed in 3.2s", False, [State.PASSED]),
        ("7 passed, 2 skipped, 1 deselected in 3.2s", False, [State.PASSED, State.NOT_CHECKED]),
        ("9 skipped in 0.2s", False, [State.NOT_CHECKED]),
        ("1 failed, 7 passed, 1 skipped in 3.2s", True, [State.FAILED]),
        ("no answer", True, [State.FAILED]),
    ],
)
def test_a_test_that_was_skipped_has_not_passed(
    last: str, has_failed: bool, states: list[State]
) -> None:
    assert [told.state for told in told_by_pytest("it", last, has_failed=has_failed)] == states


def test_the_table_counts_each_step_and_repeats_what_did_not_pass() -> None:
    shown = table([line("a", State.PASSED), line("b", State.NOT_CHECKED), line("b", State.FAILED)])

    assert [row.split() for row in shown.splitlines()[1:4]] == [
        ["a", "1", "0", "0", "2"],
        ["b", "0", "1", "1", "3"],
        ["all", "1", "1", "1", "4"],
    ]
    assert shown.splitlines()[4:] == ["not checked: b: b not checked", "FAILED: b: b FAILED"]


# The changelog

CHANGES = (
    "# Changelog\n\n## [Unreleased]\n\nThe first release will be 0.1.0.\n\n### Added\n\n- One.\n"
)


def test_what_is_unreleased_becomes_the_section_of_the_release() -> None:
    new = rolled(CHANGES, "0.1.0", "2026-12-01", "Tested with X.")

    assert new == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n\nTested with X.\n\n"
        "### Added\n\n- One.\n"
    )
    assert notes(new, "0.1.0") == "Tested with X.\n\n### Added\n\n- One.\n"
    later = new.replace("[Unreleased]\n", "[Unreleased]\n\n### Fixed\n\n- Two.\n", 1)
    again = rolled(later, "0.2.0", "2027-01-01", "Tested with Y.")
    assert re.findall(r"(?m)^## .*", again) == [
        "## [Unreleased]",
        "## [0.2.0] - 2027-01-01",
        "## [0.1.0] - 2026-12-01",
    ]
    assert notes(again, "0.2.0") == "Tested with Y.\n\n### Fixed\n\n- Two.\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CHANGES.replace("- One.", ""), "nothing under"),
        ("# Changelog\n", "nothing under"),
        (CHANGES + "\n## [0.1.0] - 2026-11-01\n\n- Old.\n", "already"),
    ],
)
def test_a_changelog_that_says_nothing_of_the_release_is_refused(text: str, reason: str) -> None:
    with pytest.raises(NotRolled, match=reason):
        rolled(text, "0.1.0", "2026-12-01", "Tested.")
    with pytest.raises(NotRolled, match="no section"):
        notes(CHANGES, "0.1.0")


def test_a_release_names_the_versions_that_passed() -> None:
    def row(airflow: str, failed: int) -> Row:
        return Row(
            airflow=airflow, python="3.11.7", server="2.15.1", what="x", passed=3, failed=failed,
            skipped=0, date="2026-11-30", commit="c",
        )  # fmt: skip

    rows = [row("3.10.0", 0), row("3.4.0b2", 0), row("3.3.0", 0), row("3.2.0", 1)]
    assert compatibility(rows) == (
        "Tested with Airflow 3.3.0, 3.4.0b2, 3.10.0, Python 3.11, nats-server 2.15.1."
    )
    with pytest.raises(NotRolled, match=r"tested\.json"):
        compatibility(rows[-1:])


def test_this_changelog_can_be_rolled_or_is() -> None:
    text, version = (ROOT / "CHANGELOG.md").read_text(), roll.version()
    tested = compatibility(rows_of((ROOT / RECORD).read_text()))
    new = text if f"## [{version}]" in text else rolled(text, version, "2026-12-01", tested)

    assert len(notes(new, version).splitlines()) > 5
    assert roll.install_faults((ROOT / "README.md").read_text()) == []
    assert roll.install_faults("$ pip install x\n") != []


def test_each_supported_airflow_has_a_step() -> None:
    makefile, lock = (ROOT / "Makefile").read_text(), (ROOT / "requirements.lock").read_text()
    tried = {row.airflow for row in rows_of((ROOT / RECORD).read_text())}

    assert set(releases(makefile, lock)) == tried


# The chart


def test_the_chart_has_what_artifact_hub_shows() -> None:
    assert chart_faults(CHART, roll.version()) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        *((f"hub.io/{name}:", f"x/{name}:", f"no artifacthub.io/{name}") for name in DEMANDED),
        ("appVersion: 0.1.0", "appVersion: 0.0.9", "appVersion is '0.0.9'"),
        ("maintainers:", "people:", "no maintainers"),
        ("kind: added", "kind: shiny", "no kind 'shiny'"),
        ("executor:0.1.0", "executor:latest", "latest is not of 0.1.0"),
        ('operator: "false"', "operator: false", "operator is no text"),
        ("- name: Changelog\n      url:", "- name: Changelog\n      at:", "has no url"),
    ],
)  # fmt: skip
def test_a_fault_of_the_chart_is_named(old: str, new: str, fault: str) -> None:
    assert old in CHART
    assert any(fault in found for found in chart_faults(CHART.replace(old, new), "0.1.0"))


# Wheel and sdist


def test_the_wheel_is_ready_for_pypi(wheel: Path) -> None:
    assert wheel_faults(wheel) == []
    assert metadata_faults(metadata_of(wheel)) == []


def test_a_fault_of_a_wheel_is_named(wheel: Path, tmp_path: Path) -> None:
    worse = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(worse, "w") as new:
        for name in old.namelist():
            if name.endswith(("LICENSE", "static/page.js", "nats_worker/py.typed")):
                continue
            text = old.read(name)
            is_sbom = name.endswith(".cdx.json")
            new.writestr(name, text.replace(b'"0.1.0"', b'"0.0.1"') if is_sbom else text)
        new.writestr("tests/test_it.py", "")

    found = "\n".join(wheel_faults(worse))
    for fault in ("has tests,", "LICENSE", "page.js", "no nats_worker/py.typed", "['0.0.1']"):
        assert fault in found


def test_a_fault_of_an_sdist_is_named(tmp_path: Path) -> None:
    sdist = tmp_path / "a.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("a-1/README.md", "a-1/tests/test_it.py"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())

    found = sdist_faults(sdist)
    assert any("has tests" in fault for fault in found)
    assert any("no LICENSE" in fault for fault in found)
    assert not any("README" in fault for fault in found)


def test_a_page_of_pypi_has_no_file_beside_it() -> None:
    page = Message()
    text = (
        '[a](docs/a.md) ![b](https://x/b.png) <img src="docs/c.png"> `[d](e.md)` [f](#g)\n'
        '<source srcset="docs/h.png 2x">\n```text\n[i](j.md)\n```\n'
    )
    page.set_payload(text)

    assert links(text) == ["docs/a.md", "https://x/b.png", "docs/c.png", "#g", "docs/h.png"]
    found = metadata_faults(page)
    assert [f.split()[4] for f in found if "links to" in f] == [
        "docs/a.md,", "docs/c.png,", "docs/h.png,",
    ]  # fmt: skip
    assert {f"no project URL {label}" for label in LABELS} <= set(found)
    assert "no classifier Typing :: Typed" in found


# What `.release` has


def tool(name: str, *arguments: str) -> str:
    require((TOOLS / name).exists(), TOOLS_MISSING)
    return run(TOOLS / name, *arguments)


def test_the_sbom_is_what_the_project_declares(tmp_path: Path) -> None:
    here = ROOT / "airflow-nats-executor.cdx.json"
    tool("python", "-m", "tests.release.sbom", str(here), "--check")

    other = tmp_path / "other.cdx.json"
    other.write_text(here.read_text().replace("msgpack", "pickle"))
    with pytest.raises(Refused, match="run `make docs`"):
        tool("python", "-m", "tests.release.sbom", str(other), "--check")


def test_the_workflows_linters_find_nothing() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    paths = list(map(str, WORKFLOWS))
    tool("actionlint", "-shellcheck=", "-pyflakes=", *paths)
    tool("zizmor", "--offline", "--no-progress", "--persona=pedantic", *paths)


def test_an_action_is_pinned_by_its_commit() -> None:
    used = re.findall(r"(?m)uses: (.*)$", "".join(path.read_text() for path in WORKFLOWS))

    assert len(used) > 10
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_a_pipe_of_a_workflow_fails_with_each_of_its_commands() -> None:
    """Without `shell: bash` GitHub looks at the last one only, such as tee."""
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    steps = [step for job in jobs for step in job["steps"]]
    piped = [step for step in steps if " | " in step.get("run", "")]

    assert piped
    assert all(step.get("shell") == "bash" for step in piped)


def test_a_wrong_key_of_a_workflow_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))

    with pytest.raises(Refused, match="run-on"):
        tool("actionlint", "-shellcheck=", "-pyflakes=", str(wrong))
    unpinned = tmp_path / "unpinned.yml"
    unpinned.write_text(re.sub(r"@[0-9a-f]{40}", "@main", WORKFLOWS[1].read_text()))
    with pytest.raises(Refused, match="pinned"):
        tool("zizmor", "--offline", "--no-progress", str(unpinned))


def test_no_check_finds_the_checkout_by_chance() -> None:
    shown = run("env", PATH=os.environ["PATH"], AIRFLOW_HOME="/x")

    assert "AIRFLOW_HOME=/x" in shown
    assert "PYTHONPATH" not in shown
    with pytest.raises(Refused, match="exit code 1"):
        run("false")
    with pytest.raises(Refused, match="No such file"):
        run("/no/such/program")
