"""Stands in for `scheduler.database`, the executor's questions to Airflow's database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nats_executor.scheduler import compat, revocations
from nats_executor.scheduler import database as real
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind
from tests.chaos.workloads import PRIORITY, key_of, workload_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.executors.workloads import ExecutorWorkload

    from nats_executor.settings import Settings
    from tests.chaos.database import Database, Row

__all__ = ["stand_in"]


def stand_in(database: Database) -> None:
    """Have the executor of this process ask the stand-in database from now on."""
    vars(real).update(
        identities=identities,
        standing=partial(standing, database),
        workloads_again=partial(workloads_again, database),
        unfinished=partial(unfinished, database),
        unwanted=partial(unwanted, database),
    )
    # Its rows belong to no session, so each stuck task is dealt with when it is asked about.
    vars(revocations)["object_session"] = no_session


def no_session(_row: Any) -> None:
    """Return the session that a row belongs to: none."""


def identities(tis: Sequence[Any], settings: Settings) -> Iterator[real.Identity]:
    for ti in tis:
        lane = settings.lane(ti.queue, PRIORITY)
        yield real.Identity(ti, compat.key_of_task(ti, ti.key), ti.key, lane)


def standing(database: Database, dispatches: Sequence[Dispatch], job_id: int) -> dict[str, str]:
    """Return the state of each row that still waits for the end of its dispatch."""
    found = ((d.id, waiting_for(database, d, job_id)) for d in dispatches)
    return {dispatch_id: row.state for dispatch_id, row in found if row is not None}


def waiting_for(database: Database, dispatch: Dispatch, job_id: Any) -> Row | None:
    for row in database.rows("ti_id = ?", dispatch.token_subject):
        is_mine = row.is_callback or (row.dispatch, row.queued_by) == (dispatch.id, job_id)
        if is_mine and row.state in {"queued", "running", "restarting"}:
            return row
    return None


def unwanted(database: Database, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Return the dispatches that no row waits for, whichever scheduler has queued it."""
    waits = "ti_id = ? AND state IN ('queued', 'running', 'restarting')"
    return [
        dispatch
        for dispatch in dispatches
        if all(row.dispatch != dispatch.id for row in database.rows(waits, dispatch.token_subject))
    ]


def workloads_again(
    database: Database, dispatches: Sequence[Dispatch], job_id: Any, _mint: Any
) -> list[ExecutorWorkload]:
    """Make new workloads, with new tokens, for the dispatches whose rows are queued."""
    found = [waiting_for(database, dispatch, job_id) for dispatch in dispatches]
    return [workload_of(row, is_fresh=True) for row in found if row and row.state == "queued"]


def unfinished(database: Database, _owner: Any, settings: Settings) -> list[Dispatch]:
    """Return the callbacks that some scheduler has queued and none has seen end."""
    found = database.rows("behaviour = 'callback' AND state IN ('queued', 'running')")
    return [
        Dispatch(
            r.ti_id, key_of(r), r.queue, Kind.CALLBACK, r.ti_id, settings.lane(r.queue, None).band
        )
        for r in found
    ]
