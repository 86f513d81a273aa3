"""Look at the chart as Artifact Hub reads it."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["DEMANDED", "KINDS", "chart_faults"]

PREFIX = "artifacthub.io/"
# The rest of Artifact Hub's annotations is for what this chart has not: CRDs, signing keys.
DEMANDED = (
    "category", "changes", "containsSecurityUpdates", "images", "license", "links",
    "operator", "prerelease", "recommendations",
)  # fmt: skip
KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}
LISTS = {"changes": "description", "images": "image", "links": "url", "recommendations": "url"}
FIELDS = ("description", "home", "keywords", "kubeVersion", "maintainers", "sources")


def chart_faults(text: str, version: str) -> list[str]:
    """Return what is wrong with a Chart.yaml for that version of the package."""
    chart = yaml.safe_load(text)
    faults = [
        f"Chart.yaml: {name} is {chart.get(name)!r}, the package {version!r}"
        for name in ("version", "appVersion")
        if chart.get(name) != version
    ]
    faults += [f"Chart.yaml has no {name}" for name in FIELDS if not chart.get(name)]
    notes: dict[str, Any] = {
        name.removeprefix(PREFIX): value for name, value in (chart.get("annotations") or {}).items()
    }
    faults += [f"Chart.yaml has no {PREFIX}{name}" for name in DEMANDED if name not in notes]
    faults += [f"{PREFIX}{name} is no text" for name, v in notes.items() if not isinstance(v, str)]
    return faults or [fault for name in LISTS for fault in list_faults(name, notes[name], version)]


def list_faults(name: str, text: str, version: str) -> list[str]:
    """Return what is wrong with an annotation that is a list, written as text."""
    try:
        items = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        return [f"{PREFIX}{name} is no YAML: {exc}"]
    if not isinstance(items, list) or not items:
        return [f"{PREFIX}{name} is no list, or an empty one"]
    faults = [f"{PREFIX}{name}: {i!r} has no {LISTS[name]}" for i in items if LISTS[name] not in i]
    if name == "changes":
        faults += [
            f"{PREFIX}changes: no kind {i['kind']!r}" for i in items if i["kind"] not in KINDS
        ]
    if name == "images":
        wrong = [i["image"] for i in items if not i["image"].endswith(f":{version}")]
        faults += [f"{PREFIX}images: {image} is not of {version}" for image in wrong]
    return faults
