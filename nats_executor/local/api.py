"""Asks Airflow's public REST API on this machine, for the demo and standalone."""

from __future__ import annotations

import http.client
import json
from typing import Any

from nats_executor.local.process import LocalError

__all__ = ["AirflowApi", "ApiSilent"]

TIMEOUT_SECONDS = 10.0
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class ApiSilent(LocalError):
    """The API server did not answer: it is starting, busy or gone."""


class ApiError(LocalError):
    """The API server answered with an error."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A client of one API server; not through a proxy, whatever the environment says."""

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = port
        self.token = ""

    def is_healthy(self) -> bool:
        """Whether the API server answers and says that every component has a live heartbeat."""
        try:
            health = self.call("GET", "/api/v2/monitor/health")
        except (ApiError, ApiSilent):
            return False
        return all(health.get(name, {}).get("status") == "healthy" for name in COMPONENTS)

    def log_in(self, user: str, password: str) -> None:
        """Get a token from the SimpleAuthManager for the calls that follow."""
        body = {"username": user, "password": password}
        self.token = str(self.call("POST", "/auth/token", body)["access_token"])

    def has_dag(self, dag_id: str) -> bool:
        """Whether the dag processor has stored the Dag."""
        try:
            self.call("GET", f"/api/v2/dags/{dag_id}")
        except ApiError as exc:
            if exc.status == http.HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    def trigger(self, dag_id: str) -> str:
        """Start a run of a Dag and return its run id."""
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})
        return str(run["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return every task instance of a run, as the API shows it."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what an unmapped task returned; None if nothing."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        try:
            return self.call("GET", f"{path}/return_value?deserialize=true")["value"]
        except ApiError as exc:
            if exc.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call and return its decoded answer.

        Raises:
            ApiError: the answer has a status of 400 or above.
            ApiSilent: no connection, or no answer in time.
        """
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status >= http.HTTPStatus.BAD_REQUEST:
                raise ApiError(
                    f"{method} {path}: {answer.status} {text:.200}", status=answer.status
                )
            return json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise ApiSilent(f"{method} {path}: {type(exc).__name__}: {exc}") from exc
        finally:
            connection.close()
