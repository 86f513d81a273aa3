"""Prometheus's own tool reads the alerts, and sees each fire when it should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import yaml

from tests.support.require import require
from tests.tools.boundaries import ROOT

ALERTS = ROOT / "deploy/observability/alerts.yaml"
CASES = ROOT / "tests/deploy/alerts.test.yaml"
ASKED = re.compile(r'count\(ALERTS\{alertname="(\w+)", alertstate="firing"\}\)')


def promtool(*args: str) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("promtool")
    require(binary, "no promtool: it is in Debian's package prometheus")
    assert binary is not None
    return subprocess.run([binary, *args], capture_output=True, text=True, check=False)


def expectations() -> list[tuple[str, bool]]:
    """Return each alert that the cases ask for, and whether it has to fire."""
    cases: dict[str, Any] = yaml.safe_load(CASES.read_text())
    found = []
    for case in cases["tests"]:
        for check in case["promql_expr_test"]:
            asked = ASKED.fullmatch(check["expr"])
            assert asked, check["expr"]
            found.append((asked[1], bool(check["exp_samples"])))
    return found


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(ALERTS))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", str(CASES))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_each_alert_is_seen_to_fire_and_to_be_silent() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}

    assert {name for name, fires in expectations() if fires} == names
    assert {name for name, fires in expectations() if not fires} == names
