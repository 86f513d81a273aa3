"""Look into what was built: wheel, sdist, and what PyPI will show of them."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from email import message_from_string
from typing import TYPE_CHECKING

from tests.tools.boundaries import PACKAGES

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

__all__ = ["LABELS", "links", "metadata_faults", "metadata_of", "sdist_faults", "wheel_faults"]

LABELS = {"Homepage", "Documentation", "Changelog", "Issues", "Source", "Security"}
CLASSIFIERS = {
    "Framework :: Apache Airflow",
    "Framework :: Apache Airflow :: Provider",
    "Typing :: Typed",
}
IN_WHEEL = {
    *(f"{package}/py.typed" for package in PACKAGES),
    "nats_executor/ui/static/page.js",
    "nats_executor/ui/static/delivery.js",
}
IN_SDIST = {
    "LICENSE", "README.md", "SECURITY.md", "CHANGELOG.md", "pyproject.toml",
    "airflow-nats-executor.cdx.json",
}  # fmt: skip
# Markdown's links and pictures, and the HTML that GitHub's and PyPI's pages know.
LINK = re.compile(r'\]\(([^)\s]+)|\b(?:src|srcset|href)="([^"]+)"')


def wheel_faults(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        sboms = [name for name in names if name.startswith(f"{info}/sboms/")]
        listed = [json.loads(archive.read(name)) for name in sboms if name.endswith(".cdx.json")]
    tops = {name.partition("/")[0] for name in names} - {*PACKAGES, info}
    faults = [f"the wheel has {name}, which is no package" for name in sorted(tops)]
    wanted = IN_WHEEL | {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"}
    faults += [f"the wheel has no {name}" for name in sorted(wanted - names)]
    version = info.removesuffix(".dist-info").rpartition("-")[2]
    described = [bom["metadata"]["component"].get("version") for bom in listed]
    if described != [version]:
        faults.append(f"the wheel's SBOMs describe {described}, not {version}")
    return faults


def sdist_faults(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    faults = [f"the sdist has no {name}" for name in sorted(IN_SDIST - names)]
    if any(name.startswith("tests/") for name in names):
        faults.append("the sdist has tests, which need the repository")
    return faults


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def links(text: str) -> list[str]:
    """Return where a page leads to; what is in a block of code is no link."""
    prose = re.sub(r"(?ms)^```.*?^```$|`[^`\n]+`", "", text)
    found = (one or other for one, other in LINK.findall(prose))
    # `srcset` lists pictures with their widths.
    return [part.split()[0] for link in found for part in link.split(",") if part.strip()]


def metadata_faults(found: Message) -> list[str]:
    labels = {url.partition(",")[0] for url in found.get_all("Project-URL", [])}
    classifiers = set(found.get_all("Classifier", []))
    faults = [f"no project URL {label}" for label in sorted(LABELS - labels)]
    faults += [f"no classifier {name}" for name in sorted(CLASSIFIERS - classifiers)]
    if not found.get("Keywords"):
        faults.append("no keywords")
    if found.get("License-Expression") != "Apache-2.0":
        faults.append("the licence is not Apache-2.0")
    text = found.get_payload()
    faults += [
        f"PyPI's page links to {link}, which is not there"
        for link in links(str(text))
        if not re.match(r"https://|mailto:|#", link)
    ]
    return faults
