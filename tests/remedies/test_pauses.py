"""A queue that is paused in NATS; `tests/cli/test_commands.py` pauses one on a real server."""

from __future__ import annotations

from datetime import UTC, datetime

from nats_executor.broker.port import ConsumerInfo
from nats_executor.cli.survey import Survey, check_rows
from tests.remedies.lines import EXAMPLES, LINES
from tests.support.fixtures import settings_for


def test_a_paused_queue() -> None:
    until = datetime.fromisoformat(EXAMPLES["until"]).astimezone(UTC).timestamp()
    consumer = ConsumerInfo("gpu", "gpu", 0, 12, 0, 0, 0, until)
    survey = Survey([], [consumer], [])

    rows = check_rows(survey, settings_for("nats://nats-1:4222"))

    found = [row["details"] for row in rows if row["status"] == "paused"]
    assert found == [LINES["paused"].format(**EXAMPLES)]
