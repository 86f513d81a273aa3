"""What `airflow nats migrate check` reads: configuration, Airflow's database, files."""

from __future__ import annotations

import json
import uuid
from argparse import Namespace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow import settings as airflow_settings
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import timezone
from airflow.utils.session import create_session
from sqlalchemy import create_engine, delete, update
from sqlalchemy.orm import sessionmaker

from nats_executor.cli.commands import migrate_check
from nats_executor.errors import ConfigError
from nats_executor.migration import reading
from nats_executor.migration.counterparts import COUNTERPARTS
from tests.scheduler.conftest import airflow_database
from tests.scheduler.table import table_fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.scheduler.table import Rows

__all__ = ["airflow_database", "table_fixture"]

SECRET = "s3cret"


@pytest.fixture
def stored(table: Rows) -> Iterator[Rows]:
    """Rows, with serialized Dags that are gone after the test."""
    yield table
    with create_session(scoped=False) as session:
        session.execute(delete(SerializedDagModel.__table__))


@pytest.fixture
def check(
    airflow_database: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """Run the command with variables; return its exit code and its rows."""
    for row in COUNTERPARTS:  # tests of other parts may have set some for this whole process
        name = f"AIRFLOW__{row.section}__{row.option}".upper()
        monkeypatch.delenv(name, raising=False)

    def run(*files: Path, **variables: str) -> tuple[int, list[dict[str, Any]]]:
        settings = {"CORE__EXECUTOR": "CeleryExecutor", "LOGGING__REMOTE_LOGGING": "True"}
        for name, value in (settings | variables).items():
            monkeypatch.setenv(f"AIRFLOW__{name}", value)
        code: Any = 0
        try:
            migrate_check(Namespace(files=[str(f) for f in files], output="json", verbose=False))
        except SystemExit as exc:
            code = exc.code
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        run.error = printed.err  # type: ignore[attr-defined]
        return code, json.loads(printed.out or "[]")

    return run


def add_dag(rows: Rows, dag_id: str, *queues: str, ago: int = 0, is_stale: bool = False) -> None:
    """Store what a version of a Dag has as its tasks' queues."""
    made, version = timezone.utcnow() - timedelta(hours=ago), uuid.uuid4()
    if not ago:
        rows.add(
            DagModel, dag_id=dag_id, bundle_name="dags", max_active_tasks=1,
            max_consecutive_failed_dag_runs=0, has_task_concurrency_limits=False,
            relative_fileloc="d.py", is_stale=is_stale,
        )  # fmt: skip
    rows.add(
        DagVersion, id=version, dag_id=dag_id, version_number=100 - ago, bundle_name="dags",
        created_at=made,
    )  # fmt: skip
    tasks = [{"__type": "operator", "__var": {"queue": queue}} for queue in queues]
    rows.add(
        SerializedDagModel, id=uuid.uuid4(), dag_id=dag_id, dag_hash="h", created_at=made,
        last_updated=made, dag_version_id=version, data={"dag": {"tasks": tasks}},
    )  # fmt: skip


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["theirs"]: row for row in rows}


def test_what_is_set_has_a_row_and_what_is_not_has_none(check: Any) -> None:
    code, rows = check(
        CELERY__WORKER_AUTOSCALE="16,4",
        CELERY__BROKER_URL=f"redis://:{SECRET}@h/0",
        CELERY__RESULT_BACKEND_CMD=f"echo {SECRET}",
        CELERY__NEW_OPTION=SECRET,
        CORE__PARALLELISM="64",
        SMTP__SMTP_HOST="h",
    )

    assert code == 1
    assert list(by_name(rows)) == [
        "[core] executor", "[celery] broker_url", "[celery] result_backend",
        "[celery] worker_autoscale", "[core] parallelism", "[celery] new_option",
    ]  # fmt: skip
    assert by_name(rows)["[celery] worker_autoscale"]["value"] == "16,4"


def test_there_may_be_nothing_to_decide(check: Any) -> None:
    code, rows = check()

    assert code == 0
    assert list(by_name(rows)) == ["[core] executor"]


def test_logs_have_to_be_decided_although_nobody_has_set_anything(check: Any) -> None:
    code, rows = check(LOGGING__REMOTE_LOGGING="False")

    assert code == 1
    assert by_name(rows)["[logging] remote_logging"]["change"] == "decide"


def test_the_newest_version_of_each_dag_that_is_there_counts(check: Any, stored: Rows) -> None:
    add_dag(stored, "d1", "gpu", "default")
    add_dag(stored, "d1", "of_before", ago=2)
    add_dag(stored, "d2", "gpu")
    add_dag(stored, "gone", "of_stale", is_stale=True)

    code, rows = check()

    assert code == 0
    assert by_name(rows)["queue="]["value"] == "default (1), gpu (2)"


def test_dags_beyond_the_most_are_counted(
    check: Any, stored: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_DAGS", 2)
    for number in range(5):
        add_dag(stored, f"d{number}", "gpu")

    code, rows = check()

    assert code == 1
    assert by_name(rows)["Dags that were not read"]["value"] == 3
    assert by_name(rows)["queue="]["value"] == "gpu (2)"


def test_what_both_executors_still_have_is_counted(check: Any, table: Rows) -> None:
    table.add_task("a", state="running", executor="CeleryExecutor")
    table.add_task("b", state="queued")
    table.add_task("c", executor="nats_executor.NatsExecutor")
    table.add_task("d", state="success")
    table.add_task("e", state="failed", executor="nats_executor.NatsExecutor")

    _, rows = check(CORE__EXECUTOR="CeleryExecutor,nats_executor.NatsExecutor")

    found = {row["theirs"]: row["value"] for row in rows if row["where"] == "Airflow's database"}
    assert found == {
        "unfinished task instances of CeleryExecutor": 2,
        "unfinished task instances of NatsExecutor": 1,
    }


def test_what_a_run_has_left_that_has_ended_does_not_count(check: Any, table: Rows) -> None:
    with create_session(scoped=False) as session:
        session.execute(update(DagRun).values(state="failed"))
    table.add_task("never")
    table.change_task("never", state=None)

    _, rows = check(CORE__EXECUTOR="CeleryExecutor,nats_executor.NatsExecutor")

    assert by_name(rows)["unfinished task instances of CeleryExecutor"]["value"] == 0


def test_files_are_read_by_their_kind(check: Any, tmp_path: Path) -> None:
    unit, values = tmp_path / "w.service", tmp_path / "values.yaml"
    unit.write_text("ExecStart=airflow celery worker -q a\n")
    values.write_text("---\nworkers: {replicas: 3}\n---\n")

    _, rows = check(unit, values)

    assert by_name(rows)["airflow celery worker -q"]["ours"] == "airflow nats worker -q a"
    assert by_name(rows)["workers.replicas"]["value"] == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("away.service", None, "No such file"),
        ("bad.yaml", f"a: [{SECRET}", "no YAML"),
        ("bad.service", b"\xff\xfe", "no text"),
        ("large.service", b"x" * (reading.LARGEST_FILE + 1), "larger than"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    check: Any, tmp_path: Path, name: str, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    code, rows = check(path)

    assert (code, rows) == (2, [])
    assert f"--file {path}" in check.error
    assert words in check.error


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        reading.read_file(Path("/dev/zero"))


def test_a_database_that_is_away_is_said(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/nowhere/x.db")
    monkeypatch.setattr(airflow_settings, "NonScopedSession", sessionmaker(engine))

    code, rows = check()

    assert (code, rows) == (2, [])
    assert "database does not answer" in check.error
