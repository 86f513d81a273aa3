"""The table of faults: what counts as failed, as lost, and as not run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bench.faults.acts import ACTS
from tests.bench.faults.report import (
    Outcome,
    Report,
    as_json,
    as_table,
    duration,
    exit_code,
    judge,
    recalled,
)
from tests.bench.faults.table import FAULTS, shortened_waits
from tests.bench.goals import EVERYBODY
from tests.bench.plots import fault_bars

OK = [(0, "success", 1), (1, "success", 1)]


@pytest.mark.parametrize(
    ("rows", "begins", "failed", "lost", "extra_tries", "extra_begins"),
    [
        (OK, 2, 0, 0, 0, 0),
        ([(0, "success", 3), (1, "success", 1)], 4, 0, 0, 2, 2),
        # A try that never came to the task's code.
        ([(0, "success", 2), (1, "success", 1)], 2, 0, 0, 1, 0),
        ([(0, "failed", 3), (1, "success", 1)], 4, 1, 0, 2, 3),
        ([(0, "upstream_failed", 0), (1, "success", 1)], 1, 1, 0, 0, 0),
        # No end: waiting, running, or never seen by the scheduler.
        ([(0, "queued", 1), (1, "running", 2)], 1, 0, 2, 1, 1),
        ([(0, None, 0), (1, "up_for_retry", 1)], 0, 0, 2, 0, 0),
        # One task ran twice in one try.
        (OK, 3, 0, 0, 0, 1),
    ],
)
def test_every_task_has_succeeded_failed_or_is_lost(
    rows: list[tuple[int, str | None, int]],
    begins: int,
    failed: int,
    lost: int,
    extra_tries: int,
    extra_begins: int,
) -> None:
    found = judge("none", "nats", rows, begins, seconds=1.0)
    assert (found.failed, found.lost) == (failed, lost)
    assert (found.extra_tries, found.extra_begins) == (extra_tries, extra_begins)
    assert found.tasks == len(rows)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ([12.34], "12.3"),
        ([30.0, 10.0, 20.0], "20 (10 .. 30)"),
        ([None], "no end in 1 of 1"),
        ([10.0, None, 20.0], "no end in 1 of 3"),
    ],
)
def test_a_run_without_an_end_is_no_number(seconds: list[float | None], text: str) -> None:
    assert duration(seconds) == text


def report_of(*outcomes: Outcome, **missing: dict[str, str]) -> Report:
    report = Report(list(outcomes))
    report.missing.update(missing)
    return report


WELL = judge("worker_killed", "nats", OK, 2, seconds=9.0)
WORSE = judge("worker_killed", "nats", [(0, "failed", 3), (1, "success", 1)], 4, seconds=30.0)
LOST = judge("worker_killed", "celery", [(0, "queued", 1), (1, "success", 1)], 1, seconds=None)


def test_the_table_shows_the_worst_round_and_what_has_no_such_part() -> None:
    lines = as_table(report_of(WELL, WORSE, LOST)).splitlines()
    [nats] = [line.split() for line in lines if line.startswith("worker_killed ")]
    assert nats == ["worker_killed", "nats", "1", "of", "2", "0", "2", "3", "19.5",
                    "(9", "..", "30)", "2"]  # fmt: skip
    [celery] = [line.split() for line in lines if line.split()[:1] == ["celery"]]
    assert celery == ["celery", "0", "1", "of", "2", "0", "0", "no", "end", "in", "1", "of", "1",
                      "1"]  # fmt: skip
    assert "-: worker_killed, local: it has no worker" in lines


def test_what_was_not_run_is_named_with_its_reason() -> None:
    report = report_of(WELL, disk_full={"nats": "no mount", "edge": "no mount"})
    assert "not run: disk_full, nats, edge: no mount" in as_table(report).splitlines()
    assert exit_code(report) == 2
    assert exit_code(report_of(WELL, LOST)) == 0


def test_a_report_comes_back_from_its_file() -> None:
    report = report_of(WELL, LOST, broker_wiped={"edge": "it broke"})
    document = json.loads(json.dumps(as_json({"cpus": 2}, report)))
    assert document["environment"] == {"cpus": 2}
    again = recalled(document)
    assert [o.states for o in again.outcomes] == [WELL.states, LOST.states]
    assert as_table(again) == as_table(report)


def test_bars_tell_of_what_failed_was_lost_or_had_no_end() -> None:
    document: dict[str, Any] = as_json({}, report_of(WELL, WORSE, LOST))
    assert list(fault_bars("worker_killed", document["faults"]["worker_killed"])) == [
        ("worker_killed  nats", 19.5, "nats", "1 failed"),
        ("worker_killed  celery", 0.0, "celery", "no end, 1 lost"),
    ]


def test_every_fault_can_be_carried_out_and_names_contenders() -> None:
    assert ACTS.keys() == FAULTS.keys()
    for fault in FAULTS.values():
        assert fault.lacks.keys() < set(EVERYBODY), fault.name
        assert "nats" not in fault.lacks


def test_the_waits_are_a_share_of_airflows_defaults() -> None:
    from airflow.configuration import conf

    for name, value in shortened_waits().items():
        section, _, option = name.lower().partition("__")
        assert value == round(float(str(conf.get_default_value(section, option))) / 5), name
