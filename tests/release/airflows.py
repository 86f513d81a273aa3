"""Install the wheel beside each supported Airflow with plain pip, and use it there."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.release.report import failed, passed, unchecked
from tests.release.running import Refused, run
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.release.report import Outcome

__all__ = ["CONSTRAINTS", "Place", "all_releases", "checked", "constraints_for", "releases"]

# Where Airflow's project keeps the versions that it was released with. A mirror, or a folder with
# `file:///`: {airflow} and {python} are put in.
CONSTRAINTS = os.environ.get(
    "RELEASE_CONSTRAINTS_URL",
    "https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{python}.txt",
)
SCHEMA = """
import json, airflow, jsonschema, pathlib
from nats_executor.provider import get_provider_info
schema = json.loads(pathlib.Path(airflow.__path__[0], "provider_info.schema.json").read_text())
faults = jsonschema.Draft7Validator(schema).iter_errors(get_provider_info())
print(json.dumps([fault.message for fault in faults]))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A virtual environment and an AIRFLOW_HOME, both outside the checkout."""

    folder: Path

    def run(self, command: str, *arguments: str, seconds: float = 600) -> str:
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        env = {"AIRFLOW_HOME": str(home), "COLUMNS": "100000", "PATH": path}
        return run(self.folder / "bin" / command, *arguments, cwd=home, seconds=seconds, **env)


def releases(makefile: str, lock: str) -> list[str]:
    """Return the supported releases of Airflow: what make tries, and what the lock pins."""
    found = [
        re.search(rf"(?m)^{name} := (.*)$", makefile)
        for name in ("AIRFLOW_VERSIONS", "NEXT_AIRFLOW")
    ]
    others, following = (match[1].split() if match else [] for match in found)
    pinned = re.findall(r"(?m)^apache-airflow==(\S+)", lock)
    return [*others, *pinned, *following]


def constraints_for(release: str) -> tuple[str, str]:
    """Return the constraints' address, and why they cannot be had, if so."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    url = CONSTRAINTS.format(airflow=release, python=python)
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - ours, or the caller's
            answer.read(1)
    except (OSError, ValueError) as exc:
        return url, f"{url}: {exc}"
    return url, ""


def checked(release: str, wheel: Path) -> Iterator[Outcome]:
    """Yield what an Airflow says to the wheel, without its constraints and with them."""
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        place = Place(Path(folder) / "without")
        install(place, [f"apache-airflow=={release}", f"{wheel}[server]"])
        yield passed(f"pip installs it beside Airflow {release}, without constraints")
        yield from used(place, release)
        shutil.rmtree(place.folder)
        url, why_not = constraints_for(release)
        if why_not:
            yield unchecked(f"Airflow {release} with its constraints cannot be had here: {why_not}")
            return
        place = Place(Path(folder) / "with")
        # As Airflow's documentation says: constraints for Airflow itself, the rest beside it.
        install(place, [f"apache-airflow=={release}", "--constraint", url])
        install(place, [f"apache-airflow=={release}", f"{wheel}[server]"])
        yield passed(f"pip installs it beside Airflow {release} with its constraints")
        yield from used(place, release)


def install(place: Place, what: list[str]) -> None:
    if not place.folder.exists():
        run(sys.executable, "-m", "venv", place.folder, cwd=place.folder.parent)
    place.run("pip", "install", "-q", *what, seconds=1800)


def used(place: Place, release: str) -> Iterator[Outcome]:
    """Yield what the commands say, and whether the demo runs to its end."""
    place.run("pip", "check")
    yield passed("pip check: all requirements are met")
    shown = place.run("airflow", "version").split()
    yield (passed if shown[-1:] == [release] else failed)(f"airflow version says {shown[-1:]}")
    shown_help = place.run("airflow", "nats", "--help")
    told = "worker" in shown_help and "warning" not in shown_help.lower()
    yield (passed if told else failed)("airflow nats --help lists its commands, without a warning")
    names = [
        r["package_name"]
        for r in json.loads(place.run("airflow", "providers", "list", "-o", "json"))
    ]
    yield (passed if "airflow-nats-executor" in names else failed)("airflow providers list has it")
    plugins = place.run("airflow", "plugins", "-o", "json")
    yield (passed if "nats_executor" in plugins else failed)("airflow plugins has the page")
    faults = json.loads(place.run("python", "-c", SCHEMA).splitlines()[-1])
    yield (
        failed("; ".join(faults)) if faults else passed("provider_info fits this Airflow's schema")
    )
    try:
        ended = place.run("airflow", "nats", "demo").strip().splitlines()[-1].strip()
    except Refused as exc:
        yield failed(f"airflow nats demo: {exc}")
    else:
        yield (passed if "as expected" in ended else failed)(f"airflow nats demo: {ended}")


def all_releases() -> list[str]:
    return releases((ROOT / "Makefile").read_text(), (ROOT / "requirements.lock").read_text())
