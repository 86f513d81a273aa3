"""The page's API in this process: Airflow's own users and roles, a real nats-server, a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import delete, select

from nats_executor.cli import commands
from nats_executor.ui.app import the_app
from nats_executor.ui.asking import desks
from tests.cli.conftest import Console
from tests.cli.test_orders import order_stage, pretend
from tests.cli.test_retry import airflow_database, deployment
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

__all__ = ["airflow_database", "deployment", "order_stage", "pretend"]

SECRET = "s" * 64


class PageStage:
    """What a browser asks, as a user of a role."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.client = TestClient(the_app())
        self.manager = create_auth_manager()

    def headers(self, role: str | None) -> dict[str, str]:
        if role is None:
            return {}
        user = SimpleAuthManagerUser(username=f"ann-{role}", role=role.upper())
        return {"Authorization": f"Bearer {self.manager.generate_jwt(user)}"}

    def ask(self, path: str, role: str | None = "viewer", **params: Any) -> Any:
        return self.client.get(f"/api/{path}", params=params, headers=self.headers(role))

    def look(self, path: str, role: str = "viewer", **params: Any) -> dict[str, Any]:
        answer = self.ask(path, role, **params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def order(self, command: str, role: str | None = "op", **body: Any) -> Any:
        path = f"/api/orders/{command.replace(' ', '/')}"
        return self.client.post(path, json=body, headers=self.headers(role))

    def ordered(self, command: str, **body: Any) -> dict[str, Any]:
        answer = self.order(command, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def audit(self) -> list[tuple[str, str | None, str | None]]:
        """The rows of the audit log that the page has written."""
        with create_session(scoped=False) as session:
            rows = session.scalars(select(Log).where(Log.task_id.is_(None)).order_by(Log.id))
            return [(row.event, row.owner, row.extra) for row in rows]


@pytest.fixture
def console(
    nats_server: NatsServer,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Console:
    return Console(monkeypatch, capsys, settings_for(nats_server.url, subject_prefix=names.prefix))


@pytest.fixture
def bare_page(
    console: Console,
    airflow_database: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[PageStage]:
    """The page where nothing was set up yet."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", SECRET)
    yield PageStage(console)
    desks.close()
    with create_session(scoped=False) as session:
        session.execute(delete(Log))


@pytest.fixture
def page(bare_page: PageStage) -> PageStage:
    bare_page.console.run(commands.setup, queues="a,b")
    return bare_page
