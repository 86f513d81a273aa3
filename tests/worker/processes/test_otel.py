"""With OpenTelemetry on, each task sends for itself, and what forks it has no thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nats_worker.processes.pool import ProcessPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.conftest import Stage

pytestmark = pytest.mark.anyio

ON = {
    "AIRFLOW__METRICS__OTEL_ON": "True",
    "AIRFLOW__TRACES__OTEL_ON": "True",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp_proto_http",
}
# In processes of their own, because a thread and a hook stay.
THREADS = """
import threading
from nats_worker.processes import otel
warned = []
otel.log.warning = lambda text, *values: warned.append(text % values)
end = threading.Event()
otel.tell_threads()
assert warned == [], warned
for name in ("mine", "OtelPeriodicExportingMetricReader"):
    threading.Thread(target=end.wait, name=name, daemon=True).start()
    otel.tell_threads()
for line, words in zip(warned, [
    "threads run in the fork server: mine; started by a plugin or local settings; next: ",
    "started by [metrics] otel_on and [traces] otel_on; next: forked tasks may hang on locks ",
], strict=True):
    assert words in line, line
print("good")
"""
CHANGED = """
from nats_worker.processes import otel
from airflow import settings
from airflow.sdk.observability.metrics import stats_utils
del settings.configure_otel, stats_utils.get_stats_factory
warned = []
otel.log.warning = lambda text, *values, exc_info: warned.append(text % values)
otel.prepare_exporters()
assert warned == ["cannot prepare [metrics] otel_on before the forks; next: each task tries to"]
otel.send_spans_from_tasks()
child = os.fork()
if child == 0:
    os._exit(warned[1:] != ["[traces] otel_on: next: this task sends no spans"])
assert os.waitpid(child, 0)[1] == 0
print("good")
"""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """A collector to which Airflow is configured to send; the paths and bodies that came."""
    came: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        for name, value in ON.items():
            monkeypatch.setenv(name, value)
        yield came
        server.shutdown()
        thread.join()


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def test_each_task_sends_its_spans_and_metrics_and_supervisors_stay(
    stage: Stage, sent: list[tuple[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    async with ProcessPool() as pool:
        assert pool.server is not None
        watched = replace(stage, pool=pool)
        runs = [await watched.finish() for _ in range(2)]

        assert [run.report and run.report.exit_code for run in runs] == [0, 0]
        assert runs[0].supervisor_pid == runs[1].supervisor_pid
        assert threads_of(pool.server.process.pid) == 1
        assert threads_of(runs[0].supervisor_pid) == 1

    assert "threads run in the fork server" not in "".join(capfd.readouterr())
    spans = [body for path, body in sent if path == "/v1/traces"]
    metrics = [body for path, body in sent if path == "/v1/metrics"]
    assert sum(body.count(b"worker.succeed") for body in spans) == len(runs)
    assert sum(b"ti.finish" in body for body in metrics) == len(runs)


def run(code: str) -> str:
    """Run code with both options on; Airflow was imported before, or it would start threads."""
    options = {name: "True" for name in ON if name.startswith("AIRFLOW")}
    code = f"import airflow, os\nos.environ.update({options})\n{code}"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.usefixtures("airflow_home")
def test_a_thread_in_the_fork_server_is_told_with_its_cause() -> None:
    assert run(THREADS).endswith("good\n")


@pytest.mark.usefixtures("airflow_home")
def test_an_airflow_that_has_changed_sends_what_it_can() -> None:
    assert run(CHANGED).endswith("good\n")
