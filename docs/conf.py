# ruff: noqa: INP001 - a folder of pages is no package
"""Configures Sphinx, which makes the site of the pages below this folder: `make site`.

The pages are plain Markdown, so that a Git host shows them as well. `index.md` has the order: the
links below each of its headings are a part of the site's table of contents.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
REPOSITORY = "https://github.com/airflow-nats-executor/airflow-nats-executor/blob/main"

project = html_title = "airflow-nats-executor"
author = "The airflow-nats-executor authors"
extensions = ["myst_parser"]
nitpicky = True
# A block that Pygments cannot colour is shown plain. All other warnings are errors.
suppress_warnings = ["misc.highlighting_failure"]
# GitHub's anchors, which the pages' links name.
myst_heading_anchors = 4
html_theme = "furo"
# Two builds of the same pages are the same bytes.
html_copy_source = html_show_sourcelink = html_show_sphinx = False
# The search would fetch each page that it finds, for a summary, and a browser lets no file do that.
html_show_search_summary = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

PART = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!## ).*\n)*)", re.MULTILINE)
PAGE = re.compile(r"\]\((?P<page>[\w/-]+)\.md\)")
LINK = re.compile(r"\]\((?P<path>\.\.?/[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def contents(index: str) -> str:
    """Return the table of contents of the site, as `index.md` has it."""
    parts = []
    for part in PART.finditer(index):
        pages = "\n".join(PAGE.findall(part["body"]))
        parts.append(f"\n```{{toctree}}\n:hidden:\n:caption: {part['title']}\n\n{pages}\n```\n")
    return "".join(parts)


def elsewhere(text: str, page: Path) -> str:
    """Return a page with links to the repository for files that are not below this folder."""

    def address(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / link["path"]))
        if target.is_relative_to(HERE) or not target.exists():
            return link[0]
        return f"]({REPOSITORY}/{target.relative_to(HERE.parent)}{link['anchor'] or ''})"

    return LINK.sub(address, text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Prepare a page for Sphinx."""
    text = elsewhere(source[0], Path(app.env.doc2path(name)))
    source[0] = text + contents(text) if name == "index" else text


def setup(app: Sphinx) -> None:
    """Take part in the build."""
    app.connect("source-read", read)
