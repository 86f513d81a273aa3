"""Write the table of the chart's values, from their comments, into a page: `make docs`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["document", "leaves", "table"]

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):")
BEGIN = "<!-- values: written by `make docs` -->"
END = "<!-- end -->"


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return every value by its path; an empty map is one, too."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{here}.")
        else:
            found[here] = value
    return found


def comments(text: str) -> dict[str, str]:
    """Return the comment above each key by the key's path."""
    found: dict[str, str] = {}
    place: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
        elif match := KEY.match(line):
            place[len(match["indent"]) // 2 :] = [match["key"]]
            if above:
                found[".".join(place)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def table(text: str) -> str:
    """Return a row for each value of the chart, with its default and what its comment says."""
    said = comments(text)
    rows = ["| value | default | what |", "|---|---|---|"]
    for path, value in leaves(yaml.safe_load(text)).items():
        default = f"`{json.dumps(value)}`" if value not in ("", None) else "none"
        rows.append(f"| `{path}` | {default} | {said.get(path, '')} |")
    return "\n".join(rows)


def document(page: str, values: str) -> str:
    """Return the page with the table of these values in its place."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(values)}\n{END}{tail}"


if __name__ == "__main__":
    page, values = map(Path, sys.argv[1:])
    page.write_text(document(page.read_text(), values.read_text()))
