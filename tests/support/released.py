"""Runs a module of an earlier release: `python -P released.py TREE MODULE ARGUMENTS...`.

It is run as a file, so that nothing of this checkout is imported, and it makes sure of that: the
packages of this project that a started module is going to import are those below TREE.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

__all__: list[str] = []

PACKAGES = ("nats_executor", "nats_worker", "tests")
WRONG_CODE = 3


def place_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).resolve() if spec and spec.origin else None


def main(tree: str, module: str, *arguments: str) -> None:
    """Become `python -m MODULE ARGUMENTS...` of that tree."""
    places = {package: place_of(package) for package in PACKAGES}
    for package, place in places.items():
        if place is None or Path(tree).resolve() not in place.parents:
            sys.stderr.write(f"{package} is {place}, which is not below {tree}\n")
            sys.exit(WRONG_CODE)
    sys.stderr.write(f"{module} of {places['nats_executor']}\n")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
