"""A healthy backlog that is longer than Airflow's patience with queued tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.deployed import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

QUEUED_TIMEOUT = 8
GIVEN_UP_SECONDS = 240


@pytest.fixture
def impatient(hurt: Airflow) -> Iterator[Airflow]:
    """Only the scheduler reads this setting, and a token's life is the same."""
    hurt.stop("scheduler")
    hurt.start_component(
        "scheduler",
        SCHEDULER__TASK_QUEUED_TIMEOUT=QUEUED_TIMEOUT,
        SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL=2,
    )
    yield hurt
    hurt.stop("scheduler")  # `hurt` starts one as it was


def test_a_healthy_backlog_is_left_alone(impatient: Airflow) -> None:
    """Airflow would queue each task again twice and fail it then; its token dies meanwhile, too."""
    impatient.add_worker("narrow-1", queues="narrow", concurrency=1)

    impatient.trigger("backlog")
    rows = impatient.finish("backlog")["waits"]

    impatient.require_first_tries("backlog")
    assert [e for e in impatient.events("backlog") if e.startswith("stuck in queued")] == []
    assert [impatient.lines(f"waits-{n}") for n in range(8)] == [["ran"]] * 8
    longest = max((row["start_date"] - row["queued_dttm"]).total_seconds() for row in rows)
    assert longest > 2 * QUEUED_TIMEOUT, "the backlog was too short to show anything"
    assert "died while it waited" in impatient.log_of("scheduler")


def test_a_queue_without_workers_is_seen_behind_a_healthy_backlog(impatient: Airflow) -> None:
    """Airflow ends its sweep at the first task that waits its turn, and there is always one."""
    impatient.add_worker("narrow-1", queues="narrow", concurrency=1)
    impatient.trigger("backlog")
    impatient.trigger("forsaken")

    def state() -> str:
        return str(impatient.task("forsaken", "forsaken")["state"])

    impatient.wait(lambda: state() == "failed", "the forsaken task", seconds=GIVEN_UP_SECONDS)
    backlog = impatient.finish("backlog")["waits"]

    impatient.require_first_tries("backlog")
    [first, _] = impatient.rows(
        "SELECT dttm FROM log WHERE dag_id = 'forsaken' AND run_id = :r"
        " AND event = 'stuck in queued reschedule' ORDER BY dttm",
        r=impatient.runs["forsaken"],
    )
    assert first["dttm"] < max(row["start_date"] for row in backlog), "seen when all else was over"
    said = impatient.events("forsaken")
    assert sum(e.startswith("stuck in queued tries exceeded") for e in said) == 1
    assert any("no worker serves queue 'nowhere'" in e for e in said)
    assert impatient.lines("forsaken") == []
