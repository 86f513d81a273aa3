"""The stage of one test, whose servers come from the test itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Console
from tests.remedies.stage import RemedyStage
from tests.support.execution_api import ExecutionApi
from tests.support.fixtures import settings_for
from tests.support.rowless import allow_workloads_without_rows
from tests.tools.printed import (
    FORMATTED,
    PACKAGES,
    TELLING_WORDS,
    VALUE,
    pattern_of,
    printed,
    words_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.tools.printed import Printed


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
) -> Iterator[Callable[..., RemedyStage]]:
    """Return who uses these servers; long enough a secret keeps Airflow's own warnings away.

    Each warning that one of them logs has to be on the page of lines.
    """
    allow_workloads_without_rows(monkeypatch)
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "k" * 64)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", api.url)

    def use(*servers: str, **options: str | int) -> RemedyStage:
        folder = tmp_path / "workers"
        folder.mkdir(exist_ok=True)
        found = RemedyStage(Console(monkeypatch, capsys, settings_for(*servers)), folder, caplog)
        found.configure(**options)
        return found

    yield use
    assert [record.getMessage() for record in caplog.records if is_unlisted(record)] == []


def is_unlisted(record: logging.LogRecord) -> bool:
    """Whether it is a warning of ours that docs/reference/lines.md does not have."""
    if record.levelno < logging.WARNING or not record.name.startswith(PACKAGES):
        return False
    template = " ".join(FORMATTED.sub(VALUE, str(record.msg)).split())
    return not any(is_of(text, template, record.getMessage()) for text in printed())


def is_of(text: Printed, template: str, message: str) -> bool:
    is_telling = len(words_in(text.text)) >= TELLING_WORDS
    return text.text == template or (is_telling and bool(pattern_of(text.text).search(message)))
