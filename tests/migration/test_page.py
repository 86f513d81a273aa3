"""The page for teams that come from Celery: its tables, its commands, its policy."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow.cli import cli_parser
from airflow.sdk import DAG, BaseOperator, task

from nats_executor.migration.chart import VALUES
from nats_executor.migration.counterparts import ANY, COUNTERPARTS, Change, counterpart_of
from nats_executor.migration.verbs import COMMANDS, INSPECTIONS, SCREENS, WORKER_FLAGS
from nats_executor.options import OPTIONS as OURS
from tests.tools.boundaries import ROOT
from tests.tools.document_migration import document, tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = ROOT / "docs/how-to/from-celery.md"
POLICY = re.compile(r"```python\n(?P<code># airflow_local_settings\.py\n.*?)```", re.DOTALL)
NAMED = re.compile(r"\[nats_executor\] (\w+)")
VERBS = (*COMMANDS, *INSPECTIONS, *SCREENS)


def test_the_tables_are_current() -> None:
    """`make docs` writes them."""
    assert PAGE.read_text() == document(PAGE.read_text())


def test_the_page_has_a_place_for_every_table() -> None:
    assert set(re.findall(r"<!-- (\w+): written by", PAGE.read_text())) == set(tables())


def test_every_option_of_ours_that_is_named_is_there() -> None:
    notes = [f"{row.ours} {row.note}" for row in COUNTERPARTS] + [verb.note for verb in VERBS]
    named = {name for note in notes for name in NAMED.findall(note)}

    assert len(named) > 8
    assert named <= {option.name for option in OURS}


def test_every_command_of_ours_that_is_named_is_there() -> None:
    commands = {verb.ours for verb in VERBS if verb.ours}
    text = "\n".join([row.note for row in COUNTERPARTS] + [verb.note for verb in VERBS])
    commands |= set(re.findall(r"`(airflow nats [a-z -]+)`", text))

    assert len(commands) > 10
    for command in commands:
        words = [word for word in command.split()[1:] if not word.startswith("-")]
        assert parser_of(words) is not None, command


def parser_of(words: list[str]) -> argparse.ArgumentParser | None:
    """Return the parser of a command of Airflow, None if there is no such command."""
    parser: argparse.ArgumentParser = cli_parser.get_parser()
    for word in words:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups or word not in groups[0].choices:
            return None
        parser = groups[0].choices[word]
    return parser


def test_every_flag_of_ours_is_there() -> None:
    parser = parser_of(["nats", "worker"])
    assert parser is not None
    known = {name for action in parser._actions for name in action.option_strings}

    assert {flag.ours for flag in WORKER_FLAGS if flag.ours} <= known


def test_no_place_has_two_rows() -> None:
    places = [(row.section, row.option) for row in COUNTERPARTS]
    flags = [name for flag in WORKER_FLAGS for name in flag.names]
    paths = [value.path for value in VALUES]

    for names in (places, flags, paths):
        assert len(set(names)) == len(names)


def test_what_has_to_be_decided_says_what_to_do() -> None:
    assert all(row.note for row in COUNTERPARTS)
    assert all(row.note for row in VALUES if row.change is Change.DECIDE)
    assert all(row.ours for row in COUNTERPARTS if row.change in {Change.SET, Change.SAME})


@pytest.mark.parametrize(
    ("place", "option"),
    [
        (("celery", "pool"), "pool"),
        (("celery_broker_transport_options", "visibility_timeout"), "visibility_timeout"),
        (("celery_broker_transport_options", "x"), ANY),
    ],
)
def test_a_row_of_its_own_goes_before_that_of_a_section(
    place: tuple[str, str], option: str
) -> None:
    row = counterpart_of(*place)

    assert row is not None
    assert row.option == option


def test_what_no_row_is_about_has_none() -> None:
    assert counterpart_of("celery", "of_tomorrow") is None


# The policy


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[BaseOperator], None]:
    """The policy that the page shows, with an AIRFLOW_HOME of its own."""
    [code] = [found["code"] for found in POLICY.finditer(PAGE.read_text())]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the page's own
    names["MOVED"] = tmp_path / "moved_dags.txt"
    found: Callable[[BaseOperator], None] = names["task_policy"]
    return found


def tasks_of(dag_id: str) -> dict[str, Any]:
    with DAG(dag_id, schedule=None) as dag:
        BaseOperator(task_id="plain")
        BaseOperator(task_id="named", executor="LocalExecutor")

        @task
        def mapped(number: int) -> None: ...

        mapped.expand(number=[1, 2])
    return dict(dag.task_dict)


@pytest.mark.parametrize(
    ("lines", "executor"),
    [
        ("orders nats_executor.NatsExecutor", "nats_executor.NatsExecutor"),
        ("ord* A\norders B", "A"),
        ("bills A\norders B\n", "B"),
        ("bills A", None),
        ("order A", None),
        ("", None),
        (None, None),
    ],
)
def test_the_policy_moves_what_the_file_names(
    policy: Callable[[BaseOperator], None], tmp_path: Path, lines: str | None, executor: str | None
) -> None:
    tasks = tasks_of("orders")
    if lines is not None:
        (tmp_path / "moved_dags.txt").write_text(lines)

    for one in tasks.values():
        policy(one)

    assert tasks["plain"].executor == executor
    assert tasks["mapped"].executor == executor
    assert tasks["named"].executor == "LocalExecutor"
