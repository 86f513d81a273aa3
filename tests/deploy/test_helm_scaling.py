"""The chart's ScaledObjects name the consumers that there are, and add up what they count."""

from __future__ import annotations

import math
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nats_executor.broker.connection import connect
from nats_executor.options import SECTION
from nats_executor.topology import setup
from nats_executor.wire.names import token
from nats_executor.wire.queue_names import in_text
from tests.support.charts import CHART, Object, environment, only, refusal, render
from tests.support.fixtures import settings_for
from tests.support.nats_server import free_port, server_binary
from tests.support.waiting import block_until
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

PREFIX = f"AIRFLOW__{SECTION.upper()}__"
NATS = ROOT / "deploy/nats"
# It opens the monitoring port for KEDA.
SHIPPED = "monitoring.conf"
TERM = re.compile(r"(lane\d+)|min\((lane\d+), (\d+\.0)\)")

PLAIN = ["default", "Q_1-2", "a" * 64, "ab--b", "b1", "true", "7", "-x", "--b"]
ODD = [
    "größe",
    "a b",
    "a.b",
    "x--b1",
    "q--" + "0" * 32,
    "a" * 65,
    "*",
    "> 1",
    "$G",
    "K=\u212a",
    "{{ 1 }}",
    "a,b",
    " lead and trail ",
    'say "hi"',
    '"',
    "-x y",
]


def settings_of(workload: Object) -> Settings:
    """Read what the variables of a workload say, as the worker does."""
    options = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment(workload).items()
        if name.startswith(PREFIX)
    }
    return settings_for(options.pop("servers"), **options)


def triggers(scaled: Object) -> list[dict[str, str]]:
    return [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]


def wanted(scaled: Object, lags: Mapping[str, int]) -> int:
    """Return the number of workers that an autoscaler wants for what each consumer counts."""
    modifiers = scaled["spec"]["advanced"]["scalingModifiers"]
    names = {t["name"]: t["metadata"]["consumer"] for t in scaled["spec"]["triggers"]}
    total = 0.0
    for term in modifiers["formula"].split(" + "):
        match = TERM.fullmatch(term)
        assert match, term
        lag = float(lags.get(names.pop(match[1] or match[2]), 0))
        total += min(lag, float(match[3])) if match[3] else lag
    assert names == {}, "every trigger counts once"
    return math.ceil(total / float(modifiers["target"]))


@pytest.mark.parametrize(
    "nats",
    [
        {},
        {"priorityBands": []},
        {"priorityBands": [50]},
        {"priorityBands": [-5, 0, 10, 1000000]},
        {"queueLimits": {"gpu": 4}},
        {"queueLimits": {"gpu": 4, "training": 1}, "subjectPrefix": "airflow-team_a"},
    ],
    ids=str,
)
def test_there_is_one_trigger_for_each_lane(nats: Object) -> None:
    queues = ["gpu", "training", "x"]
    objects = render(nats=nats, workers={"default": {"queues": queues}})
    settings = settings_of(only(objects, "Deployment"))
    scaled = only(objects, "ScaledObject")

    lanes = [lane.token for queue in queues for lane in settings.lanes(queue)]
    consumers = [trigger["consumer"] for trigger in triggers(scaled)]
    assert sorted(consumers) == sorted(lanes)
    assert {trigger["stream"] for trigger in triggers(scaled)} == {settings.names.tasks_stream}


def test_plain_names_of_queues_are_those_of_their_consumers() -> None:
    scaled = only(
        render(nats={"priorityBands": []}, workers={"default": {"queues": PLAIN}}), "ScaledObject"
    )

    assert [trigger["consumer"] for trigger in triggers(scaled)] == [token(name) for name in PLAIN]
    assert [token(name) for name in PLAIN] == PLAIN


@pytest.mark.parametrize("queue", ODD)
def test_a_name_that_nats_does_not_take_needs_that_of_its_consumer(queue: str) -> None:
    message = refusal(workers={"default": {"queues": ["default", queue]}})

    assert "workers.default.consumers has no entry for queue" in message
    assert "airflow nats auth" in message


def test_odd_names_are_scaled_by_the_consumers_that_the_values_name() -> None:
    consumers = {queue: token(queue) for queue in ODD}
    objects = render(workers={"default": {"queues": ODD, "consumers": consumers}})
    settings = settings_of(only(objects, "Deployment"))

    lanes = [lane.token for queue in ODD for lane in settings.lanes(queue)]
    assert sorted(t["consumer"] for t in triggers(only(objects, "ScaledObject"))) == sorted(lanes)


def test_without_keda_no_consumer_has_to_be_named() -> None:
    objects = render(workers={"default": {"queues": ODD, "keda": {"enabled": False}}})

    [argument] = [a for a in arguments(only(objects, "Deployment")) if a.startswith("--queues=")]
    assert in_text(argument.removeprefix("--queues=")) == ODD


def test_odd_names_may_have_limits() -> None:
    limits = {queue: number for number, queue in enumerate(ODD, 1)}
    workers = {"default": {"queues": ODD, "keda": {"enabled": False}}}
    objects = render(nats={"queueLimits": limits}, workers=workers)

    [argument] = [a for a in arguments(only(objects, "Job")) if a.startswith("--queues=")]
    assert sorted(in_text(argument.removeprefix("--queues="))) == sorted(ODD)
    assert dict(settings_of(only(objects, "Deployment")).queue_limits or ()) == limits


def arguments(workload: Object) -> list[str]:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    found: list[str] = container["args"]
    return found


@pytest.mark.parametrize(
    ("lags", "workers"),
    [
        ({}, 0),
        ({"gpu": 1}, 1),
        ({"gpu": 1, "gpu--b2": 1}, 1),
        ({"gpu": 2, "gpu--b1": 1, "other": 2}, 3),
        ({"scarce": 100}, 2),
        ({"scarce": 100, "gpu--b1": 1}, 3),
    ],
)
def test_workers_are_enough_for_all_that_waits_and_runs(
    lags: Mapping[str, int], workers: int
) -> None:
    """Two slots each; of a queue that is limited to four no more than four can run."""
    scaled = only(
        render(
            nats={"queueLimits": {"scarce": 4}},
            workers={"default": {"queues": ["gpu", "other", "scarce"], "slots": 2}},
        ),
        "ScaledObject",
    )

    assert wanted(scaled, lags) == workers


def test_a_set_s_limits_are_those_of_its_object() -> None:
    keda = {"min": 1, "max": 7, "pollingSeconds": 5, "cooldownSeconds": 60, "scaleDownSeconds": 30}
    spec = only(render(workerDefaults={"keda": keda, "slots": 3}), "ScaledObject")["spec"]

    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 7)
    assert (spec["pollingInterval"], spec["cooldownPeriod"]) == (5, 60)
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 30
    assert spec["advanced"]["scalingModifiers"]["target"] == "3"


def test_a_worker_may_count_for_other_than_its_slots() -> None:
    defaults = {"slots": 16, "keda": {"workloads": 4}}
    scaled = only(render(workerDefaults=defaults), "ScaledObject")

    assert wanted(scaled, {"default": 9}) == 3


def test_the_object_scales_the_deployment_of_its_set() -> None:
    objects = render(workers={name: {"queues": [name]} for name in ("a", "b")})
    deployments = [o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"]

    targets = [o["spec"]["scaleTargetRef"]["name"] for o in objects if o["kind"] == "ScaledObject"]
    assert targets == deployments


def test_the_account_is_that_of_the_shipped_cluster() -> None:
    accounts = re.search(r"^  (\w+) \{\n    jetstream", cluster(), flags=re.MULTILINE)
    [account] = {trigger["account"] for trigger in triggers(only(render(), "ScaledObject"))}

    assert accounts is not None
    assert account == accounts[1]


def cluster() -> str:
    return (ROOT / "deploy/nats/cluster.conf").read_text()


@pytest.mark.integration
@pytest.mark.anyio
async def test_a_real_server_counts_what_keda_asks_it_for(
    nats_server: NatsServer, names: Names
) -> None:
    """The consumers that the set-up makes are those of the triggers; what runs counts, too."""
    queues = ["default", "größe"]
    objects = render(
        nats={"subjectPrefix": names.prefix, "servers": [nats_server.url], "replicas": 1},
        keda={"account": "$G"},
        workers={"default": {"queues": queues, "consumers": {"größe": token("größe")}}},
    )
    scaled = only(objects, "ScaledObject")
    settings = settings_of(only(objects, "Job"))
    asked = [a.removeprefix("--queues=").split(",") for a in arguments(only(objects, "Job"))[2:]]

    async with connect(settings, role="test") as broker:
        await broker.ready(20)
        await setup.apply(broker, settings, asked[0])
        assert counted(nats_server, scaled) == {t["consumer"]: 0 for t in triggers(scaled)}
        for number, (queue, priority) in enumerate([("default", 1), ("größe", 10), ("größe", 500)]):
            lane = settings.lane(queue, priority)
            await broker.publish(settings.names.task(queue, f"d{number}", lane.band), b"x")
        pulls = await broker.pull(names.tasks_stream, settings.lane("größe", 500).token)
        delivery = await pulls.wait()
        lags = counted(nats_server, scaled)
        assert sum(lags.values()) == 3
        assert wanted(scaled, lags) == 1
        await delivery.ack()
        assert sum(counted(nats_server, scaled).values()) == 2


def counted(server: NatsServer, scaled: Object) -> dict[str, int]:
    """Read the lag of each trigger as KEDA does; one without a consumer is an error here."""
    found = {}
    for trigger in triggers(scaled):
        account = trigger["account"].replace("$", "%24")
        page: Any = server.monitor(f"/jsz?acc={account}&consumers=true&config=true")
        [consumer] = [
            consumer
            for details in page["account_details"]
            for stream in details["stream_detail"]
            if stream["name"] == trigger["stream"]
            for consumer in stream["consumer_detail"]
            if consumer["name"] == trigger["consumer"]
        ]
        found[trigger["consumer"]] = consumer["num_pending"] + consumer["num_ack_pending"]
    return found


@pytest.mark.parametrize(
    ("keda", "asked"),
    [
        ({"monitoringEndpoint": "nats-headless.nats.svc"}, "nats-headless.nats.svc:8222"),
        ({"monitoringEndpoint": "nats", "monitoringPort": 9000}, "nats:9000"),
        ({"monitoringEndpoint": "nats:7777"}, "nats:7777"),
    ],
)
def test_keda_asks_at_the_port_of_the_address_or_the_usual_one(keda: Object, asked: str) -> None:
    asked_at = {
        t["natsServerMonitoringEndpoint"] for t in triggers(only(render(keda=keda), "ScaledObject"))
    }

    assert asked_at == {asked}


def test_the_usual_port_is_the_one_that_the_servers_open() -> None:
    """Two files, and a third one that replaces the loopback address for KEDA."""
    usual = yaml.safe_load((CHART / "values.yaml").read_text())["keda"]["monitoringPort"]
    opened = re.compile(r"^http: (\S+):(\d+)$", re.MULTILINE)
    addresses = {
        name: opened.findall((NATS / name).read_text()) for name in ("cluster.conf", SHIPPED)
    }

    assert addresses == {
        "cluster.conf": [("127.0.0.1", str(usual))],
        SHIPPED: [("0.0.0.0", str(usual))],  # noqa: S104
    }
    assert f'\n# include "{SHIPPED}"\n' in (NATS / "cluster.conf").read_text()


@pytest.mark.integration
def test_the_server_opens_the_port_for_others_where_it_includes_the_file(tmp_path: Path) -> None:
    """The included line comes second, and replaces the loopback address."""
    text = (NATS / "cluster.conf").read_text()
    block = text[text.index("http: ") : text.index("\n\n# Clients have passwords")]
    ports = [free_port(), free_port()]
    (tmp_path / SHIPPED).write_text((NATS / SHIPPED).read_text().replace("8222", str(ports[1])))
    lines = block.replace("8222", str(ports[0])).replace("# include", "include")
    config = tmp_path / "server.conf"
    config.write_text(f"listen: 127.0.0.1:-1\n{lines}\n")

    server = subprocess.Popen([server_binary(), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        block_until(lambda: is_open(ports[1]), 20, "the port to open")
        assert not is_open(ports[0])
    finally:
        server.terminate()
        server.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
