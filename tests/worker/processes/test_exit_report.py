"""A report of an end has these values by default."""

from __future__ import annotations

import pytest

from nats_worker.processes.exit_report import Ending, ExitReport, signal_name


def test_nothing_is_known_but_the_ending() -> None:
    report = ExitReport(ending=Ending.DIED)

    assert (report.exit_code, report.started, report.pid) == (0, False, 0)
    assert (report.previous_state, report.info) == ("", "")


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (35, "signal 35"), (0, "signal 0")]
)
def test_a_signal_without_a_name_has_its_number(number: int, name: str) -> None:
    assert signal_name(number) == name
