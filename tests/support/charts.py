"""The workers' chart, rendered by the real helm, and its objects under Kubernetes' own schemas."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from typing import Any

import jsonschema
import yaml
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.support.require import require
from tests.tools.boundaries import ROOT

__all__ = [
    "CHART",
    "LEAST",
    "Object",
    "complaints",
    "environment",
    "helm",
    "only",
    "own_container",
    "pod_of",
    "refusal",
    "render",
    "values",
]

CHART = ROOT / "deploy/helm"
TOOLS = ROOT / ".tools"
SCHEMAS = TOOLS / "kubernetes"

Object = dict[str, Any]

# The least that has to be said.
LEAST: Object = {
    "airflow": {"apiServerUrl": "http://airflow-api-server:8080/execution/"},
    "nats": {"servers": ["tls://nats.nats.svc:4222"]},
    "keda": {"monitoringEndpoint": "nats-headless.nats.svc:8222"},
    "setup": {"loginSecret": "nats-admin"},
    "workerDefaults": {"loginSecret": "nats-worker"},
}

TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}
# What Kubernetes' schemas lack: the parts of two custom kinds that the chart uses, and no others.
# Compared with the definitions of KEDA 2.20 and of the Prometheus operator by hand.
CUSTOM: dict[str, Object] = {
    "keda.sh/v1alpha1 ScaledObject": {
        "required": ["scaleTargetRef", "triggers"],
        "additionalProperties": False,
        "properties": {
            "scaleTargetRef": {
                "required": ["name"],
                "additionalProperties": False,
                "properties": {"apiVersion": TEXT, "kind": TEXT, "name": TEXT},
            },
            "minReplicaCount": NUMBER,
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer", "minimum": 1},
            "cooldownPeriod": NUMBER,
            "advanced": {
                "additionalProperties": False,
                "properties": {
                    "horizontalPodAutoscalerConfig": {
                        "additionalProperties": False,
                        "properties": {"behavior": {"type": "object"}},
                    },
                    "scalingModifiers": {
                        "additionalProperties": False,
                        "properties": {"formula": TEXT, "target": TEXT},
                    },
                },
            },
            "triggers": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "required": ["type", "metadata"],
                    "additionalProperties": False,
                    "properties": {
                        "type": {"const": "nats-jetstream"},
                        "name": TEXT,
                        "metadata": {"type": "object", "additionalProperties": TEXT},
                    },
                },
            },
        },
    },
    "monitoring.coreos.com/v1 PodMonitor": {
        "required": ["selector", "podMetricsEndpoints"],
        "additionalProperties": False,
        "properties": {
            "selector": {"required": ["matchLabels"]},
            "podMetricsEndpoints": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "additionalProperties": False,
                    "properties": {"port": TEXT, "path": TEXT, "interval": TEXT},
                },
            },
        },
    },
}


@functools.cache
def helm_binary() -> str | None:
    """Return the helm of `make .tools/helm`, or the one on the PATH, if it runs on this machine."""
    for candidate in (str(TOOLS / "helm"), shutil.which("helm")):
        if candidate and os.access(candidate, os.X_OK):
            try:
                subprocess.run([candidate, "version"], capture_output=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                continue
            return candidate
    return None


def helm(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    binary = helm_binary()
    require(binary, "no helm for this machine: `make .tools/helm`, or put one on the PATH")
    assert binary is not None
    return subprocess.run([binary, *args], input=stdin, capture_output=True, text=True, check=False)


def values(**changes: Any) -> Object:
    """Return the least of values with some changed, section by section."""
    return merged(LEAST, {"workers": {"default": {"queues": ["default"]}}} | changes)


def merged(old: Object, new: Object) -> Object:
    both = {k: merged(old[k], new[k]) for k in old.keys() & new.keys() if isinstance(new[k], dict)}
    return old | new | both


def run(release: str, changes: Object) -> subprocess.CompletedProcess[str]:
    text = yaml.safe_dump(values(**changes), allow_unicode=True)
    return helm("template", release, str(CHART), "--namespace", "airflow", "-f", "-", stdin=text)


def render(release: str = "nw", **changes: Any) -> list[Object]:
    """Return the chart's objects for the least of values and these changes."""
    done = run(release, changes)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(release: str = "nw", **changes: Any) -> str:
    """Return what helm says to values that it has to refuse."""
    done = run(release, changes)
    assert done.returncode != 0, done.stdout
    return done.stderr


def only(objects: list[Object], kind: str, ends_with: str = "") -> Object:
    [found] = [
        o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(ends_with)
    ]
    return found


def pod_of(workload: Object) -> Object:
    """Return the pod's spec of a Deployment or a Job."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def own_container(workload: Object) -> Object:
    """Return the container of a Deployment or a Job that is the chart's own."""
    [found] = [c for c in pod_of(workload)["containers"] if c["name"] in {"worker", "setup"}]
    assert isinstance(found, dict)
    return found


def environment(workload: Object) -> dict[str, str]:
    """Return the variables of a workload that have a value of their own."""
    container = own_container(workload)
    names = [entry["name"] for entry in container["env"]]
    assert len(set(names)) == len(names)
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


@functools.cache
def validator(version: str, file: str) -> jsonschema.Draft7Validator:
    directory = SCHEMAS / version
    definitions = json.loads((directory / "_definitions.json").read_text())
    registry: Registry[Any] = Registry().with_resource(
        "_definitions.json", DRAFT7.create_resource(definitions)
    )
    schema = json.loads((directory / file).read_text())
    return jsonschema.Draft7Validator(schema, registry=registry)


def complaints(document: Object) -> list[str]:
    """Return what Kubernetes' schemas, or ours of custom kinds, find wrong in an object."""
    version, kind = document["apiVersion"], document["kind"]
    if custom := CUSTOM.get(f"{version} {kind}"):
        errors = jsonschema.Draft7Validator(custom).iter_errors(document["spec"])
        return [error.message for error in errors]
    require(SCHEMAS.is_dir(), "no schemas of Kubernetes: `make .tools/helm`")
    releases = sorted(path.name for path in SCHEMAS.iterdir())
    assert releases
    group, _, number = version.rpartition("/")
    file = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number))) + ".json"
    return [
        f"{release}: {error.json_path}: {error.message}"
        for release in releases
        for error in validator(release, file).iter_errors(document)
    ]
