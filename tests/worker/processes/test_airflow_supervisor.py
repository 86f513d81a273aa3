"""The subclasses of Airflow's supervisors tell the watch when a process cannot be had."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nats_executor.scheduler.compat import AIRFLOW_V_3_4_PLUS
from nats_executor.wire.messages import State
from nats_worker.api.asking import Asking
from nats_worker.delivery.verdict import Back, Final, judge
from nats_worker.processes.airflow_supervisor import Watch, failure, watched_callback
from nats_worker.processes.reaping import Reaper


class NoRoom:
    """In the place of Airflow's class, on a machine that cannot fork."""

    @classmethod
    def start(cls, **_: Any) -> Any:
        raise BlockingIOError("no more processes")


def test_a_callback_whose_process_cannot_be_had_fails_if_its_only_token_is_used_up() -> None:
    """Airflow 3.4 exchanges that first; the next worker could only blame this one."""
    watch = Watch()
    asking = Asking(lambda: None, start_by=math.inf, reach_seconds=1.0)
    watch.begin(asking, delivery_seconds=1.0, on_start=lambda _: None)

    with pytest.raises(BlockingIOError) as raised:
        watched_callback(NoRoom, watch, Reaper()).start()
    verdict = judge(failure(raised.value, watch, None), predecessor="", generation=0)

    assert "no more processes" in verdict.info
    if AIRFLOW_V_3_4_PLUS:
        assert isinstance(verdict, Final)
        assert verdict.state is State.FAILED
    else:
        assert isinstance(verdict, Back)
