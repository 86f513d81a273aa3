"""A package that is loaded once something in it is read."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from nats_executor.broker.late import loaded_late

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE, PART, USER = "late_package", "late_package.part", "user_of_late_package"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give this process a package, and a module that imports it."""
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / PACKAGE / "part.py").write_text("VALUE = 2\n")
    (tmp_path / f"{USER}.py").write_text(f"import {PACKAGE}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (PACKAGE, PART, USER):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return PACKAGE


def test_a_package_is_loaded_when_it_is_used(package: str) -> None:
    with loaded_late(package):
        user = importlib.import_module(USER)
    assert package not in sys.modules

    assert getattr(user, package).VALUE == 1
    assert package in sys.modules


def test_another_thread_that_imports_it_meanwhile_gets_it(package: str) -> None:
    with loaded_late(package):
        assert importlib.import_module(PART).VALUE == 2

    assert sys.modules[package].VALUE == 1


def test_a_package_that_is_loaded_stays_what_it_is(package: str) -> None:
    loaded = importlib.import_module(package)
    with loaded_late(package):
        assert getattr(importlib.import_module(USER), package) is loaded

    assert sys.modules[package] is loaded


def test_a_package_that_is_not_installed_cannot_be_imported() -> None:
    name = "no_such_package"
    with loaded_late(name), pytest.raises(ImportError):
        importlib.import_module(name)


def test_a_package_can_be_loaded_after_an_import_that_failed(package: str) -> None:
    with pytest.raises(ImportError), loaded_late(package):
        importlib.import_module("no_such_package")

    assert importlib.import_module(package).VALUE == 1
