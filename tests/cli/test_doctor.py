"""`airflow nats doctor` on a real nats-server and Airflow's own Execution API."""

from __future__ import annotations

import json
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from nats_executor import NatsExecutor
from nats_executor.broker import exposure
from nats_executor.cli import commands
from nats_executor.errors import DatabaseAway
from nats_executor.operations import doctoring
from nats_executor.operations.preload_look import preload_findings
from nats_executor.wire.messages import Kind, Workload, encode
from tests.cli.conftest import Console
from tests.support.api_server import execution_api_server
from tests.support.certificates import Authority
from tests.support.fixtures import settings_for
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats_executor.wire.names import Names
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SECRET = "k" * 64
URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
JWT_SECRET = "AIRFLOW__API_AUTH__JWT_SECRET"


@pytest.fixture(scope="module")
def api_server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(JWT_SECRET, SECRET)
        with execution_api_server() as url:
            yield url


@pytest.fixture(autouse=True)
def surroundings(api_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong but that there is no scheduler."""
    monkeypatch.setenv(URL, api_server)
    monkeypatch.setenv(JWT_SECRET, SECRET)
    monkeypatch.setattr(doctoring, "living_schedulers", list)


def examined(console: Console) -> dict[str, tuple[str, str]]:
    """Return the status and details of each check."""
    code, printed = console.run(commands.doctor, output="json", bundle=None)
    rows = json.loads(printed)
    bad = [row for row in rows if row["status"] not in {"ok", "unknown"}]
    assert code == bool(bad), (code, bad, console.error)
    return {row["check"]: (row["status"], row["details"]) for row in rows}


def test_a_whole_deployment_is_looked_at(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "living_schedulers", lambda: ["7"])
    console.run(commands.setup)
    console.configure(publish_timeout_seconds=20, connect_timeout_seconds=20)
    executor = NatsExecutor()
    executor.job_id = 7
    executor.start()
    try:
        found = block_until(
            lambda: (now := examined(console))["scheduler 7"][0] == "ok" and now,
            60,
            "the executor to answer",
        )
    finally:
        executor.end()

    for check in ("broker", "streams", "broker answer", "limits", "clocks", "API server"):
        assert found[check][0] == "ok", found
    assert found["API token"] == ("ok", "the API server accepts a token made here")
    assert "apache-airflow 3." in found["versions"][1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (JWT_SECRET, "x" * 64),
        ("AIRFLOW__EXECUTION_API__JWT_AUDIENCE", "another"),
    ],
)
def test_a_token_of_another_secret_or_audience_is_refused(
    console: Console, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    console.run(commands.setup)
    monkeypatch.setenv(name, value)

    status, details = examined(console)["API token"]

    assert status == "refused"
    assert "(403), and the clocks agree: [api_auth] jwt_secret must be the same" in details
    assert "x" * 10 not in details


def test_no_secret_is_said(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    console.run(commands.setup)
    monkeypatch.setenv(JWT_SECRET, "")

    assert examined(console)["API token"][0] == "missing"


def test_an_api_server_that_is_away_is_said(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.run(commands.setup)
    monkeypatch.setenv(URL, "http://someone:hunter2@127.0.0.1:1/execution/")

    status, details = examined(console)["API server"]

    assert status == "unreachable"
    assert details.startswith("http://127.0.0.1:1/execution/: ConnectError")
    assert "hunter2" not in details


def test_what_is_no_execution_api_is_said(
    console: Console, api_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.run(commands.setup)
    monkeypatch.setenv(URL, api_server.replace("/execution/", "/elsewhere/"))

    assert examined(console)["API server"][0] == "wrong address"


def test_a_server_that_is_away_hides_nothing_else(console: Console) -> None:
    console.configure(servers="nats://127.0.0.1:1", connect_timeout_seconds=1)

    found = examined(console)

    assert found["broker"][0] == "unreachable"
    assert "check [nats_executor] servers" in found["broker"][1]
    assert found["API token"][0] == "ok"


def test_findings_of_check_are_there(console: Console) -> None:
    console.run(commands.setup)
    console.send("default")

    assert examined(console)["queue default"][0] == "unserved"


def test_without_a_database_the_schedulers_are_unknown(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> list[str]:
        raise DatabaseAway("Airflow's database does not answer: x")

    monkeypatch.setattr(doctoring, "living_schedulers", away)
    console.run(commands.setup)

    status, details = examined(console)["schedulers"]

    assert status == "unknown"
    assert details.startswith("Airflow's database does not answer")


def test_no_scheduler_alive_is_said(console: Console) -> None:
    console.run(commands.setup)

    assert examined(console)["schedulers"] == (
        "none", "no scheduler is alive; run: airflow scheduler",
    )  # fmt: skip


def test_clocks_and_versions_of_workers_are_compared(console: Console) -> None:
    console.run(commands.setup)
    console.announce("fast", "default", at=time.time() + 60, version="0.0.1")

    found = examined(console)

    assert found["clock of worker fast"][0] == "skewed"
    assert "s ahead of that of NATS" in found["clock of worker fast"][1]
    assert found["worker fast"][0] == "other version"


def test_a_low_limit_and_a_certificate_that_ends_soon_are_found(
    make_nats_server: MakeNatsServer,
    names: Names,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server")
    server = make_nats_server(
        config=f"""
        max_payload: 100KB
        tls {{ cert_file: "{certificate.certificate_file}", key_file: "{certificate.key_file}" }}
        """
    )
    settings = settings_for(server.url, subject_prefix=names.prefix, tls_ca_file=authority.ca_file)
    console = Console(monkeypatch, capsys, settings)
    client = authority.issue("client")
    client.key_file.chmod(0o644)
    console.configure(
        tls_ca_file=authority.ca_file,
        tls_certificate_file=client.certificate_file,
        tls_key_file=client.key_file,
    )
    console.run(commands.setup)

    found = examined(console)

    assert found["limits"][0] == "low"
    assert found["the server's certificate"][0] == "expires soon"
    assert found["[nats_executor] tls_certificate_file"][0] == "expires soon"
    assert found["[nats_executor] tls_key_file"][0] == "readable by others"


def test_a_login_in_clear_text_is_found(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    console.run(commands.setup)
    monkeypatch.setattr(exposure, "TOLD", ["[nats_executor] password goes to NATS in clear text"])

    assert examined(console)["login"][0] == "exposed"


def test_no_secret_is_in_the_archive(
    console: Console, api_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets are planted wherever one might get in from."""
    url = console.settings.servers[0].replace("://", "://planted-user:planted-in-address@")
    jwt = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJwbGFudGVkIn0.planted-signature"
    planted = {
        "password": "planted-password", "jwt": "planted-jwt-secret" * 4,
        "database": "planted-database-password", "fernet": "planted-fernet-key",
        "reason": "planted-password", "api": "planted-api-login", "address": "planted-in-address",
        "body": "planted-in-a-body", "token": jwt, "signature": "planted-signature",
        "seed": "SU" + "A" * 56,
    }  # fmt: skip
    console.run(commands.setup)
    workload = Workload(
        dispatch_id="d1", queue="default", kind=Kind.TASK, key=[], sender="s",
        body={"token": jwt, "code": planted["body"]},
    )  # fmt: skip
    console.publish(console.settings.names.task("default", "d1"), encode(workload))
    console.publish(console.settings.names.dead_letter("default", "d2"), encode(workload))
    host = f"{planted['seed']} {jwt} http://u:{planted['api']}@h {planted['password']}"
    console.announce("w1", "default", host=host, paused=host)
    console.run(
        commands.queues_pause, paused_queues="default", reason=planted["reason"], duration=None
    )
    monkeypatch.setattr(doctoring, "living_schedulers", lambda: ["7"])
    monkeypatch.setenv(JWT_SECRET, planted["jwt"])
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", planted["fernet"])
    monkeypatch.setenv(
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        f"postgresql://airflow:{planted['database']}@db/airflow",
    )
    monkeypatch.setenv(URL, api_server.replace("//", f"//u:{planted['api']}@"))
    console.configure(servers=url, user="visible-user", password=planted["password"])
    path = tmp_path / "support.zip"

    code, _ = console.run(commands.doctor, bundle=str(path))

    assert code == 1, console.error
    assert path.stat().st_mode & 0o777 == 0o600
    assert "support.zip written" in console.error
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    whole = path.read_bytes() + b"".join(files.values())
    assert {name for name, secret in planted.items() if secret.encode() in whole} == set()
    assert b"planted" not in whole
    assert set(files) >= {
        "README.txt", "findings.json", "versions.json", "settings.json", "streams.json",
        "queues.json", "workers.json", "consumers.json", "schedulers.json",
    }  # fmt: skip
    shown = json.loads(files["settings.json"])
    assert (shown["password"], shown["user"]) == ("'***'", "'visible-user'")
    assert shown["servers"] == repr(console.settings.servers[0])
    assert json.loads(files["workers.json"])[0]["worker"] == "w1"
    assert json.loads(files["queues.json"])[0]["pending"] == 1


def test_an_archive_is_not_written_over_another_file(console: Console, tmp_path: Path) -> None:
    console.run(commands.setup)
    path = tmp_path / "mine"
    path.write_text("mine")

    code, _ = console.run(commands.doctor, bundle=str(path))

    assert code == 2
    assert "there is a file already" in console.error
    assert path.read_text() == "mine"
    assert console.run(commands.doctor, bundle=str(tmp_path / "no" / "where"))[0] == 2


def test_modules_to_preload_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And none of them sees the login for NATS."""
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    (tmp_path / "nosy.py").write_text(
        "import os\nassert not os.environ.get('AIRFLOW__NATS_EXECUTOR__PASSWORD')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__NATS_EXECUTOR__USER", "worker")
    monkeypatch.setenv("AIRFLOW__NATS_EXECUTOR__PASSWORD", "long and secret")

    rows = preload_findings(["absent", "threaded", "threaded!", "nosy"])

    assert [(row["check"], row["status"]) for row in rows] == [
        ("preload", status) for status in ("not preloaded", "not preloaded", "ok", "ok")
    ]
    assert "No module named 'absent'" in rows[0]["details"]
    assert "starts 1 thread" in rows[1]["details"]
    assert preload_findings([]) == []


def test_the_doctor_tells_of_a_module_to_preload(console: Console) -> None:
    console.run(commands.setup)
    console.configure(preload_modules="no_such_module")

    status, details = examined(console)["preload"]

    assert status == "not preloaded"
    assert details.startswith("[nats_executor] preload_modules: no_such_module is not preloaded: ")
