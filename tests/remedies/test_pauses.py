"""What operators have paused or drained; tests in `tests/cli` do so on a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from nats_executor.broker.port import ConsumerInfo
from nats_executor.fleet.presences import Seen
from nats_executor.operations.draining import drain_worker
from nats_executor.operations.survey import Survey, check_rows
from nats_executor.wire.messages import Drain, Hold
from tests.remedies.lines import EXAMPLES, LINES
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for
from tests.support.presences import presence_of

SETTINGS = settings_for("nats://nats-1:4222")
WORKER = replace(presence_of(EXAMPLES["worker"], running=3), version="0.1")


def test_a_paused_queue() -> None:
    until = datetime.fromisoformat(EXAMPLES["until"]).astimezone(UTC).timestamp()
    consumer = ConsumerInfo("gpu", "gpu", 0, 12, 0, 0, 0, until)
    hold = Hold(
        queue="gpu", by=EXAMPLES["operator"], reason=EXAMPLES["why"], at=until - 60, until=until
    )
    survey = Survey([], [consumer], [], holds=[hold])

    rows = check_rows(survey, SETTINGS)

    found = [row["details"] for row in rows if row["status"] == "paused"]
    assert found == [LINES["paused"].format(**EXAMPLES)]


def test_a_drained_worker() -> None:
    drained = replace(
        WORKER, draining=True, drained_by=EXAMPLES["operator"], drain_reason=EXAMPLES["why"]
    )

    rows = check_rows(Survey([], [], [Seen(drained, 1.0)]), SETTINGS)

    found = [row["details"] for row in rows if row["status"] == "draining"]
    assert found == [LINES["drained"].format(**EXAMPLES)]


def test_a_lost_worker_counts_as_lost_and_not_as_drained() -> None:
    lost = replace(WORKER, draining=True, drained_by=EXAMPLES["operator"])

    rows = check_rows(Survey([], [], [Seen(lost, SETTINGS.worker_lost_seconds + 1)]), SETTINGS)

    of_worker = [row["status"] for row in rows if row["check"] == f"worker {WORKER.name}"]
    assert of_worker == ["lost"]


def test_a_worker_that_cannot_be_drained() -> None:
    drain = Drain(worker=WORKER.name, by=EXAMPLES["operator"], at=0.0)

    told = asyncio.run(drain_worker(FakeBroker(), SETTINGS, Seen(WORKER, 12.0), drain))

    assert (told.is_obeyed, told.text) == (False, LINES["cannot be drained"].format(**EXAMPLES))
