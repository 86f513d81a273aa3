"""Writes into README and docs what to install: the wheel, and after the release its name.

The changelog decides: once it has a section of a version, the package is on PyPI, and `make docs`
rewrites every `pip install` of it. Run as `python -m tests.tools.installing`.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["current", "is_released", "pages", "version"]

NAME = "airflow-nats-executor"
# Lines with this remark are true before the first release only, as is a COPY below one.
BEFORE = re.compile(r"^.*(?:#|<!--) before the first release.*\n(?: *COPY .*\n)?", re.MULTILINE)
WHEEL = r"dist/airflow_nats_executor-[\w.]+-py3-none-any\.whl"
# What `pip install` gets: the name or the wheel, in quotes with extras and without quotes.
REQUIREMENT = re.compile(
    rf"(?m)(?<=pip install )(?P<options>(?:--?[\w-]+ )*)(?P<quote>'?)(?:{NAME}|{WHEEL})(?![\w.-])"
)


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def is_released() -> bool:
    """Whether the changelog has a section of a version."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    return re.search(r"^## \[\d+\.\d+\.\d+\]", changelog, re.MULTILINE) is not None


def current(text: str, *, released: bool, release: str) -> str:
    """Return a page with what can be installed now."""
    what = NAME if released else f"dist/airflow_nats_executor-{release}-py3-none-any.whl"
    text = REQUIREMENT.sub(rf"\g<options>\g<quote>{what}", text)
    return BEFORE.sub("", text) if released else text


def pages() -> Iterator[Path]:
    """Return the pages that people write; `docs/reference` has what the programs print."""
    yield ROOT / "README.md"
    docs = ROOT / "docs"
    yield from (page for page in sorted(docs.rglob("*.md")) if page.parent.name != "reference")


def main() -> None:
    for page in pages():
        page.write_text(current(page.read_text(), released=is_released(), release=version()))


if __name__ == "__main__":
    main()
