"""The built wheel works in an Airflow that knows nothing else of this project."""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_executor.options import OPTIONS, SECTION
from nats_executor.provider import get_provider_info
from tests.tools.boundaries import PACKAGES, ROOT

if TYPE_CHECKING:
    from tests.packaging.conftest import Installation

pytestmark = pytest.mark.packaging

INFO = get_provider_info()


@pytest.mark.parametrize("path", [*INFO["executors"], *INFO["cli"]])
def test_what_the_metadata_names_can_be_imported(path: str) -> None:
    module, _, name = path.rpartition(".")

    assert callable(getattr(importlib.import_module(module), name))


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    shipped = {name for name in names if name.partition("/")[0] in PACKAGES}
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert shipped == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_page_is_small_and_needs_nothing_from_elsewhere(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    scripts = [name for name in archive.namelist() if name.endswith(".js")]
    sources = [archive.read(name).decode() for name in scripts]

    assert "nats_executor/ui/static/page.js" in scripts
    assert sum(map(len, sources)) < 60_000
    for source in sources:
        assert "http://" not in source
        assert "https://" not in source
        assert all(name.startswith("./") for name in re.findall(r'from "([^"]+)"', source))


def test_the_command_line_builds(installation: Installation) -> None:
    """What the metadata names wrongly is a warning at the top of every command's output."""
    shown = installation.run("airflow", "nats", "--help")

    assert "worker" in shown
    assert "warning" not in shown.lower()


def test_airflow_knows_the_options(installation: Installation) -> None:
    shown = installation.run("airflow", "config", "list", "--section", SECTION, "--defaults")

    assert f"[{SECTION}]" in shown
    assert [o.name for o in OPTIONS if f"{o.name} =" not in shown] == []


def test_airflow_knows_the_executor_by_the_path_that_the_readme_gives(
    installation: Installation,
) -> None:
    shown = installation.run("airflow", "providers", "executors", "-o", "json")

    paths = [row["executor_class_names"] for row in json.loads(shown)]
    assert [path for path in paths if "NatsExecutor" in path] == ["nats_executor.NatsExecutor"]
    assert "executor = nats_executor.NatsExecutor" in (ROOT / "README.md").read_text()


EXAMPLES = """
import json
from airflow.dag_processing.bundles.manager import DagBundlesManager

bundles = {b.name: str(b.path) for b in DagBundlesManager().get_all_dag_bundles()}
print(json.dumps(bundles["airflow-nats-executor-example-dags"]))
"""


def test_airflow_finds_the_example_dag_and_logs_no_error(installation: Installation) -> None:
    """Every process that runs a task looks, and what is missing is a traceback in its log."""
    shown = installation.run("python", "-c", EXAMPLES, AIRFLOW__CORE__LOAD_EXAMPLES="True")

    assert "airflow_nats_executor" not in "".join(shown.splitlines()[:-1])
    found = {path.stem for path in Path(json.loads(shown.splitlines()[-1])).glob("*.py")}
    assert found == {"__init__", "nats_demo"}


def test_airflow_finds_the_documentation(wheel: Path) -> None:
    """It takes the address of `[project.urls]` with exactly this label."""
    archive = zipfile.ZipFile(wheel)
    metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))

    assert "\nProject-URL: Documentation, https://" in archive.read(metadata).decode()


def test_the_worker_has_a_command_of_its_own(installation: Installation) -> None:
    shown = installation.run("nats-worker", "--help")

    assert "--queues" in shown
    assert "--concurrency" in shown
