"""A queue that an operator has paused; `tests/cli/test_commands.py` pauses one on a real server."""

from __future__ import annotations

from datetime import UTC, datetime

from nats_executor.broker.port import ConsumerInfo
from nats_executor.cli.survey import Survey, check_rows
from nats_executor.wire.messages import Hold
from tests.remedies.lines import EXAMPLES, LINES
from tests.support.fixtures import settings_for


def test_a_paused_queue() -> None:
    until = datetime.fromisoformat(EXAMPLES["until"]).astimezone(UTC).timestamp()
    consumer = ConsumerInfo("gpu", "gpu", 0, 12, 0, 0, 0, until)
    hold = Hold(
        queue="gpu", by=EXAMPLES["operator"], reason=EXAMPLES["why"], at=until - 60, until=until
    )
    survey = Survey([], [consumer], [], holds=[hold])

    rows = check_rows(survey, settings_for("nats://nats-1:4222"))

    found = [row["details"] for row in rows if row["status"] == "paused"]
    assert found == [LINES["paused"].format(**EXAMPLES)]
