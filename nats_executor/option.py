"""Tells what an option of `[nats_executor]` is, and reads the text of each kind of value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nats_executor.wire.queue_names import in_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONVERTERS", "FORMS", "Option"]

TRUE = frozenset({"t", "true", "1", "yes", "on"})
FALSE = frozenset({"f", "false", "0", "no", "off"})
MODULE = r"[^\W\d]\w*(\.[^\W\d]\w*)*!?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, in the terms of Airflow's provider metadata (`provider_info.schema.json`).

    Attributes:
        form: what a string holds, where that is not text; Airflow knows nothing of it.
        is_login: whether it is a part of the login, which no task may find.
    """

    name: str
    type: str
    default: str | None = None
    example: str
    description: str
    sensitive: bool = False
    is_login: bool = False
    form: str = ""
    version_added: str = "0.1.0"


def number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # no timer takes it
        raise ValueError(text)
    return value


def boolean(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


def integers(text: str) -> tuple[int, ...]:
    return () if text.lower() == "none" else tuple(int(part) for part in text.split(","))


def limits_in(text: str) -> tuple[tuple[str, int], ...]:
    pairs = tuple((queue, int(limit)) for queue, limit in in_pairs(text))
    if not all(limit > 0 for _, limit in pairs):
        raise ValueError(text)
    return pairs


def modules_in(text: str) -> tuple[str, ...]:
    entries = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(re.fullmatch(MODULE, entry) for entry in entries):
        raise ValueError(text)
    return entries


def number_or_auto(text: str) -> int | None:
    return None if text.lower() == "auto" else int(text)


CONVERTERS: dict[str, Callable[[str], Any]] = {
    "auto": number_or_auto,
    "boolean": boolean,
    "float": number,
    "integer": int,
    "integers": integers,
    "limits": limits_in,
    "modules": modules_in,
    "string": str,
}


FORMS = {
    "auto": "a number above 0, or auto",
    "boolean": "a boolean",
    "float": "a float",
    "integer": "an integer",
    "integers": "numbers separated by commas, or none",
    "limits": "queue=number pairs with numbers above 0, separated by commas",
    "modules": "names of modules, separated by commas",
    "string": "text",
}
