"""The boundaries of CONTRIBUTING.md hold, and each rule notices when one does not."""

from __future__ import annotations

import warnings

import pytest

from tests.tools.boundaries import PACKAGES, Module, long_modules, modules, violations

MODULES = modules()
LONG_DOCSTRING = 'def f():\n    """Why.' + "\n" * 60 + '"""\n'
LONG_FUNCTION = "def f():\n" + "    g()\n" * 40


class LongModuleWarning(UserWarning):
    """A module that should be cut where it has a seam; no error."""


BROKEN = {
    "nats outside the broker": ("nats_worker.intake.intake", "import nats.js"),
    "nats below a function": (
        "nats_executor.scheduler.executor",
        "def f():\n    from nats import connect",
    ),
    "nats in a pure module": ("nats_executor.wire.names", "from nats.js import api"),
    "airflow in a pure module": (
        "nats_executor.scheduler.ledger",
        "from airflow.models import Dag",
    ),
    "a clock in a pure module": ("nats_worker.delivery.verdict", "import time"),
    "asyncio in a pure module": ("nats_executor.topology.setup", "import asyncio"),
    "files in a pure module": ("nats_executor.wire.messages", "from pathlib import Path"),
    "an impure module of ours": (
        "nats_executor.scheduler.evidence",
        "from nats_executor.broker.connection import x",
    ),
    "the same, by its package": (
        "nats_executor.scheduler.evidence",
        "from nats_executor import broker",
    ),
    "the executor in the worker": ("nats_worker.worker", "import nats_executor.scheduler.executor"),
    "the same, by its class": ("nats_worker.cli", "from nats_executor import NatsExecutor"),
    "the same, as a module": ("nats_worker.cli", "from nats_executor.scheduler import executor"),
    "the ledger in the worker": ("nats_worker.crew", "import nats_executor.scheduler.ledger"),
    "the worker in the executor": (
        "nats_executor.scheduler.executor",
        "def f():\n    import nats_worker",
    ),
    "the worker on start": ("nats_executor.cli.commands", "from nats_worker.worker import Worker"),
    "a version by import": ("nats_executor.scheduler.executor", "from airflow import __version__"),
    "a version by attribute": ("nats_worker.worker", "import airflow\nx = airflow.__version__"),
    "a version by module": ("nats_worker.worker", "from airflow.version import version"),
    "a version by metadata": ("nats_executor.cli.definitions", "version('apache-airflow-core')"),
    "an option by section": (
        "nats_executor.scheduler.executor",
        "conf.getint('nats_executor', 'replicas')",
    ),
    "an option by constant": ("nats_worker.worker", "conf.get(SECTION, 'user', fallback=None)"),
    "a long module": ("nats_executor.cli.definitions", "x = 1\n" * 451),
    "a long function": ("nats_executor.cli.definitions", LONG_FUNCTION),
    "a long method": (
        "nats_worker.processes.pool",
        "class A:\n    async " + LONG_FUNCTION.replace("\n", "\n    "),
    ),
    "a heavy package": (
        "nats_executor",
        "from nats_executor.scheduler.executor import NatsExecutor",
    ),
}

ALLOWED = {
    "nats in the broker": ("nats_executor.broker.client", "import nats"),
    "a name that only begins like it": ("nats_executor.scheduler.executor", "import natsort"),
    "types in a pure module": (
        "nats_executor.scheduler.ledger",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import airflow",
    ),
    "a pure module in another": (
        "nats_worker.delivery.verdict",
        "from nats_executor.wire.names import Names",
    ),
    "the contract in the worker": (
        "nats_worker.worker",
        "from nats_executor.broker.connection import connect",
    ),
    "the worker in a command": (
        "nats_executor.cli.commands",
        "def worker(args):\n    from nats_worker.worker import Worker",
    ),
    "versions in compat": ("nats_executor.scheduler.compat", "from airflow import __version__"),
    "versions for people": ("nats_executor.installation", "version('apache-airflow-core')"),
    "our own version": ("nats_worker.control.presence", "version('airflow-nats-executor')"),
    "another section": ("nats_worker.worker", "conf.get('core', 'dags_folder')"),
    "a module that is only told of": ("nats_executor.cli.definitions", "x = 1\n" * 450),
    "a long docstring": ("nats_executor.cli.definitions", LONG_DOCSTRING),
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_keeps_the_rules(module: Module) -> None:
    assert violations(module) == []


def test_long_modules_are_told_of() -> None:
    at_limit, long = Module("a", "x = 1\n" * 400), Module("b", "x = 1\n" * 401)
    assert long_modules([at_limit, long]) == ["b: 401 lines; 451 are refused"]
    for line in long_modules(MODULES):
        warnings.warn_explicit(line, LongModuleWarning, __file__, 1)


def test_every_package_is_looked_at() -> None:
    assert {module.package for module in MODULES} == set(PACKAGES)


@pytest.mark.parametrize(("name", "source"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_noticed(name: str, source: str) -> None:
    assert violations(Module(name, source)) != []


@pytest.mark.parametrize(("name", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_the_rules_allow_passes(name: str, source: str) -> None:
    assert violations(Module(name, source)) == []
