"""A healthy backlog that is longer than Airflow's patience with queued tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.deployed import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

QUEUED_TIMEOUT = 8


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
