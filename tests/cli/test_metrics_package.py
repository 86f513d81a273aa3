"""The hint that a user gets when Airflow's metrics are switched on and their package is missing.

Airflow 3.4 imports it wherever it sets its metrics up, and would end with a traceback; 3.3 goes on
without metrics, and so does everything here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nats_executor import NatsExecutor
from nats_executor.cli import commands
from nats_executor.errors import ConfigError
from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from tests.cli.conftest import WELL
from tests.remedies.lines import LINES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

SWITCH = "AIRFLOW__METRICS__STATSD_ON"
LINE = LINES["metrics package"]
MISSING = "raise ModuleNotFoundError(\"No module named 'statsd'\", name='statsd')\n"


@pytest.fixture
def without_statsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Take the package away, here and, with this environment, in other processes."""
    (tmp_path / "statsd.py").write_text(MISSING)
    monkeypatch.syspath_prepend(str(tmp_path))
    # What has been imported from it would not miss it, under both of its names.
    for name in [name for name in sys.modules if "statsd" in name]:
        package, _, module = name.rpartition(".")
        if hasattr(sys.modules.get(package), module):
            monkeypatch.delattr(sys.modules[package], module)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv(SWITCH, "True")
    return {"PYTHONPATH": str(tmp_path), SWITCH: "True"}


@pytest.mark.usefixtures("without_statsd")
def test_an_executor_names_the_switch_and_the_remedy() -> None:
    """The scheduler and the API server construct one."""
    if not AIRFLOW_V_3_4_PLUS:
        assert NatsExecutor().slots_occupied == 0
        return
    with pytest.raises(ConfigError) as raised:
        NatsExecutor()
    assert str(raised.value) == LINE


@pytest.mark.usefixtures("without_statsd")
def test_check_tells_it(console: Console) -> None:
    console.run(commands.setup)
    code, output = console.run(commands.check, output="json")
    rows = {row["check"]: (row["status"], row["details"]) for row in json.loads(output)}

    assert rows.get("metrics") == (("missing", LINE) if AIRFLOW_V_3_4_PLUS else None)
    assert code == (1 if AIRFLOW_V_3_4_PLUS else WELL)


@pytest.mark.skipif(not AIRFLOW_V_3_4_PLUS, reason="Airflow 3.3 needs no package for its metrics")
@pytest.mark.parametrize("command", ["worker", "standalone"])
def test_what_would_start_something_ends_with_the_line(
    without_statsd: dict[str, str], console: Console, command: str
) -> None:
    """A worker would spend a try of each task: Airflow's process of it ends before it starts."""
    environment = os.environ | console.environment | without_statsd
    ended = subprocess.run(
        [sys.executable, "-m", "airflow", "nats", command],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip

    assert (ended.returncode, ended.stderr.strip().splitlines()[-1:]) == (2, [f"error: {LINE}"])
    assert "Traceback" not in ended.stderr + ended.stdout
