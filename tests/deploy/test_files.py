"""The files under deploy/ are what they claim, as far as no container engine is needed to tell."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nats_executor.options import OPTIONS, SECTION
from tests.support.nats_server import server_binary
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in AIRFLOW.items() if "worker" in name}
PREFIX = f"AIRFLOW__{SECTION.upper()}__"


@pytest.mark.integration
def test_the_server_takes_its_configuration(tmp_path: Path) -> None:
    text = (DEPLOY / "nats/server.conf").read_text().replace("/data", str(tmp_path / "data"))
    path = tmp_path / "server.conf"
    path.write_text(text)

    done = subprocess.run(
        [server_binary(), "-t", "-c", str(path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stderr


def test_every_component_runs() -> None:
    commands = {service["command"][0] for service in AIRFLOW.values()}

    assert commands >= {"api-server", "scheduler", "dag-processor", "triggerer", "nats"}
    assert len(WORKERS) == 2


def test_every_service_waits_for_one_that_exists() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= SERVICES.keys() - {name}


def test_every_mounted_file_exists() -> None:
    mounted = [
        volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]
    ]

    assert [path for path in mounted if path[0] == "." and not (DEPLOY / path).exists()] == []


@pytest.mark.parametrize("name", AIRFLOW)
def test_every_option_exists(name: str) -> None:
    known = {f"{PREFIX}{option.name.upper()}" for option in OPTIONS}
    used = {key for key in AIRFLOW[name]["environment"] if key.startswith(PREFIX)}

    assert used
    assert used <= known


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_the_time_to_drain(name: str) -> None:
    service = WORKERS[name]
    needed = sum(float(service["environment"][f"{PREFIX}{n}_SECONDS"]) for n in ("DRAIN", "KILL"))

    assert float(service["stop_grace_period"].removesuffix("s")) > needed


def test_a_stop_reaches_the_worker_alone() -> None:
    """A shell, or an init that forwards to the whole session, would stop the tasks as well."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    entry = [line for line in lines if line.startswith(("ENTRYPOINT", "CMD"))]

    assert entry == ['ENTRYPOINT ["airflow"]', 'CMD ["nats", "worker"]']


@pytest.mark.parametrize("path", ["Dockerfile", "deploy/base.Dockerfile"])
def test_an_image_does_not_run_as_root(path: str) -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / path).read_text(), flags=re.MULTILINE)

    assert users[-1] == "50000:0"
