"""The modules that a command loads beside those of `airflow version`: each costs CPU time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nats_executor.cli import commands
from tests.bench.command_cpu import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cli.conftest import Console

# On stderr, as stdout is the command's.
LOADED = """
import json, sys
from airflow.__main__ import main
sys.argv = ["airflow", *sys.argv[1:]]
try:
    main()
finally:
    sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
# The packages of others that asking NATS and showing a table takes.
NEEDED = {"fast_mail_parser", "msgpack", "multidict", "nats", "tabulate", "wcwidth"}
# What only other commands, schedulers, API servers and workers need.
NEEDLESS = (
    "airflow.api_fastapi",
    "airflow.executors",
    "airflow.jobs",
    "airflow.models",
    "airflow.providers",
    "airflow.serialization",
    "nats_executor.access.accounts",
    "nats_executor.local",
    "nats_executor.logs",
    "nats_executor.scheduler",
)


def loaded_by(environment: Mapping[str, str], *arguments: str) -> set[str]:
    """Run `airflow` in an interpreter of its own and return the modules that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture(scope="module")
def of_version() -> set[str]:
    return loaded_by({}, "version")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_loads_only_what_it_needs(
    console: Console, of_version: set[str], name: str
) -> None:
    console.run(commands.setup, queues="default")

    loaded = loaded_by(console.environment, *COMMANDS[name]) - of_version

    packages = {module.partition(".")[0] for module in loaded if not module.startswith("_")}
    assert "nats_executor" in packages
    assert packages - {"airflow", "nats_executor"} - sys.stdlib_module_names <= NEEDED
    assert [module for module in sorted(loaded) if module.startswith(NEEDLESS)] == []
