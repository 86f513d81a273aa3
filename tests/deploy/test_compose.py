"""The profile `observability` of deploy/compose.yaml, as Docker Compose itself reads it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from typing import Any

import yaml

from tests.support.require import require
from tests.tools.boundaries import ROOT

FILE = ROOT / "deploy/compose.yaml"
DIRECTORY = ROOT / "deploy/observability"
PROFILE = {"statsd-exporter", "prometheus", "grafana"}


@functools.cache
def services(*options: str, **environment: str) -> dict[str, dict[str, Any]]:
    """Return what Compose makes of the file: its services with everything filled in."""
    docker = shutil.which("docker")
    require(docker, "no docker: its command reads the file, without an engine")
    command = [str(docker), "compose", "-f", str(FILE), *options, "config", "--format", "json"]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    require("is not a docker command" not in done.stderr, "no compose: tests/images/get-compose")
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def profile() -> dict[str, dict[str, Any]]:
    return services("--profile", "observability", STATSD_ON="True")


def shipped(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DIRECTORY / name).read_text())
    return found


def mounts(service: str) -> dict[str, str]:
    """Return which file of the repository is where in a container."""
    return {
        v["target"]: v["source"].removeprefix(f"{ROOT}/")
        for v in profile()[service]["volumes"]
        if v["type"] == "bind"
    }


def test_without_the_profile_there_are_no_metrics() -> None:
    plain = services()

    assert plain.keys() == profile().keys() - PROFILE
    assert plain["scheduler"]["environment"]["AIRFLOW__METRICS__STATSD_ON"] == "False"


def test_the_scheduler_sends_to_the_exporter_that_prometheus_asks() -> None:
    sent = profile()["scheduler"]["environment"]
    [target] = shipped("prometheus.yaml")["scrape_configs"][1]["static_configs"][0]["targets"]

    assert sent["AIRFLOW__METRICS__STATSD_ON"] == "True"
    assert sent["AIRFLOW__METRICS__STATSD_HOST"] == target.partition(":")[0] == "statsd-exporter"
    assert sent["AIRFLOW__METRICS__STATSD_PORT"] == "9125"
    assert "statsd-exporter" in profile()["scheduler"]["depends_on"]


def test_prometheus_finds_the_workers_by_the_names_of_their_services() -> None:
    [lookup] = shipped("prometheus.yaml")["scrape_configs"][0]["dns_sd_configs"]
    workers = {
        n for n, s in profile().items() if (s.get("command") or [])[:2] == ["nats", "worker"]
    }
    image = (ROOT / "Dockerfile").read_text()

    assert set(lookup["names"]) == workers
    assert f"HEALTH_PORT={lookup['port']}\n" in image


def test_each_file_is_mounted_where_its_reader_looks() -> None:
    command = profile()["statsd-exporter"]["command"][0]
    [rules] = shipped("prometheus.yaml")["rule_files"]
    dashboards = shipped("grafana-dashboards.yaml")["providers"][0]["options"]["path"]

    assert mounts("statsd-exporter") == {
        command.partition("=")[2]: "deploy/observability/statsd-mapping.yaml"
    }
    assert mounts("prometheus")[rules] == "deploy/observability/alerts.yaml"
    [home] = [
        target
        for target, source in mounts("grafana").items()
        if source == "deploy/observability/grafana-dashboard.json"
    ]
    assert home.startswith(f"{dashboards}/")
    grafana = profile()["grafana"]["environment"]
    assert grafana["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == home


def test_grafana_asks_the_prometheus_of_the_profile() -> None:
    [source] = shipped("grafana-datasource.yaml")["datasources"]

    assert source["url"].startswith("http://prometheus:")
    assert source["isDefault"]


def test_the_profile_can_be_reached_from_this_machine_alone() -> None:
    ports = [p for name in PROFILE for p in profile()[name].get("ports", [])]

    assert len(ports) == 2
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_nobody_can_log_in_to_grafana() -> None:
    """There is no administrator, and so no password that everyone knows."""
    settings = profile()["grafana"]["environment"]

    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
