"""Reads the releases that are installed here, to show and compare them; nothing depends on them."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import version
from typing import NamedTuple

__all__ = ["Releases", "differing", "installed"]


class Releases(NamedTuple):
    """The releases of this distribution, of Airflow and of Python; '' is not known."""

    version: str
    airflow: str
    python: str


@functools.cache
def installed() -> Releases:
    """Return what this interpreter has."""
    return Releases(
        version("airflow-nats-executor"), version("apache-airflow-core"), platform.python_version()
    )


def differing(theirs: Releases, ours: Releases) -> list[str]:
    """Name what differs; of Python, the third number makes no difference."""
    pairs = zip(Releases._fields, theirs, ours, strict=True)
    return [name for name, their, our in pairs if their and compared(name, their, our)]


def compared(name: str, their: str, our: str) -> bool:
    if name == "python":
        return their.split(".")[:2] != our.split(".")[:2]
    return their != our
