"""The tables of the page have a row for all that the celery provider has."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from nats_executor.migration.counterparts import COUNTERPARTS, counterpart_of
from nats_executor.migration.verbs import COMMANDS, WORKER_FLAGS
from tests.support.require import require

pytestmark = pytest.mark.celery


def of_provider(module: str) -> Any:
    """Return a module of the provider; skip where it is not installed."""
    try:
        return importlib.import_module(f"airflow.providers.celery.{module}")
    except ModuleNotFoundError:
        require(None, "the celery provider is not installed: make test-celery")
        raise


def test_every_option_has_a_row() -> None:
    sections = of_provider("get_provider_info").get_provider_info()["config"]

    missing = [
        f"[{section}] {option}"
        for section, about in sections.items()
        for option in about["options"]
        if counterpart_of(section, option) is None
    ]
    assert missing == []


def test_every_row_about_celery_is_of_an_option() -> None:
    sections = of_provider("get_provider_info").get_provider_info()["config"]
    # Not in the provider's list; Airflow has defaults for them all the same.
    elsewhere = {"worker_precheck", "*"}

    unknown = [
        row.option
        for row in COUNTERPARTS
        if row.section.startswith("celery")
        and row.option not in {*sections[row.section]["options"], *elsewhere}
    ]
    assert unknown == []


def test_every_default_is_harmless() -> None:
    """An `airflow.cfg` may repeat them, and then there is nothing to decide."""
    options = of_provider("get_provider_info").get_provider_info()["config"]["celery"]["options"]

    undecided = [
        row.option
        for row in COUNTERPARTS
        if row.section == "celery" and row.harmless
        for default in [options.get(row.option, {}).get("default")]
        if default is not None and default.lower() not in row.harmless
    ]
    assert undecided == []


def test_every_secret_is_hidden() -> None:
    sections = of_provider("get_provider_info").get_provider_info()["config"]

    shown = [
        f"[{section}] {name}"
        for section, about in sections.items()
        for name, option in about["options"].items()
        if option.get("sensitive") and not getattr(counterpart_of(section, name), "is_secret", 0)
    ]
    assert shown == []


def test_every_command_and_every_flag_has_a_row() -> None:
    definition = of_provider("cli.definition")
    commands = {f"airflow celery {command.name}" for command in definition.CELERY_COMMANDS}
    [worker] = [one for one in definition.CELERY_COMMANDS if one.name == "worker"]

    assert commands == {verb.theirs for verb in COMMANDS}
    assert {name for arg in worker.args for name in arg.flags} == {
        name for flag in WORKER_FLAGS for name in flag.names
    }
