"""Finds the starts of Celery's parts, and Airflow's variables, in files that people have.

The files are unit files, shell scripts, compose files, manifests and Helm values.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from nats_executor.migration.verbs import WORKER_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "PartStart",
    "flags_in",
    "starts_in_text",
    "starts_in_tree",
    "variables_in",
    "variables_in_tree",
]

STARTED = re.compile(r"\bcelery\s+(?P<part>worker|flower)\b(?P<rest>[^\n]*)")
CONTINUED = re.compile(r"\\\s*\n\s*")
ENDS = frozenset({";", "&&", "||", "|", "&"})
COMMENT = re.compile(r"^\s*[#;].*$", re.MULTILINE)
AIRFLOW_VARIABLE = re.compile(
    r"\bAIRFLOW__(?P<section>[A-Z0-9_]+?)__(?P<option>[A-Z0-9_]+)[\"']?\s*[=:]\s*"
    r"(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']*)"
)
VARIABLE_NAME = re.compile(r"AIRFLOW__(?P<section>[A-Z0-9_]+?)__(?P<option>[A-Z0-9_]+)")
# Of a list of words such as `["airflow", "celery", "worker"]`.
PROGRAM = "celery"


class PartStart(NamedTuple):
    """The start of a worker or of Flower: the words behind `worker` or `flower`."""

    part: str
    words: tuple[str, ...]


def starts_in_text(text: str) -> list[PartStart]:
    """Return what a script, a unit file or one line starts."""
    joined = CONTINUED.sub(" ", COMMENT.sub("", text))
    return [
        PartStart(found["part"], command_words(found["rest"])) for found in STARTED.finditer(joined)
    ]


def command_words(rest: str) -> tuple[str, ...]:
    """Return the words of one command; quotes that do not match are characters like others."""
    try:
        words = shlex.split(rest, comments=True)
    except ValueError:
        words = rest.split()
    for position, word in enumerate(words):
        if word in ENDS:
            return tuple(words[:position])
        if word.endswith(";"):
            return (*words[:position], word.rstrip(";"))
    return tuple(words)


def starts_in_tree(tree: Any) -> Iterator[PartStart]:
    """Yield what the commands in a YAML file start: each is one text, or a list of words."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from starts_in_tree(value)
    elif isinstance(tree, list):
        words = [str(word) for word in tree]
        if PROGRAM in words and words[words.index(PROGRAM) + 1 :][:1] in (["worker"], ["flower"]):
            part, *rest = words[words.index(PROGRAM) + 1 :]
            yield PartStart(part, tuple(rest))
            return
        for value in tree:
            yield from starts_in_tree(value)
    elif isinstance(tree, str):
        yield from starts_in_text(tree)


def flags_in(words: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Return the flags of a worker by their first name, and the words that are none of them."""
    by_name = {name: flag for flag in WORKER_FLAGS for name in flag.names}
    found: dict[str, str] = {}
    unknown: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        flag = by_name.get(name) or by_name.get(word[:2])
        if flag is None:
            unknown.append(word)
        elif not flag.takes:
            found[flag.names[0]] = ""
        elif equals and name in by_name:
            found[flag.names[0]] = value
        elif word in by_name:
            found[flag.names[0]] = left.pop(0) if left else ""
        else:  # -c16
            found[flag.names[0]] = word[2:]
    return found, unknown


def variables_in(text: str) -> dict[tuple[str, str], str]:
    """Return Airflow's options that a file sets as variables, by section and option."""
    return {
        (found["section"].lower(), found["option"].lower()): found["value"].strip("\"'")
        for found in AIRFLOW_VARIABLE.finditer(COMMENT.sub("", text))
    }


def variables_in_tree(tree: Any) -> Iterator[tuple[tuple[str, str], str | None]]:
    """Yield the options that Kubernetes' lists of variables set; None for a value from a Secret."""
    if isinstance(tree, dict):
        if found := VARIABLE_NAME.fullmatch(str(tree.get("name"))):
            value = tree.get("value")
            place = found["section"].lower(), found["option"].lower()
            yield place, None if value is None else str(value)
        for inner in tree.values():
            yield from variables_in_tree(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from variables_in_tree(inner)
