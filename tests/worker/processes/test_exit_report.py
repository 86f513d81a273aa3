"""A report of an end has these values by default."""

from __future__ import annotations

from nats_worker.processes.exit_report import Ending, ExitReport


def test_nothing_is_known_but_the_ending() -> None:
    report = ExitReport(ending=Ending.DIED)

    assert (report.exit_code, report.started, report.pid) == (0, False, 0)
    assert (report.previous_state, report.info) == ("", "")
