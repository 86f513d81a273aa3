"""The stage of one test, whose servers come from the test itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Console
from tests.remedies.stage import RemedyStage
from tests.support.execution_api import ExecutionApi
from tests.support.fixtures import settings_for
from tests.support.rowless import allow_workloads_without_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def api() -> Iterator[ExecutionApi]:
    """What workers look for before they look for anything else."""
    with ExecutionApi() as api:
        yield api


@pytest.fixture
def open_remedy_stage(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    api: ExecutionApi,
) -> Callable[..., RemedyStage]:
    """Return who uses these servers; long enough a secret keeps Airflow's own warnings away."""
    allow_workloads_without_rows(monkeypatch)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "k" * 64)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", api.url)

    def use(*servers: str, **options: str | int) -> RemedyStage:
        folder = tmp_path / "workers"
        folder.mkdir(exist_ok=True)
        found = RemedyStage(Console(monkeypatch, capsys, settings_for(*servers)), folder, caplog)
        found.configure(**options)
        return found

    return use
