"""Output of the workers' chart: objects that Kubernetes takes, pods that do little and drain."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli.definitions import get_nats_cli_commands
from nats_executor.cli.worker_definitions import WORKER_ARGS
from nats_executor.options import OPTIONS, SECTION
from tests.support.charts import (
    CHART,
    Object,
    complaints,
    environment,
    helm,
    only,
    pod_of,
    render,
)
from tests.support.charts import own_container as container
from tests.support.shipped import make_users

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = f"AIRFLOW__{SECTION.upper()}__"
# In a pod, where it is a volume of its own.
SCRATCH = "/tmp"  # noqa: S108
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")

TWO_SETS: Object = {
    "workers": {
        "default": {"queues": ["default"], "loginSecret": "nats-default"},
        "gpu": {"queues": ["gpu", "training"], "loginSecret": "nats-gpu", "slots": 2},
    }
}
EVERYTHING: Object = {
    "nameOverride": "crew",
    "image": {"tag": "7", "pullSecrets": ["registry"]},
    "airflow": {
        "configMap": "airflow-config",
        "config": {"logging": {"remote_logging": True}, "core": {"parallelism": 64}},
        "env": {"TZ": "UTC"},
        "extraEnv": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "envFrom": [{"configMapRef": {"name": "shared"}}],
    },
    "nats": {
        "tls": {"caConfigMap": "nats-ca", "caKey": "ca.crt"},
        "priorityBands": [50],
        "queueLimits": {"gpu": 4},
    },
    "metrics": {
        "annotations": True,
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "networkPolicy": {
        "scrapersFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "natsTo": [{"podSelector": {"matchLabels": {"app": "nats"}}}],
        "apiServerTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "dnsTo": [{"namespaceSelector": {}}],
        "extraEgress": [{"ports": [{"port": 5432}]}],
    },
    "setup": {
        "resources": {"limits": {"memory": "1Gi"}},
        "extraVolumes": [{"name": "creds", "secret": {"secretName": "creds"}}],
        "extraVolumeMounts": [{"name": "creds", "mountPath": "/etc/creds"}],
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "zone", "operator": "Exists"}],
    },
    "extraObjects": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-notes"},
            "data": {"queues": '{{ include "workers.queues" . }}'},
        }
    ],
    "workers": {
        "default": {"queues": ["default"]},
        "gpu": {
            "queues": ["gpu", "training"],
            "slots": 2,
            "keda": {"min": 1, "max": 4},
            "drainSeconds": 7200,
            "resources": {"limits": {"memory": "8Gi", "nvidia.com/gpu": 1}},
            "writable": [SCRATCH, "/opt/airflow/logs", "/home/airflow/.cache"],
            "writableSizeLimit": "10Gi",
            "serviceAccountName": "gpu",
            "env": {"TZ": "Europe/Berlin"},
            "extraEnv": [
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
            ],
            "extraVolumes": [{"name": "dags", "persistentVolumeClaim": {"claimName": "dags"}}],
            "extraVolumeMounts": [{"name": "dags", "mountPath": "/opt/airflow/dags"}],
            "initContainers": [{"name": "fetch", "image": "fetch:1", "args": ["--one-time"]}],
            "sidecars": [{"name": "proxy", "image": "proxy:1"}],
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "ml", "app.kubernetes.io/name": "not ours"},
            "nodeSelector": {"gpu": "true"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
            ],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
        },
        "fixed": {"queues": ["slow"], "keda": {"enabled": False}, "replicas": 3},
    },
}
SCENES = {"least": {}, "two sets": TWO_SETS, "everything": EVERYTHING}


@pytest.fixture(name="objects", params=SCENES, scope="module")
def objects_fixture(request: pytest.FixtureRequest) -> list[Object]:
    return render(**SCENES[request.param])


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [o for o in objects if o["kind"] == kind]


def workloads(objects: list[Object]) -> list[Object]:
    return [*of_kind(objects, "Deployment"), *of_kind(objects, "Job")]


def test_helm_finds_nothing_to_say() -> None:
    sets = ["--set", "nats.anonymous=true", "--set", "keda.monitoringEndpoint=n:8222"]
    places = ["--set", "nats.servers={nats://n}", "--set", "airflow.apiServerUrl=http://a/"]
    done = helm("lint", "--strict", str(CHART), *sets, *places)

    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout
    assert "WARNING" not in done.stdout


def test_kubernetes_takes_every_object(objects: list[Object]) -> None:
    assert {o["kind"] for o in objects} >= {"Deployment", "Job", "NetworkPolicy", "ScaledObject"}
    assert [c for o in objects for c in complaints(o)] == []


def test_the_schemas_find_what_is_wrong() -> None:
    """Or the test above would show nothing."""
    objects = render()
    deployment = only(objects, "Deployment")
    pod_of(deployment)["terminationGracePeriod"] = 3
    only(objects, "ScaledObject")["spec"]["triggers"][0]["metadata"]["lagThreshold"] = 16

    assert len(complaints(deployment)) == 3
    assert len(complaints(only(objects, "ScaledObject"))) == 1


def test_a_set_has_a_deployment_of_its_own() -> None:
    objects = render(**TWO_SETS)

    assert [container(d)["args"][2:4] for d in of_kind(objects, "Deployment")] == [
        ["--queues=default", "--concurrency=16"],
        ["--queues=gpu,training", "--concurrency=2"],
    ]
    selectors = [d["spec"]["selector"]["matchLabels"] for d in of_kind(objects, "Deployment")]
    assert selectors[0] != selectors[1]


def test_selectors_find_their_pods_and_no_others(objects: list[Object]) -> None:
    pods = {
        w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"]
        for w in workloads(objects)
    }
    for deployment in of_kind(objects, "Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        found = [n for n, labels in pods.items() if selector.items() <= labels.items()]
        assert found == [deployment["metadata"]["name"]]
    for budget in of_kind(objects, "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        found = [n for n, labels in pods.items() if selector.items() <= labels.items()]
        assert found == [budget["metadata"]["name"]]
    deployments = {d["metadata"]["name"] for d in of_kind(objects, "Deployment")}
    for monitor in of_kind(objects, "PodMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        assert {
            n for n, labels in pods.items() if selector.items() <= labels.items()
        } == deployments


def test_a_pod_can_do_as_little_as_possible(objects: list[Object]) -> None:
    for workload in workloads(objects):
        pod, inside = pod_of(workload), container(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 50000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert inside["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {SCRATCH, "/opt/airflow/logs"} <= {m["mountPath"] for m in inside["volumeMounts"]}
        assert {m["name"] for m in inside["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_a_stop_reaches_the_worker_alone(objects: list[Object]) -> None:
    """Whatever the image's entrypoint is: the official image's tells the tasks as well."""
    assert all(container(workload)["command"] == ["airflow"] for workload in workloads(objects))


def test_every_variable_is_an_option(objects: list[Object]) -> None:
    known = {f"{PREFIX}{option.name.upper()}" for option in OPTIONS}
    for workload in workloads(objects):
        used = {name for name in environment(workload) if name.startswith(PREFIX)}
        assert f"{PREFIX}SERVERS" in used
        assert used <= known


def test_every_argument_is_one_of_the_command(objects: list[Object]) -> None:
    [group] = get_nats_cli_commands()
    setup = next(command for command in group.subcommands if command.name == "setup")
    for workload in workloads(objects):
        _, command, *arguments = container(workload)["args"]
        known = WORKER_ARGS if command == "worker" else setup.args
        flags = {flag for argument in known for flag in argument.flags}
        assert {argument.partition("=")[0] for argument in arguments} <= flags
        assert all(a.startswith("--") for a in arguments)


def test_a_worker_opens_no_log_server_unless_told_so() -> None:
    [silent, serving] = [
        container(only(render(workerDefaults={"serveLogs": serves}), "Deployment"))["args"]
        for serves in (False, True)
    ]

    assert "--serve-logs" not in silent
    assert "--serve-logs" in serving


def test_probes_ask_the_worker_s_own_port(objects: list[Object]) -> None:
    for deployment in of_kind(objects, "Deployment"):
        inside = container(deployment)
        [port] = inside["ports"]
        assert environment(deployment)[f"{PREFIX}HEALTH_PORT"] == str(port["containerPort"])
        probes = {
            kind: inside[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
        }
        assert {probe["port"] for probe in probes.values()} == {port["name"]}
        assert probes["liveness"]["path"] == probes["startup"]["path"] == "/livez"
        assert probes["readiness"]["path"] == "/readyz"


def test_the_port_of_health_is_one_value() -> None:
    objects = render(health={"port": 9000}, metrics={"annotations": True})
    deployment = only(objects, "Deployment")

    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9000"
    assert container(deployment)["ports"] == [{"name": "health", "containerPort": 9000}]
    assert environment(deployment)[f"{PREFIX}HEALTH_PORT"] == "9000"


def test_a_pod_has_the_time_to_drain(objects: list[Object]) -> None:
    for deployment in of_kind(objects, "Deployment"):
        used = environment(deployment)
        needed = sum(float(used[f"{PREFIX}{name}_SECONDS"]) for name in ("DRAIN", "KILL"))
        assert pod_of(deployment)["terminationGracePeriodSeconds"] >= needed + 5


def test_an_upgrade_starts_a_new_worker_before_it_stops_an_old_one() -> None:
    strategy = only(render(), "Deployment")["spec"]["strategy"]

    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_logins_are_references_and_each_set_has_its_own() -> None:
    objects = render(**TWO_SETS)

    logins = {w["metadata"]["name"]: container(w)["envFrom"] for w in workloads(objects)}
    assert logins == {
        "nw-airflow-nats-workers-default": [{"secretRef": {"name": "nats-default"}}],
        "nw-airflow-nats-workers-gpu": [{"secretRef": {"name": "nats-gpu"}}],
        "nw-airflow-nats-workers-setup": [{"secretRef": {"name": "nats-admin"}}],
    }
    assert of_kind(objects, "Secret") == []


def test_a_login_goes_before_whatever_else_has_variables() -> None:
    """Of two sources with the same variable Kubernetes takes the last."""
    sources = container(only(render(**EVERYTHING), "Deployment", "-gpu"))["envFrom"]

    assert sources == [{"configMapRef": {"name": "shared"}}, {"secretRef": {"name": "nats-worker"}}]


def test_the_login_s_variables_are_those_that_the_script_writes(tmp_path: Path) -> None:
    """The chart takes a Secret made from such a file as it is, and sets none of them itself."""
    done = make_users(tmp_path, "gpu")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "worker-gpu.env").read_text().splitlines()
    written = {line.partition("=")[0] for line in lines}

    assert written >= {f"{PREFIX}{name}" for name in ("USER", "PASSWORD", "INBOX_PREFIX")}
    for workload in workloads(render(**EVERYTHING)):
        assert not written & environment(workload).keys()


def test_the_set_up_is_there_before_everything_else() -> None:
    """KEDA before 2.20 takes a missing consumer for a stream full of work."""
    objects = render(**TWO_SETS)
    job = only(objects, "Job")

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert container(job)["args"] == ["nats", "setup", "--queues=default,gpu,training"]
    hooks = [o for o in objects if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    assert {o["kind"] for o in hooks} == {"Job", "NetworkPolicy"}
    weights = {o["kind"]: int(o["metadata"]["annotations"]["helm.sh/hook-weight"]) for o in hooks}
    assert weights["NetworkPolicy"] < weights["Job"]


def test_the_set_up_has_the_options_of_the_workers() -> None:
    """Bands, limits and prefix decide which consumers there are."""
    objects = render(**EVERYTHING)
    own = {f"{PREFIX}{name}" for name in ("DRAIN_SECONDS", "KILL_SECONDS", "HEALTH_PORT")}

    job = environment(only(objects, "Job"))
    worker = environment(only(objects, "Deployment", "-default"))
    assert {name: value for name, value in worker.items() if name not in own} == job


def test_a_network_policy_lets_nobody_in_and_little_out() -> None:
    policy = only(render(), "NetworkPolicy", "-workers")["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [4222], [8080]]


@pytest.mark.parametrize(
    ("servers", "url", "ports"),
    [
        (["nats://a", "tls://b:4333"], "https://airflow.example.org/execution/", [4222, 4333, 443]),
        (["ws://a", "wss://b"], "http://airflow/execution/", [80, 443, 80]),
        (["nats://[::1]:4444", "nats://[::2]"], "http://[::1]:8080/", [4444, 4222, 8080]),
    ],
)
def test_ports_are_those_of_the_addresses(servers: list[str], url: str, ports: list[int]) -> None:
    objects = render(nats={"servers": servers}, airflow={"apiServerUrl": url})

    rules = only(objects, "NetworkPolicy", "-workers")["spec"]["egress"][1:]
    assert [port["port"] for rule in rules for port in rule["ports"]] == ports
    setup = only(objects, "NetworkPolicy", "-setup")["spec"]["egress"][1:]
    assert [port["port"] for rule in setup for port in rule["ports"]] == ports[:-1]


def test_peers_narrow_a_network_policy() -> None:
    spec = only(render(**EVERYTHING), "NetworkPolicy", "-crew")["spec"]
    given: Any = EVERYTHING["networkPolicy"]

    assert [rule["from"] for rule in spec["ingress"]] == [given["scrapersFrom"]]
    assert [p["port"] for rule in spec["ingress"] for p in rule["ports"]] == [8080]
    assert [rule.get("to") for rule in spec["egress"]] == [
        given["dnsTo"], given["natsTo"], given["apiServerTo"], None,
    ]  # fmt: skip


def test_a_set_has_the_containers_and_hooks_of_its_values() -> None:
    deployments = of_kind(render(**EVERYTHING), "Deployment")
    given = EVERYTHING["workers"]["gpu"]
    [mine] = [d for d in deployments if d["metadata"]["name"].endswith("-gpu")]
    others = [pod_of(d) for d in deployments if d is not mine]

    assert pod_of(mine)["initContainers"] == given["initContainers"]
    assert pod_of(mine)["containers"] == [container(mine), *given["sidecars"]]
    assert container(mine)["lifecycle"] == given["lifecycle"]
    for pod in others:
        assert "initContainers" not in pod
        assert [set(c) & {"lifecycle"} for c in pod["containers"]] == [set()]


def test_what_holds_for_all_holds_for_each_set_without_its_own() -> None:
    shared = {"sidecars": [{"name": "proxy", "image": "proxy:1"}]}
    own = {"queues": ["gpu"], "sidecars": []}
    objects = render(workerDefaults=shared, workers={"gpu": own, "default": {"queues": ["a"]}})

    assert {
        d["metadata"]["name"]: [c["name"] for c in pod_of(d)["containers"]]
        for d in of_kind(objects, "Deployment")
    } == {
        "nw-airflow-nats-workers-default": ["worker", "proxy"],
        "nw-airflow-nats-workers-gpu": ["worker"],
    }


def test_the_set_up_has_volumes_and_a_place_of_its_own() -> None:
    pod = pod_of(only(render(**EVERYTHING), "Job"))
    given: Any = EVERYTHING["setup"]

    assert pod["volumes"][-1] == given["extraVolumes"][0]
    assert pod["containers"][0]["volumeMounts"][-1] == given["extraVolumeMounts"][0]
    assert pod["nodeSelector"] == given["nodeSelector"]
    assert pod["tolerations"] == given["tolerations"]


def test_more_objects_are_there_with_their_templates_filled_in() -> None:
    notes = only(render(**EVERYTHING), "ConfigMap")

    assert notes["metadata"]["name"] == "nw-notes"
    assert notes["data"] == {"queues": "default,gpu,slow,training"}


def test_what_is_switched_off_is_not_there() -> None:
    objects = render(
        setup={"enabled": False},
        networkPolicy={"enabled": False},
        workerDefaults={"keda": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
    )

    assert [o["kind"] for o in objects] == ["Deployment"]
    assert objects[0]["spec"]["replicas"] == 1


def test_where_keda_decides_the_deployment_has_no_number_of_its_own() -> None:
    """An upgrade would set it back, and stop workers."""
    deployments = of_kind(render(**EVERYTHING), "Deployment")

    assert {d["metadata"]["name"]: d["spec"].get("replicas") for d in deployments} == {
        "nw-crew-default": None,
        "nw-crew-fixed": 3,
        "nw-crew-gpu": None,
    }


@pytest.mark.parametrize("release", ["n", "r" * 53, "a.b", "airflow-nats-workers"])
@pytest.mark.parametrize("name", ["s", "s" * 32, "s" * 31 + "t"])
def test_names_are_short_enough_and_different(release: str, name: str) -> None:
    sets = {set_name: {"queues": ["q"]} for set_name in {name, "s" * 30 + "uv"}}
    objects = render(release, workers=sets, metrics={"podMonitor": {"enabled": True}})
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]

    assert len(set(names)) == len(names)
    assert all(LABEL.fullmatch(found) for _, found in names)
    # What a ReplicaSet, a pod and KEDA's autoscaler append.
    assert max(len(found) for kind, found in names if kind != "NetworkPolicy") <= 63
    assert all(len(d["metadata"]["name"]) <= 63 - 17 for d in of_kind(objects, "Deployment"))
    labels = [v for o in objects for v in o["metadata"]["labels"].values()]
    assert all(LABEL_VALUE.fullmatch(value) for value in labels)
