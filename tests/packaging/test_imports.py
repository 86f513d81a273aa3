"""The cost of an import, and what a constructor must not do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.packaging

LOADED = "import json, sys; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
CONSTRUCTED = """
import json, sys, threading
from nats_executor import NatsExecutor

opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
threads = threading.active_count()
NatsExecutor()
NatsExecutor(parallelism=4, team_name=None)
print(json.dumps([opened, threading.active_count() - threads]))
"""


PLUGIN = """
import json
from airflow.plugins_manager import get_fastapi_plugins, get_plugin_info
[plugin] = [one for one in get_plugin_info() if one["name"] == "nats_executor"]
print(json.dumps([plugin["react_apps"], [one["url_prefix"] for one in get_fastapi_plugins()[0]]]))
"""


def output_of(code: str) -> Any:
    """Run code in an interpreter that has imported nothing yet and read its last line as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_and_its_metadata_are_cheap_to_import() -> None:
    """Airflow does so on every start of every component."""
    modules = output_of(f"import nats_executor, nats_executor.provider\n{LOADED}")

    assert not {"airflow", "nats", "msgpack", "asyncio", "nats_worker"} & set(modules)


def test_the_commands_do_not_load_nats() -> None:
    """Airflow imports their definitions for every command, ours or not."""
    modules = output_of(f"import nats_executor.cli.definitions\n{LOADED}")

    assert not {"nats", "msgpack", "nats_worker"} & set(modules)


def test_the_plugin_loads_neither_its_page_nor_nats() -> None:
    """Airflow instantiates it in schedulers, workers and the processes of tasks, too."""
    modules = output_of(f"from nats_executor.ui.plugin import NatsPlugin\nNatsPlugin()\n{LOADED}")

    assert not {"fastapi", "starlette", "nats", "msgpack"} & set(modules)


def test_airflow_finds_the_page() -> None:
    apps, prefixes = output_of(PLUGIN)

    # A leading slash would lose the path of an Airflow behind one.
    bundles = [app["bundle_url"] for app in apps]
    assert bundles == ["nats/static/page.js", "nats/static/delivery.js"]
    assert prefixes == ["/nats"]


def test_constructing_the_executor_opens_nothing() -> None:
    """The API server and the command line construct it as well."""
    opened, threads = output_of(CONSTRUCTED)

    assert opened == []
    assert threads == 0
