"""deploy/make-secrets: each part of a deployment gets what it needs, and keeps it."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NODES = ("nats-1", "nats-2", "nats-3")
PARTS = ("admin", "operator", "scheduler", "api-server", "triggerer", "monitor")
USERS = (*PARTS, "worker-default", "worker-gpu")


def make(directory: Path, *queues: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    airflow = f"{sys.executable} -m tests.support.quick_airflow"
    return subprocess.run(
        [str(ROOT / "deploy/make-secrets"), str(directory), *queues],
        env=os.environ | {"AIRFLOW": airflow, "PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(name="made", scope="module")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    done = make(directory, "default", "gpu")
    assert done.returncode == 0, done.stderr
    return directory


def openssl(*args: object) -> str:
    """Run it; raises where it says no."""
    command = ["openssl", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def secrets(directory: Path) -> dict[str, str]:
    """Every password and key that the script has made, by the part that may know it."""
    found = {user: (directory / user / "password").read_text() for user in (*USERS, "postgres")}
    found |= {node: (directory / node / "certs/server.key").read_text() for node in NODES}
    keys = ("fernet_key", "jwt_secret", "secret_key")
    return found | {key: (directory / "airflow" / key).read_text() for key in keys}


def test_each_part_has_its_own_secrets_and_nobody_elses(made: Path) -> None:
    known = secrets(made)
    shared = {"postgres": {"airflow"}}  # in the database's address

    assert len(set(known.values())) == len(known)
    for name, text in contents(made).items():
        part = name.partition("/")[0]
        for owner, secret in known.items():
            at_home = part in {owner, "authority", *shared.get(owner, set())}
            is_key = part == "airflow" and name.endswith(owner)
            is_server = part in NODES and owner in USERS and name.endswith(".conf")
            if not (at_home or is_key or is_server):
                assert secret.strip().encode() not in text, f"{owner}'s secret is in {name}"


def test_nobody_but_the_owner_may_read_them(made: Path) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in made.rglob("*") if path.is_file()}

    assert {str(path) for path, mode in modes.items() if mode & 0o077} == set()


def test_keys_are_as_airflow_reads_them(made: Path) -> None:
    """It does not strip what a command prints, and Fernet wants 32 bytes."""
    for key in ("fernet_key", "jwt_secret", "secret_key"):
        assert len(base64.urlsafe_b64decode((made / "airflow" / key).read_text())) == 32
    address = (made / "airflow/sql_alchemy_conn").read_text()

    password = (made / "postgres/password").read_text()
    assert address == f"postgresql+psycopg2://airflow:{password}@postgres/airflow"


@pytest.mark.parametrize("node", NODES)
def test_a_server_has_all_of_its_etc_nats(made: Path, node: str) -> None:
    context = ssl.create_default_context(cafile=made / node / "certs/ca.pem")
    context.load_cert_chain(made / node / "certs/server.pem", made / node / "certs/server.key")
    names = openssl(
        "x509", "-in", made / node / "certs/server.pem", "-noout", "-text", "-certopt", "no_pubkey"
    )

    assert f"DNS:{node}, DNS:localhost" in names
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in names
    assert (made / node / "cluster.conf").read_bytes() == (
        ROOT / "deploy/nats/cluster.conf"
    ).read_bytes()
    assert {p.name for p in (made / node).glob("*.conf")} == {
        "cluster.conf",
        "limits.conf",
        "users.conf",
        "workers.conf",
    }


def test_a_repetition_adds_a_queue_and_keeps_the_rest(made: Path, tmp_path: Path) -> None:
    copied = tmp_path / "secrets"
    subprocess.run(["cp", "-a", made, copied], check=True)
    before = secrets(copied)

    done = make(copied, "default", "gpu", "ml")

    assert done.returncode == 0, done.stderr
    assert secrets(copied) == before
    assert (copied / "worker-ml/password").read_text() not in before.values()


def test_a_certificate_is_renewed_before_its_end(made: Path, tmp_path: Path) -> None:
    copied = tmp_path / "secrets"
    subprocess.run(["cp", "-a", made, copied], check=True)
    short, kept = copied / "nats-2/certs/server.pem", copied / "nats-1/certs/server.pem"
    before = kept.read_bytes()
    key, request = copied / "nats-2/certs/server.key", tmp_path / "request"
    ca = copied / "authority"
    openssl("req", "-new", "-key", key, "-subj", "/CN=nats-2", "-out", request)
    signed_by = ("-CA", ca / "ca.pem", "-CAkey", ca / "ca.key")
    openssl("x509", "-req", "-in", request, *signed_by, "-days", 10, "-out", short)

    done = make(copied, "default", "gpu")

    assert done.returncode == 0, done.stderr
    assert kept.read_bytes() == before
    openssl("x509", "-in", short, "-noout", "-checkend", 300 * 86400)


def test_nothing_secret_is_printed(tmp_path: Path) -> None:
    done = make(tmp_path / "secrets", "default", "gpu")

    assert done.returncode == 0, done.stderr
    for secret in secrets(tmp_path / "secrets").values():
        assert secret.strip() not in done.stdout + done.stderr


def test_secrets_do_not_belong_into_the_repository() -> None:
    done = make(ROOT / "build/secrets")

    assert done.returncode == 2
    assert "is in the repository" in done.stderr


def test_without_a_directory_it_says_how_it_is_used() -> None:
    done = subprocess.run(
        [str(ROOT / "deploy/make-secrets")], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "deploy/make-secrets DIRECTORY [QUEUE ...]" in done.stderr
