"""Decides which tasks that Airflow finds stuck in `queued` are to be taken back, and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.wire.messages import State

if TYPE_CHECKING:
    from nats_executor.scheduler.ledger import Dispatch
    from nats_executor.wire.names import Lane

__all__ = ["why_stuck"]


def why_stuck(
    dispatch: Dispatch | None, lane: Lane, *, is_served: bool, now: float, patience: float
) -> str:
    """Say why a queued task is to be taken back; '' if it waits its turn.

    Args:
        dispatch: of the task; None if it was not handed over yet.
        is_served: whether a living worker takes workloads of the lane.
        patience: `[scheduler] task_queued_timeout`; a worker may hold a task as long without
            starting it as the task may wait for a worker.
    """
    if dispatch is None or not dispatch.is_held:
        if is_served:
            return ""
        return f"no worker serves {lane}; `airflow nats check` has the remedy"
    held = now - dispatch.held_since
    if dispatch.state is State.CLAIMED and held > patience:
        return (
            f"worker {dispatch.worker_name} has held it for {held:.0f} s without starting it, "
            f"longer than [scheduler] task_queued_timeout ({patience:g} s); its log says why"
        )
    return ""
