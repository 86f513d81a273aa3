"""The pictures are those of this code, and what README shows is true."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from nats_executor.wire.names import Names
from tests.tools import installing
from tests.tools.boundaries import ROOT
from tests.tools.installing import current
from tests.tools.pictures import IMAGES, STEPS, badges, pictures

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 200_000
README = ROOT / "README.md"
LIFE = ROOT / "docs/explanation/life-of-a-task.md"
THEMES = ("light", "dark")


@pytest.mark.parametrize("name", sorted(pictures()))
def test_a_drawing_is_current(name: str) -> None:
    """`make pictures` draws it."""
    text = (IMAGES / name).read_text()

    assert text == pictures()[name]
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314


@pytest.mark.parametrize("theme", THEMES)
def test_the_architecture_has_the_codes_own_names(theme: str) -> None:
    text = pictures()[f"architecture-{theme}.svg"]
    names = Names()

    for name in (names.tasks_stream, names.results_stream, names.workers_bucket):
        assert name in text
    assert "airflow.tasks.&lt;queue&gt;.&lt;dispatch id&gt;" in text


def test_a_badge_says_what_was_tested() -> None:
    said = badges()

    assert (said["airflow"], said["python"]) == ("3.3 | 3.4", "3.11 | 3.12 | 3.13")
    assert said["license"] == "Apache-2.0"
    assert said["version"].endswith(", unreleased") is not installing.is_released()


def test_a_version_with_a_failure_is_on_no_badge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "tested.json"
    rows = (("3.3.2", 9, 0), ("3.4.0", 9, 1), ("3.5.0", 0, 0))
    record.write_text(
        str([
            {"airflow": airflow, "python": "3.11.7", "passed": passed, "failed": failed}
            for airflow, passed, failed in rows
        ]).replace("'", '"')
    )  # fmt: skip
    monkeypatch.setattr("tests.tools.pictures.RECORD", record)

    assert badges()["airflow"] == "3.3"


def test_each_step_of_a_tasks_life_is_told() -> None:
    steps = re.findall(r"(?m)^(\d+)\. \*\*", LIFE.read_text())

    assert [int(step) for step in steps] == list(range(1, len(STEPS) + 1))


def shown(page: Path) -> set[str]:
    """Return the files that a page shows or links to, as it names them."""
    found = re.findall(r'(?:src|srcset)="([^"]+)"|\]\(([^)#\s]+)', page.read_text())
    return {a or b for a, b in found if not (a or b).startswith("http")}


@pytest.mark.parametrize("page", [README, LIFE], ids=lambda page: page.stem)
def test_what_a_page_shows_is_there(page: Path) -> None:
    assert {name for name in shown(page) if not (page.parent / name).exists()} == set()


@pytest.mark.parametrize("picture", ["ui-queues", "architecture"])
def test_readme_shows_a_picture_in_both_themes(picture: str) -> None:
    kinds = [name for name in shown(README) if f"/{picture}-" in name]

    assert sorted(name.rpartition("-")[2].split(".")[0] for name in kinds) == sorted(THEMES)


def test_screenshots_are_small_and_there_in_both_themes() -> None:
    files = {path.name: path.read_bytes() for path in IMAGES.glob("ui-*.png")}
    sizes = {name: struct.unpack(">II", data[16:24]) for name, data in files.items()}

    assert {name for name, data in files.items() if len(data) > MOST_BYTES} == set()
    for view in ("queues", "workers"):
        assert sizes[f"ui-{view}-light.png"] == sizes[f"ui-{view}-dark.png"]


# What to install

BEFORE = """\
PyPI has none yet. <!-- before the first release -->
$ make build      # before the first release: the wheel
$ pip install dist/airflow_nats_executor-0.1.0-py3-none-any.whl psycopg2-binary
$ pip install 'dist/airflow_nats_executor-0.1.0-py3-none-any.whl[server]'
# before the first release: the wheel of `make build`
COPY dist dist
COPY dags dags
RUN pip install --no-cache-dir dist/airflow_nats_executor-0.1.0-py3-none-any.whl
"""
AFTER = """\
$ pip install airflow-nats-executor psycopg2-binary
$ pip install 'airflow-nats-executor[server]'
COPY dags dags
RUN pip install --no-cache-dir airflow-nats-executor
"""


def test_before_the_release_pages_install_the_wheel_and_then_the_package() -> None:
    assert current(BEFORE, released=True, release="0.1.0") == AFTER
    without = [
        line for line in BEFORE.splitlines() if "before the" not in line and "dist d" not in line
    ]
    assert current(AFTER, released=False, release="0.1.0").splitlines() == without


@pytest.mark.parametrize("released", [False, True])
def test_nothing_else_is_rewritten(released: bool) -> None:
    text = "$ pip install airflow-nats-executor-tools\n$ airflow nats check  # before a release\n"

    assert current(text, released=released, release="0.1.0") == text


@pytest.mark.parametrize(
    ("changelog", "released"),
    [
        ("## [Unreleased]\n\nThe first release will be 0.1.0.\n", False),
        ("## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n", True),
    ],
)
def test_the_changelog_says_whether_there_is_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changelog: str, released: bool
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    monkeypatch.setattr(installing, "ROOT", tmp_path)

    assert installing.is_released() is released


def test_every_page_installs_what_there_is() -> None:
    """`make docs` rewrites them once the changelog has a release."""
    released, release = installing.is_released(), installing.version()
    texts = {str(page): page.read_text() for page in installing.pages()}

    assert [
        page
        for page, text in texts.items()
        if text != current(text, released=released, release=release)
    ] == []
