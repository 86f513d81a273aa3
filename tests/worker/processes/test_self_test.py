"""The findings of a self-test, step by step, in this process: each line names what to change."""

from __future__ import annotations

import errno
import http.server
import os
import pwd
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes import self_test
from nats_worker.processes.exit_report import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.execution_api import ExecutionApi
    from tests.worker.conftest import Stage

URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
LOGS = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
ELSEWHERE = (
    "is not Airflow's Execution API: {} for health/ping; set its URL, which ends in /execution/ "
    "unless a proxy changes that"
)
AWAY = "http://127.0.0.1:1/execution/"
START_IT = "start it, or set its URL as seen from this worker"


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers each request with the status in its path, as web servers and proxies do."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        page = b"<html>no</html>"
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def found(step: self_test.Step) -> str:
    return "; ".join(self_test.outcome(step, None))


# The API server


@pytest.mark.usefixtures("airflow_home")
def test_the_execution_api_is_known_by_its_answer(
    api: ExecutionApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (api.url, api.url.rstrip("/")):
        monkeypatch.setenv(URL, url)
        assert found(self_test.api_server) == ""


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, "what answers at {} " + ELSEWHERE.format("200, text/html")),
        (302, "what answers at {} " + ELSEWHERE.format("302, text/html")),
        (403, "what answers at {} " + ELSEWHERE.format("403, text/html")),
        (404, "what answers at {} " + ELSEWHERE.format("404, text/html")),
        (405, "what answers at {} " + ELSEWHERE.format("405, text/html")),
        (502, "no API server at {}: 502, text/html from a proxy; " + START_IT),
        (503, "no API server at {}: 503, text/html from a proxy; " + START_IT),
    ],
)
def test_what_is_not_the_execution_api(
    gateway: str, status: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, f"{gateway}{status}/execution/")

    where = f"{gateway}{status}/execution/ ([core] execution_api_server_url)"
    assert found(self_test.api_server) == line.format(where)


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("airflow:8080/execution/", "Request URL has an unsupported protocol 'airflow://'"),
        ("/execution/", "Request URL is missing an 'http://' or 'https://' protocol"),
        ("http://[::1/execution/", "Invalid port: ':1'"),
    ],
)
def test_what_is_no_url(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, url)

    assert found(self_test.api_server) == (
        f"{url} ([core] execution_api_server_url) is no URL: {reason}; set one such as "
        "http://airflow.example.org/execution/"
    )


@pytest.mark.usefixtures("airflow_home")
def test_an_api_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, AWAY)

    assert found(self_test.api_server) == (
        f"no API server at {AWAY} ([core] execution_api_server_url): ConnectError: [Errno 111] "
        f"Connection refused; {START_IT}"
    )


@pytest.mark.usefixtures("airflow_home")
def test_a_password_in_the_url_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "http://me:secret@127.0.0.1:1/execution/")

    assert "http://127.0.0.1:1/execution/" in found(self_test.api_server)
    assert "secret" not in found(self_test.api_server)


# The log folder


@pytest.mark.usefixtures("airflow_home")
def test_a_log_folder_is_made_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOGS, str(tmp_path / "new" / "logs"))

    assert found(self_test.log_folder) == ""
    assert list((tmp_path / "new" / "logs").iterdir()) == []


@pytest.mark.usefixtures("airflow_home")
def test_a_log_folder_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    user = os.getuid()
    for folder, reason in (("/proc/logs", errno.ENOENT), (str(file), errno.ENOTDIR)):
        monkeypatch.setenv(LOGS, folder)
        line = (
            f"no task log can be written below {folder} ([logging] base_log_folder): "
            f"{os.strerror(reason)}; let user id {user} write there, or set another folder"
        )
        assert found(self_test.log_folder) == line
        assert found(self_test.log_folder) == line  # the same each time


@pytest.mark.usefixtures("airflow_home")
def test_a_log_that_may_not_grow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LOGS, str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        line = found(self_test.log_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert line == (
        f"no task log can be written below {tmp_path} ([logging] base_log_folder): File too large; "
        "free 1024 KiB or more there, or set another folder"
    )
    assert list(tmp_path.iterdir()) == []


# The user


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)

    assert found(self_test.user) == (
        f"user id {os.getuid()} has no name, and Airflow starts no task without one: add it to "
        "/etc/passwd, or set USER in the worker's environment"
    )
    monkeypatch.setenv("USER", "airflow")
    assert found(self_test.user) == ""


# All of it


def test_a_step_that_cannot_be_taken_finds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow may have changed; the first workloads tell then."""

    def changed(_team: str | None) -> Iterator[str]:
        yield "half of it"
        raise AttributeError("no such thing")

    assert found(changed) == ""
    assert "changed cannot be tested; next: starting workloads" in caplog.text


@pytest.mark.anyio
async def test_a_process_of_its_own_carries_it_out(stage: Stage) -> None:
    for name in ("self test 1", "self test 2"):
        report = await (await stage.pool.start_self_test(name)).exited()
        assert (report.ending, report.info) == (Ending.FINISHED, "")

    stage.pool.team = "ghosts"
    try:
        report = await (await stage.pool.start_self_test("self test 3")).exited()
    finally:
        stage.pool.team = None
    assert report.info.startswith(f"no API server at {AWAY} ([ghosts=core] ")
    assert stage.pool.runs == {}
