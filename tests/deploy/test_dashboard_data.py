"""A real Prometheus finds data for each query of the dashboard, and takes the alerts.

It scrapes a worker's own page, and what a scheduler's executor sends through Airflow's statsd
logger. Their broker is in memory. statsd_exporter is a stand-in; the mapping is the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import subprocess
import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow._shared.observability.metrics.statsd_logger import SafeStatsdLogger

from nats_executor.wire.messages import State
from tests.scheduler.stage import FakeStage, events, task_workload
from tests.support.nats_server import free_port
from tests.support.probing import ask_now
from tests.support.recorder import recording
from tests.support.require import require
from tests.support.statsd_bridge import StatsdBridge, StatsdClient
from tests.support.waiting import wait_until
from tests.support.worker_stage import WorkerStage, worker_stage_fixture
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nats_executor.wire.names import Names

__all__ = ["worker_stage_fixture"]

DIRECTORY = ROOT / "deploy/observability"
CONFIG: dict[str, Any] = yaml.safe_load((DIRECTORY / "prometheus.yaml").read_text())
MAPPINGS = yaml.safe_load((DIRECTORY / "statsd-mapping.yaml").read_text())["mappings"]
DASHBOARD = json.loads((DIRECTORY / "grafana-dashboard.json").read_text())
# What Grafana puts in for its variables when everything is selected.
VARIABLES = {"prefix": ".*", "queue": ".*", "worker": ".*", "__rate_interval": "1m"}
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
}
LISTS = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
# Long, for a busy machine: the test ends as soon as there is data.
DATA_SECONDS = 120


def filled_in(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


class Prometheus:
    """A real server that scrapes two pages as often as it can."""

    def __init__(self, directory: Path, targets: dict[str, int]) -> None:
        binary = shutil.which("prometheus")
        require(binary, "no prometheus: it is in Debian's package prometheus")
        self.port = free_port()
        config = directory / "prometheus.yaml"
        config.write_text(yaml.safe_dump(self.shipped(targets)))
        self._output = (directory / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [str(binary), f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self._output, stderr=self._output,
        )  # fmt: skip

    @staticmethod
    def shipped(targets: dict[str, int]) -> dict[str, Any]:
        """Return the shipped configuration with other targets, and quicker."""
        jobs = [
            {
                "job_name": job["job_name"],
                "static_configs": [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}],
            }
            for job in CONFIG["scrape_configs"]
        ]
        quick = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        rules = [str(DIRECTORY / "alerts.yaml")]
        return {"global": quick, "rule_files": rules, "scrape_configs": jobs}

    def get(self, path: str, **query: str) -> Any:
        answer = ask_now(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        assert answer.status == 200, (query, answer.text)
        return json.loads(answer.text)["data"]

    def is_ready(self) -> bool:
        assert self._process.poll() is None, "prometheus ended"
        try:
            return ask_now(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def has_data(self, query: str) -> bool:
        """Whether a query finds a series with a number."""
        found = self.get("query", query=filled_in(query))["result"]
        return any(math.isfinite(float(series["value"][1])) for series in found)

    def rules(self) -> list[dict[str, Any]]:
        groups = self.get("rules")["groups"]
        assert groups
        return [rule for group in groups for rule in group["rules"]]

    def has_judged(self) -> bool:
        return "unknown" not in {rule["health"] for rule in self.rules()}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.close()


@pytest.fixture
def bridge() -> Iterator[StatsdBridge]:
    with StatsdBridge(MAPPINGS, free_port()) as made:
        yield made


@contextlib.contextmanager
def scheduler(names: Names, monkeypatch: pytest.MonkeyPatch, port: int) -> Iterator[FakeStage]:
    """An executor whose metrics go through Airflow's logger and over the network."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    client: Any = StatsdClient(port)
    logger = SafeStatsdLogger(client, influxdb_tags_enabled=True, statsd_influxdb_enabled=True)
    try:
        with FakeStage(names, monkeypatch) as stage:
            stage.configure(sweep_seconds=0.2)
            stage.executor()
            with recording(logger):
                yield stage
    finally:
        client.close()


def schedule_one(stage: FakeStage) -> None:
    """Send a task, and hear that it runs and that it is over."""
    [executor] = stage.executors
    item = task_workload(queue="gpu")
    sent = stage.sent_by(executor, item)
    [about] = [w for w in sent if w.dispatch_id == item.ti.external_executor_id]
    stage.report(about, State.RUNNING)
    stage.seen(executor)
    stage.report(about, State.SUCCESS)
    events(executor, 1)


async def work_one(stage: WorkerStage, number: int) -> None:
    """Have the worker run a task."""
    dispatch_id = f"d{number}"
    stage.send(dispatch_id=dispatch_id)
    run = await stage.pool.run(number)
    run.begin()
    await stage.reported(State.RUNNING, dispatch_id)
    run.finish()
    await stage.done(dispatch_id)


@pytest.mark.anyio
async def test_each_query_of_the_dashboard_has_data(
    worker_stage: WorkerStage,
    bridge: StatsdBridge,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    port = free_port()
    worker_stage.settings = replace(
        worker_stage.settings, health_port=port, health_address="127.0.0.1"
    )
    worker_stage.pool.preloaded.set()
    await worker_stage.start()
    prometheus = Prometheus(
        tmp_path,
        {"airflow-nats-workers": port, "airflow-nats-schedulers": bridge.page_port},
    )
    try:
        await wait_until(prometheus.is_ready, 60, "prometheus to be ready")
        with scheduler(names, monkeypatch, bridge.port) as stage:
            empty = dict(QUERIES)
            number = -1

            async def is_full() -> bool:
                nonlocal number
                number += 1
                await work_one(worker_stage, number)
                await asyncio.to_thread(schedule_one, stage)
                for title in [t for t, query in empty.items() if prometheus.has_data(query)]:
                    del empty[title]
                return not empty

            try:
                await wait_until(is_full, DATA_SECONDS, "data for every query")
            except TimeoutError as error:
                raise AssertionError(f"{error}; without data: {empty}") from error
            for listed in LISTS:
                metric, label = listed.removeprefix("label_values(").removesuffix(")").split(", ")
                assert prometheus.get(f"label/{label}/values", **{"match[]": metric})
            await wait_until(prometheus.has_judged, 120, "each alert to be evaluated")
            assert {r["name"]: r["health"] for r in prometheus.rules() if r["health"] != "ok"} == {}
        assert [line for line in bridge.unread if "nats_executor." in line] == []
    finally:
        prometheus.stop()


def test_prometheus_takes_the_shipped_configuration(tmp_path: Path) -> None:
    """With the rules beside it, as the compose file mounts them."""
    promtool = shutil.which("promtool")
    require(promtool, "no promtool: it is in Debian's package prometheus")
    text = (DIRECTORY / "prometheus.yaml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/", f"{DIRECTORY}/"))

    done = subprocess.run(
        [str(promtool), "check", "config", str(config)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 rules found" in done.stdout
