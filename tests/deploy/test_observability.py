"""Dashboard and alerts ask for what workers and schedulers really tell, and for all of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow._shared.observability.metrics.statsd_logger import SafeStatsdLogger

from nats_executor.scheduler.metric_table import METRICS
from nats_executor.wire.messages import State
from nats_worker.health import health, probes
from tests.scheduler.stage import FakeStage, events, task_workload
from tests.support.nats_server import free_port
from tests.support.probing import samples
from tests.support.recorder import recording
from tests.support.waiting import block_until
from tests.support.worker_stage import WorkerStage, task, worker_stage_fixture
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.wire.names import Names

__all__ = ["worker_stage_fixture"]

DIRECTORY = ROOT / "deploy/observability"
DOCUMENT = (ROOT / "docs/how-to/observability.md").read_text()
METRICS_PAGE = (ROOT / "docs/reference/metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((DIRECTORY / "grafana-dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((DIRECTORY / "alerts.yaml").read_text())
MAPPINGS: list[dict[str, Any]] = yaml.safe_load((DIRECTORY / "statsd-mapping.yaml").read_text())[
    "mappings"
]
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
VARIABLES: list[dict[str, Any]] = DASHBOARD["templating"]["list"]
METRIC = re.compile(r"\bairflow_nats_(?:worker|executor)_\w+")
# Part of every histogram; what shows a quantile has no use for them.
IMPLIED = ("_sum", "_count")


def queries() -> list[str]:
    """Every expression of the dashboard and the alerts."""
    shown = [target["expr"] for panel in PANELS for target in panel["targets"]]
    listed = [v["query"]["query"] for v in VARIABLES if v["type"] == "query"]
    return [*shown, *listed, *(rule["expr"] for rule in RULES)]


def used() -> set[str]:
    return {name for query in queries() for name in METRIC.findall(query)}


# What workers tell


async def exposed(worker_stage: WorkerStage) -> set[str]:
    """The names on the page of a worker that has done some work."""
    port = free_port()
    worker_stage.settings = replace(
        worker_stage.settings, health_port=port, health_address="127.0.0.1"
    )
    worker_stage.pool.preloaded.set()
    await worker_stage.start()
    worker_stage.send(task())
    run = await worker_stage.pool.run()
    run.begin()
    await worker_stage.reported(State.RUNNING)
    run.finish()
    await worker_stage.done()
    return {name for name, _ in await samples(port)}


# What schedulers tell


class Lines:
    """A client of statsd that keeps the lines that it would send."""

    def __init__(self) -> None:
        self.sent: set[tuple[str, str]] = set()

    def gauge(self, stat: str, *_: Any) -> None:
        self.sent.add(("gauge", f"airflow.{stat}"))

    def timing(self, stat: str, *_: Any) -> None:
        self.sent.add(("observer", f"airflow.{stat}"))

    def incr(self, *_: Any) -> None: ...


@pytest.fixture
def lines(names: Names, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[str, str]]]:
    """What an executor sends through Airflow's own statsd logger, all of it."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    client: Any = Lines()
    logger = SafeStatsdLogger(client, influxdb_tags_enabled=True, statsd_influxdb_enabled=True)
    with FakeStage(names, monkeypatch) as stage:
        stage.configure(sweep_seconds=0.05)
        executor = stage.executor()
        with recording(logger):
            [about] = stage.sent_by(executor, task_workload(queue="gpu"))
            stage.report(about, State.RUNNING)
            stage.seen(executor)
            stage.report(about, State.SUCCESS)
            events(executor, 1)

            def is_complete() -> bool:
                executor.heartbeat()
                sent = {stat.partition(",")[0] for _, stat in client.sent}
                return sent >= {f"airflow.nats_executor.{name}" for name in METRICS}

            block_until(is_complete, 10, "every metric to be sent")
        yield {(kind, stat) for kind, stat in client.sent if "nats_executor" in stat}


def is_match(mapping: dict[str, Any], name: str) -> bool:
    """Whether a mapping's pattern, whose `*` is one part of a name, covers a name."""
    pattern = re.escape(mapping["match"]).replace(r"\*", "[^.]+")
    return re.fullmatch(pattern, name) is not None


def in_prometheus(kind: str, stat: str) -> tuple[set[str], set[str]]:
    """Return names and labels of a line of statsd, as statsd_exporter's mapping makes them."""
    name, *tags = stat.split(",")
    labels = {tag.partition("=")[0] for tag in tags}
    mapping = next(
        (m for m in MAPPINGS if m["match_metric_type"] == kind and is_match(m, name)), {}
    )
    made = name.replace(".", "_")
    if mapping:
        found = name.split(".")[-1]
        made = mapping["name"].replace("$1", found)
    if kind == "gauge":
        return {made}, labels
    buckets = mapping["histogram_options"]["buckets"]
    assert mapping["observer_type"] == "histogram"
    assert buckets == sorted(buckets)
    return {f"{made}_{part}" for part in ("bucket", "sum", "count")}, labels


def existing(lines: set[tuple[str, str]]) -> dict[str, set[str]]:
    """The labels of each name that a scheduler's metrics have in Prometheus."""
    made: dict[str, set[str]] = {}
    for kind, stat in lines:
        names, labels = in_prometheus(kind, stat)
        for name in names:
            made.setdefault(name, set()).update(labels)
    return made


# Both together


@pytest.mark.anyio
async def test_whatever_is_asked_of_workers_is_there_and_shown(worker_stage: WorkerStage) -> None:
    there = await exposed(worker_stage)

    asked = {name for name in used() if name.startswith("airflow_nats_worker_")}

    assert asked - there == set()
    assert {name for name in there - asked if not name.endswith(IMPLIED)} == set()


def test_whatever_is_asked_of_schedulers_is_there_and_shown(lines: set[tuple[str, str]]) -> None:
    there = existing(lines)

    asked = {name for name in used() if name.startswith("airflow_nats_executor_")}

    assert asked - there.keys() == set()
    assert {name for name in there.keys() - asked if not name.endswith(IMPLIED)} == set()


def test_labels_of_schedulers_are_those_that_queries_use(lines: set[tuple[str, str]]) -> None:
    there = existing(lines)

    for name in there:
        assert "prefix" in there[name]
        assert ("queue" in there[name]) == ("_queue_" in name), name
    assert "state" in there["airflow_nats_executor_workers"]


def test_every_mapping_is_used(lines: set[tuple[str, str]]) -> None:
    """A pattern that matches nothing is a name that has changed."""
    for mapping in MAPPINGS:
        names = [s.split(",")[0] for k, s in lines if k == mapping["match_metric_type"]]
        assert any(is_match(mapping, name) for name in names), mapping["match"]


def test_a_gauge_outlives_a_sweep_and_not_its_scheduler() -> None:
    from tests.support.fixtures import settings_for

    lives = [60 * int(m["ttl"].removesuffix("m")) for m in MAPPINGS if "ttl" in m]

    assert lives
    assert all(3 * settings_for("nats://a").sweep_seconds < life <= 600 for life in lives)


# The files in themselves


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]

    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(annotations) == {"summary", "description"}
    assert len(annotations["description"]) > 60
    assert METRIC.search(rule["expr"])
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert is_balanced(rule["expr"])
    assert rule["alert"] in DOCUMENT


def test_alerts_and_panels_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    titles = [panel["title"] for panel in PANELS]

    assert len(set(names)) == len(names)
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_command_and_option_in_an_alert_exists() -> None:
    from nats_executor.cli.definitions import get_nats_cli_commands
    from nats_executor.options import OPTIONS

    text = " ".join(rule["annotations"]["description"] for rule in RULES)
    [group] = get_nats_cli_commands()
    commands = {command.name for command in group.subcommands}
    options = {option.name for option in OPTIONS}

    assert set(re.findall(r"airflow nats ([a-z-]+)", text)) <= commands
    assert set(re.findall(r"\[nats_executor\] (\w+)", text)) <= options


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It asks for a data source and has no other one's id in it."""
    assert VARIABLES[0] | {"name": "datasource", "type": "datasource"} == VARIABLES[0]
    for holder in [*PANELS, *(t for p in PANELS for t in p["targets"]), *VARIABLES[1:]]:
        assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    known = {variable["name"] for variable in VARIABLES} | {"__rate_interval"}
    assert {v for query in queries() for v in re.findall(r"\$(\w+)", query)} <= known
    assert all(is_balanced(query) for query in queries())


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & mine, panel["title"]
        assert max(x for x, _ in mine) < 24
        cells |= mine


def is_balanced(query: str) -> bool:
    """Whether every bracket of a query is closed, strings left out."""
    depth: list[str] = []
    closing = {")": "(", "}": "{", "]": "["}
    for character in re.sub(r'"[^"]*"', "", query):
        if character in "({[":
            depth.append(character)
        elif character in closing and (not depth or depth.pop() != closing[character]):
            return False
    return not depth


# The pages


@pytest.mark.anyio
async def test_the_page_lists_every_metric_of_a_worker(worker_stage: WorkerStage) -> None:
    there = {name.removesuffix("_bucket") for name in await exposed(worker_stage)}
    families = {name for name in there if not name.endswith(IMPLIED)}

    assert set(re.findall(r"`(airflow_nats_worker_\w+)`", METRICS_PAGE)) == families


def test_the_page_lists_every_metric_of_a_scheduler(lines: set[tuple[str, str]]) -> None:
    sent = {stat.split(",")[0].removeprefix("airflow.") for _, stat in lines}
    shown = {name.removesuffix("_bucket") for name in existing(lines)}
    families = {name for name in shown if not name.endswith(IMPLIED)}

    assert set(re.findall(r"`(nats_executor\.[\w.]+)`", METRICS_PAGE)) == sent
    assert set(re.findall(r"`(airflow_nats_executor_\w+)`", METRICS_PAGE)) == families


def test_the_page_names_the_limits_of_the_code() -> None:
    """What a probe waits for is a promise."""
    assert f"{health.STALL_SECONDS:.0f} s" in DOCUMENT
    assert f"{health.QUIET_SECONDS:.0f} s" in DOCUMENT
    assert f"{probes.REQUEST_SECONDS:.0f} s" in DOCUMENT
