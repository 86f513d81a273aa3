"""Values that cannot work are refused by name, and the page on the chart says what there is."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from nats_executor.options import OPTIONS, SECTION
from nats_executor.settings import MOST_BANDS
from nats_executor.wire.names import token
from tests.support.charts import (
    CHART,
    LEAST,
    Object,
    complaints,
    environment,
    only,
    pod_of,
    refusal,
    render,
)
from tests.tools.boundaries import ROOT
from tests.tools.document_values import comments, document, leaves, table

PAGE = (ROOT / "docs/how-to/kubernetes.md").read_text()
VALUES = (CHART / "values.yaml").read_text()
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
EXAMPLE = re.compile(r"<!-- example: (\w+) -->\s+```yaml\n(.*?)```", re.DOTALL)
DEFAULT = {"queues": ["default"]}
PREFIX = f"AIRFLOW__{SECTION.upper()}__"


def one(**settings: Any) -> Object:
    """Return values with one set that has these settings."""
    return {"workers": {"gpu": {"queues": ["gpu"], **settings}}}


REFUSED: dict[str, tuple[Object, list[str]]] = {
    "no set": ({"workers": {}}, ["workers is empty"]),
    "no queue": ({"workers": {"gpu": {"queues": []}}}, ["/workers/gpu/queues"]),
    "queues left out": ({"workers": {"gpu": {}}}, ["/workers/gpu", "queues"]),
    "queues for all": (
        {"workerDefaults": {"queues": ["a"]}},
        ["workerDefaults.queues", "workers.NAME.queues"],
    ),
    "a queue twice": ({"workers": {"gpu": {"queues": ["a", "a"]}}}, ["/workers/gpu/queues"]),
    "an empty name": ({"workers": {"gpu": {"queues": [""]}}}, ["/workers/gpu/queues/0"]),
    "a set's name": ({"workers": {"Gpu": DEFAULT}}, ["workers.Gpu", "lower-case"]),
    "a long set's name": ({"workers": {"g" * 33: DEFAULT}}, [f"workers.{'g' * 33}", "at most 32"]),
    "a wrong key": (one(concurrency=4), ["/workers/gpu", "concurrency"]),
    "a wrong key below": (one(keda={"minimum": 4}), ["/workers/gpu/keda", "minimum"]),
    "a wrong key above": ({"queues": ["a"]}, ["queues"]),
    "no slots": (one(slots=0), ["/workers/gpu/slots"]),
    "no server": ({"nats": {"servers": []}}, ["nats.servers is empty", "tls://"]),
    "a password in an address": (
        {"nats": {"servers": ["nats://a:b@c"]}},
        ["/nats/servers/0"],
    ),
    "no API server": ({"airflow": {"apiServerUrl": ""}}, ["airflow.apiServerUrl is empty"]),
    "no login": (
        {"workerDefaults": {"loginSecret": ""}},
        ["workers.default.loginSecret is empty", "nats.anonymous"],
    ),
    "no login to set up": ({"setup": {"loginSecret": ""}}, ["setup.loginSecret is empty"]),
    "no monitoring": (
        {"keda": {"monitoringEndpoint": ""}},
        ["keda.monitoringEndpoint is empty", "workers.default.keda.enabled"],
    ),
    "a monitoring address with a scheme": (
        {"keda": {"monitoringEndpoint": "http://a:8222"}},
        ["/keda/monitoringEndpoint"],
    ),
    "a monitoring port out of range": (
        {"keda": {"monitoringPort": 70000}},
        ["/keda/monitoringPort"],
    ),
    "a sidecar with the worker's name": (
        one(sidecars=[{"name": "worker", "image": "i"}]),
        ["workers.gpu.sidecars", "another name"],
    ),
    "such an init container, for all": (
        {"workerDefaults": {"initContainers": [{"name": "worker", "image": "i"}]}},
        ["workers.default.initContainers", "another name"],
    ),
    "a sidecar without a name": (one(sidecars=[{"image": "i"}]), ["/workers/gpu/sidecars/0"]),
    "an object without a kind": (
        {"extraObjects": [{"apiVersion": "v1", "metadata": {"name": "x"}}]},
        ["/extraObjects/0", "kind"],
    ),
    "a secret among objects": (
        {
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "login"},
                    "stringData": {"a": "b"},
                }
            ]
        },
        ["extraObjects", "the Secret login has a value"],
    ),
    "a secret in a list of objects": (
        {
            "extraObjects": [
                {
                    "apiVersion": "v1",
                    "kind": "List",
                    "metadata": {},
                    "items": [{"apiVersion": "v1", "kind": "Secret", "data": {"a": "Yg=="}}],
                }
            ]
        },
        ["extraObjects", "the Secret without a name has a value"],
    ),
    "fewest above most": (
        one(keda={"min": 5, "max": 4}),
        ["workers.gpu.keda.min is 5", "keda.max, which is 4"],
    ),
    "too short a grace": (
        one(terminationGracePeriodSeconds=599),
        ["workers.gpu.terminationGracePeriodSeconds is 599", "600", "raise it"],
    ),
    "a grace that a longer drain outgrows": (
        one(drainSeconds=7200, terminationGracePeriodSeconds=7200),
        ["7200", "7260"],
    ),
    "bands out of order": (
        {"nats": {"priorityBands": [100, 10]}},
        ["nats.priorityBands: 10 follows 100"],
    ),
    "too many bands": (
        {"nats": {"priorityBands": list(range(MOST_BANDS + 1))}},
        ["/nats/priorityBands"],
    ),
    "a limit of nothing": ({"nats": {"queueLimits": {"gpu": 0}}}, ["/nats/queueLimits/gpu"]),
    "two copies": ({"nats": {"replicas": 2}}, ["/nats/replicas"]),
    "two CAs": ({"nats": {"tls": {"caSecret": "a", "caConfigMap": "b"}}}, ["nats.tls", "both"]),
    "an option of the chart's own": (
        {"airflow": {"config": {"nats_executor": {"drain_seconds": 9}}}},
        [f"{PREFIX}DRAIN_SECONDS is set by the chart", "drainSeconds"],
    ),
    "a variable of the chart's own": (
        one(env={f"{PREFIX}SERVERS": "nats://x"}),
        [f"{PREFIX}SERVERS is set by the chart"],
    ),
    "one more such variable": (
        {"airflow": {"extraEnv": [{"name": f"{PREFIX}SERVERS", "value": "nats://x"}]}},
        [f"{PREFIX}SERVERS is set by the chart"],
    ),
    "a password": (
        {"airflow": {"config": {"nats_executor": {"password": "p"}}}},
        [f"{PREFIX}PASSWORD is a secret", "envFrom"],
    ),
    "a connection": (one(env={"AIRFLOW_CONN_DB": "pg://"}), ["AIRFLOW_CONN_DB is a secret"]),
    "a key": (
        {"airflow": {"extraEnv": [{"name": "AIRFLOW__CORE__FERNET_KEY", "value": "k"}]}},
        ["AIRFLOW__CORE__FERNET_KEY is a secret"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_by_its_name(case: str) -> None:
    changes, words = REFUSED[case]

    message = refusal(**changes)
    assert [word for word in words if word not in message] == []


def test_a_refusal_shows_no_password() -> None:
    message = refusal(airflow={"config": {"nats_executor": {"password": "hunter2"}}})

    assert "hunter2" not in message


def test_servers_without_users_need_no_login() -> None:
    objects = render(
        nats={"anonymous": True}, setup={"loginSecret": ""}, workerDefaults={"loginSecret": ""}
    )

    [container] = pod_of(only(objects, "Deployment"))["containers"]
    assert "envFrom" not in container


def test_a_longer_grace_is_kept() -> None:
    pod = only(render(**one(terminationGracePeriodSeconds=900)), "Deployment")["spec"]["template"]

    assert pod["spec"]["terminationGracePeriodSeconds"] == 900


def test_what_a_set_says_goes_before_what_holds_for_all() -> None:
    """Also where it says no, nothing or none."""
    objects = render(
        workerDefaults={"slots": 8, "killSeconds": 9, "resources": {"limits": {"memory": "1Gi"}}},
        airflow={"env": {"A": "all", "B": "all"}, "config": {"core": {"Parallelism": 1000000}}},
        workers={
            "gpu": {
                "queues": ["gpu"],
                "killSeconds": 0,
                "keda": {"enabled": False},
                "readOnlyRootFilesystem": False,
                "env": {"A": "mine"},
            }
        },
    )
    deployment = only(objects, "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    variables = environment(deployment)

    assert variables[f"{PREFIX}KILL_SECONDS"] == "0"
    assert (variables["A"], variables["B"]) == ("mine", "all")
    assert variables["AIRFLOW__CORE__PARALLELISM"] == "1000000"
    assert container["securityContext"]["readOnlyRootFilesystem"] is False
    assert "--concurrency=8" in container["args"]
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert not [o for o in objects if o["kind"] == "ScaledObject"]


def test_a_file_of_airflow_s_settings_is_read_where_one_is_named() -> None:
    """Without one Airflow would write one, and the file system is read-only."""
    [without, with_one] = [
        only(render(airflow={"configMap": name}), "Deployment") for name in ("", "airflow-config")
    ]

    assert environment(without)["AIRFLOW_CONFIG"] == "/dev/null"
    assert environment(with_one)["AIRFLOW_CONFIG"] == "/etc/airflow/airflow.cfg"
    volumes = with_one["spec"]["template"]["spec"]["volumes"]
    assert {"airflow-config"} == {v["configMap"]["name"] for v in volumes if "configMap" in v}


# Schema, comments and page


def properties(schema: Object) -> Object:
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    found: Object = schema.get("properties", {})
    return found


def paths(schema: Object, path: str = "") -> set[str]:
    """Return every value that a schema knows."""
    found: set[str] = set()
    for key, value in properties(schema).items():
        below = paths(value, f"{path}{key}.")
        found |= below or {f"{path}{key}"}
    return found


def test_schema_and_values_know_the_same() -> None:
    known = leaves(yaml.safe_load(VALUES))

    assert paths(SCHEMA) - {"global", "workerDefaults.queues"} == known.keys()


def test_every_object_of_the_schema_is_closed() -> None:
    """A misspelt value would be ignored otherwise."""
    open_ones = [
        schema
        for schema in every(SCHEMA)
        if "properties" in schema and "name" not in schema["properties"]
        if schema.get("additionalProperties") is not False
    ]

    assert open_ones == []


def every(schema: Any) -> list[Object]:
    if isinstance(schema, list):
        return [found for item in schema for found in every(item)]
    if not isinstance(schema, dict):
        return []
    below = [found for item in schema.values() for found in every(item)]
    return [schema, *below] if schema.get("type") == "object" else below


def test_every_value_says_what_it_is_for() -> None:
    said = comments(VALUES)

    assert [path for path in leaves(yaml.safe_load(VALUES)) if not said.get(path)] == []


def test_the_page_has_the_table_of_these_values() -> None:
    """`make docs` writes it."""
    assert document(PAGE, VALUES) == PAGE
    assert table(VALUES) in PAGE


def examples(kind: str) -> list[Object]:
    found = [yaml.safe_load(text) for name, text in EXAMPLE.findall(PAGE) if name == kind]
    assert found
    return found


def test_the_page_s_values_are_complete() -> None:
    """Nothing is added to them, not even the least."""
    [example] = examples("workers")
    assert example.keys() >= LEAST.keys() - {"workerDefaults"}

    objects = render(**example, workerDefaults={"loginSecret": ""})
    assert len([o for o in objects if o["kind"] == "Deployment"]) == 2


def test_the_page_s_git_sync_gives_the_worker_its_dags() -> None:
    [example] = examples("gitsync")
    objects = render(**example)
    deployment = only(objects, "Deployment")
    pod = pod_of(deployment)
    [first], [worker, other] = pod["initContainers"], pod["containers"]

    assert [c for o in objects for c in complaints(o)] == []
    assert [worker["name"], other["name"]] == ["worker", "git-sync"]
    assert first["args"][:-1] == other["args"][:-1]
    assert (first["args"][-1], other["args"][-1]) == ("--one-time", "--period=60s")
    root, link = (value(first["args"], name) for name in ("--root", "--link"))
    assert environment(deployment)["AIRFLOW__CORE__DAGS_FOLDER"].startswith(f"{root}/{link}/")
    [seen] = [m for m in worker["volumeMounts"] if m["mountPath"] == root]
    assert {m["name"] for c in (first, other) for m in c["volumeMounts"]} >= {seen["name"]}
    assert {v["name"] for v in pod["volumes"]} >= {
        m["name"] for c in (first, worker, other) for m in c["volumeMounts"]
    }


def test_the_page_s_policy_guards_the_port_that_keda_asks() -> None:
    [policy] = examples("monitoring")
    guarded = [rule for rule in policy["spec"]["ingress"] if "from" in rule]

    assert complaints(policy) == []
    assert [p["port"] for rule in guarded for p in rule["ports"]] == [
        yaml.safe_load(VALUES)["keda"]["monitoringPort"]
    ]


def value(arguments: list[str], name: str) -> str:
    [found] = [a.partition("=")[2] for a in arguments if a.partition("=")[0] == name]
    return found


def test_the_page_names_the_right_consumer() -> None:
    [example] = examples("odd")

    [workers] = example["workers"].values()
    assert workers["consumers"] == {queue: token(queue) for queue in workers["queues"]}
    assert all(token(queue) in PAGE for queue in workers["queues"])


def test_the_official_chart_is_told_of_options_that_exist() -> None:
    [example] = examples("official")
    known = {option.name for option in OPTIONS}
    variables = {
        entry["name"] for part in ("scheduler", "apiServer") for entry in example[part]["env"]
    }

    assert example["config"][SECTION].keys() <= known
    assert {name.removeprefix(PREFIX).lower() for name in variables} <= known
    assert (
        example["executor"] == environment(only(render(), "Deployment"))["AIRFLOW__CORE__EXECUTOR"]
    )
