"""The whole deployment of deploy/compose.yaml in real containers, as a test sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from nats_executor.local.api import AirflowApi, ApiError, ApiSilent
from nats_executor.local.deployment import free_port
from tests.support.waiting import block_until
from tests.tools.boundaries import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["NODES", "Deployment", "docker"]

FILES = (ROOT / "deploy/compose.yaml", ROOT / "tests/containers/compose.yaml")
NODES = ("nats-1", "nats-2", "nats-3")
PAGE = 100  # the most that Airflow's API gives at once
START_SECONDS = 400


def docker(*args: str, timeout: float = 120, env: dict[str, str] | None = None) -> str:
    """Run a command of the engine's and return what it prints.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run(
        ["docker", *args],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Deployment:
    """A compose project of its own, which goes with everything that it made.

    Args:
        marks: a directory in which the tasks write down what they do.
        scale: how many containers of which service.
    """

    def __init__(self, project: str, marks: Path, scale: dict[str, int]) -> None:
        self.project = project
        self.scale = scale
        self.api = AirflowApi(free_port())
        self._environment = {"TRIAL_MARKS": str(marks), "AIRFLOW_PORT": str(self.api.port)}

    def __enter__(self) -> Self:
        scale = [f"--scale={service}={count}" for service, count in self.scale.items()]
        limit = f"--wait-timeout={START_SECONDS}"
        try:
            self.compose("up", "--detach", "--no-build", "--wait", limit, *scale, timeout=600)
            self.api.token = str(self.api.call("GET", "/auth/token")["access_token"])
        except BaseException:
            self.show_logs()
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--timeout", "1", "--remove-orphans", timeout=300)

    def compose(self, *args: str, timeout: float = 120) -> str:
        files = [f"--file={path}" for path in FILES]
        return docker(
            "compose",
            f"--project-name={self.project}",
            *files,
            *args,
            timeout=timeout,
            env=self._environment,
        )

    def show_logs(self) -> None:
        """Print the ends of all logs; pytest shows them with a failure."""
        sys.stdout.write(self.compose("ps", "--all"))
        sys.stdout.write(self.compose("logs", "--no-color", "--tail", "40"))

    # Containers

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers, oldest first."""
        return self.compose("ps", "--quiet", service).split()[::-1]

    def run_in(self, service: str, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def stream_leader(self, stream: str, services: Sequence[str] = NODES) -> str | None:
        """The service that leads a stream, as some NATS servers say; None while none does."""
        for service in services:
            address = "http://127.0.0.1:8222/jsz?accounts=true&streams=true"
            found = json.loads(self.run_in(service, "wget", "-q", "-O", "-", address))
            for account in found.get("account_details", []):
                for detail in account.get("stream_detail", []):
                    if detail["name"] == stream and detail.get("cluster", {}).get("leader"):
                        return str(detail["cluster"]["leader"])
        return None

    # Airflow

    def start_run(self, dag_id: str) -> str:
        """Wait until a Dag is there, and start a run of it."""
        block_until(lambda: self.api.has_dag(dag_id), 120, f"the Dag {dag_id}")
        block_until(lambda: not self.is_paused(dag_id), 60, f"{dag_id} to be active")
        return self.api.trigger(dag_id)

    def is_paused(self, dag_id: str) -> bool:
        return bool(self.api.call("GET", f"/api/v2/dags/{dag_id}")["is_paused"])

    def log_of(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The log of a task's first try, as the UI gets it."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
        return json.dumps(self.api.call("GET", f"{path}?full_content=true"))

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run; an API server that is busy is asked again."""
        found: list[dict[str, Any]] = []
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?order_by=id&limit={PAGE}"

        def page() -> Sequence[dict[str, Any]] | None:
            try:
                answer = self.api.call("GET", f"{path}&offset={len(found)}")
            except (ApiError, ApiSilent):
                return None
            return [*answer["task_instances"], {}]  # never empty, so that the wait ends

        while True:
            rows = block_until(page, 60, "the API server")[:-1]
            found += rows
            if len(rows) < PAGE:
                return found
