"""Loads a package that another one imports only once something in it is read."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["loaded_late"]


class LatePackage(ModuleType):
    """Stands for a package until something in it is read."""

    def __getattr__(self, name: str) -> Any:
        leave(self)
        return getattr(import_module(self.__name__), name)


@contextmanager
def loaded_late(name: str) -> Iterator[None]:
    """Give the modules that import a package meanwhile one that loads when it is used.

    A package that is not installed, or is loaded already, is imported as ever.
    """
    package = LatePackage(name)
    if find_spec(name) is not None:
        sys.modules.setdefault(name, package)
    try:
        yield
    finally:
        leave(package)


def leave(package: LatePackage) -> None:
    """Have the next import of the name load the package itself, in this thread or another one."""
    if sys.modules.get(package.__name__) is package:
        del sys.modules[package.__name__]
