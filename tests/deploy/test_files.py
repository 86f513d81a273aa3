"""The files under deploy/ are what they claim, as far as no container engine is needed to tell."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nats_executor.access import accounts
from nats_executor.options import OPTIONS, SECTION
from tests.support.nats_server import server_binary, server_version
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NODES = {"nats-1", "nats-2", "nats-3"}
AIRFLOW = {name: service for name, service in SERVICES.items() if "build" in service}
COMPONENTS = {name: service for name, service in AIRFLOW.items() if service["command"]}
WORKERS = {name: service for name, service in AIRFLOW.items() if "worker" in name}
PREFIX = f"AIRFLOW__{SECTION.upper()}__"
TALKERS = {n: s for n, s in AIRFLOW.items() if f"{PREFIX}SERVERS" in s.get("environment", {})}
SERVERS: str = WORKERS["worker"]["environment"][f"{PREFIX}SERVERS"]


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
    commands = [service["command"] for service in COMPONENTS.values()]

    assert {command[0] for command in commands} >= {
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
    }
    assert {command[3] for command in commands if command[:2] == ["nats", "worker"]} == {
        "default",
        "heavy",
    }


def test_nats_is_a_cluster_of_three_which_keeps_what_it_acknowledges() -> None:
    text = (DEPLOY / "nats/cluster.conf").read_text()

    assert {name for name, s in SERVICES.items() if s["image"].startswith("nats:")} == NODES
    assert "sync_interval: always" in text
    assert all(f"nats://{node}:6222" in text for node in NODES)
    assert set(SERVERS.split(",")) == {f"tls://{node}:4222" for node in NODES}


def test_every_service_waits_for_one_that_exists() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= SERVICES.keys() - {name}


def test_every_mounted_file_and_volume_exists() -> None:
    mounted = {v.partition(":")[0] for s in SERVICES.values() for v in s["volumes"]}

    assert {path for path in mounted if path[0] == "." and not (DEPLOY / path).exists()} == set()
    assert {name for name in mounted if name[0] != "."} == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", AIRFLOW)
def test_every_option_exists(name: str) -> None:
    known = {f"{PREFIX}{option.name.upper()}" for option in OPTIONS}
    environment = AIRFLOW[name].get("environment", {})
    used = {key.removesuffix("_CMD") for key in environment if key.startswith(PREFIX)}

    assert used <= known


@pytest.mark.parametrize("name", TALKERS)
def test_whoever_talks_to_nats_has_a_user_and_a_volume_of_its_own(name: str) -> None:
    """No other service sees its password; only the scheduler has the database's as well."""
    environment = TALKERS[name]["environment"]
    [volume] = [v for v in TALKERS[name]["volumes"] if v.endswith(":/run/nats:ro")]
    owner = volume.partition(":")[0]
    mounting = {n for n, s in SERVICES.items() for v in s["volumes"] if v.startswith(f"{owner}:")}

    assert environment[f"{PREFIX}USER"] == owner
    assert mounting == {name, "secrets"}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_sees_no_database_and_no_key_of_airflow(name: str) -> None:
    service = WORKERS[name]

    assert not any("DATABASE" in key or "JWT" in key for key in service["environment"])
    assert not any(volume.startswith("airflow:") for volume in service["volumes"])
    assert not service.get("ports")


def test_no_secret_is_in_the_file() -> None:
    """What is secret is read from a file at the moment of its use."""
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|CONN", key):
                assert key.endswith(("_CMD", "_FILE")), key
                assert value.removeprefix("cat ").startswith("/run/")


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


def test_the_image_of_nats_is_the_release_that_is_tested() -> None:
    images = {SERVICES[node]["image"] for node in NODES}

    assert images == {f"nats:{'.'.join(map(str, server_version()))}-alpine"}


@pytest.mark.parametrize("path", ["Dockerfile", "deploy/base.Dockerfile"])
def test_an_image_does_not_run_as_root(path: str) -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / path).read_text(), flags=re.MULTILINE)

    assert users[-1] == "50000:0"


def test_workers_find_jetstream_by_the_name_that_their_accounts_give_it() -> None:
    names = {worker["environment"][f"{PREFIX}JETSTREAM_DOMAIN"] for worker in WORKERS.values()}

    assert names == {accounts.DOMAIN}
    assert not any(
        f"{PREFIX}JETSTREAM_DOMAIN" in service["environment"]
        for name, service in TALKERS.items()
        if name not in WORKERS
    )
