"""Answers the page's questions: three tables, and the orders that operators give."""

from __future__ import annotations

import functools
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, FastAPI, HTTPException, Query
from starlette.staticfiles import StaticFiles

from nats_executor.errors import BrokerError, ConfigError, NatsExecutorError, NotFound
from nats_executor.fleet.letters import Wanted, letter_row
from nats_executor.installation import installed
from nats_executor.operations.describing import Untold, carried_rows, worker_details
from nats_executor.operations.facts import facts_row
from nats_executor.operations.instances import WhichTask
from nats_executor.text import presentable
from nats_executor.ui.access import FOR_READERS, OF_A_TASK, may_order
from nats_executor.ui.actions import ACTIONS, as_described
from nats_executor.ui.asking import desks
from nats_executor.ui.ordering import order_routes
from nats_executor.ui.tables import (
    MOST_ROWS_A_PAGE,
    Cut,
    cut_rows,
    hour_rows,
    last_full_minute,
    with_depths,
)

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from nats_executor.ui.asking import Glance

__all__ = ["the_app"]

STATIC = Path(__file__).parent / "static"
LONGEST_FILTER = 500

FilterText = Annotated[str, Query(max_length=LONGEST_FILTER)]
Coordinate = Annotated[str, Query(min_length=1, max_length=LONGEST_FILTER)]
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS_A_PAGE)]
Offset = Annotated[int, Query(ge=0)]

reads = APIRouter(prefix="/api", dependencies=FOR_READERS)
of_tasks = APIRouter(prefix="/api", dependencies=OF_A_TASK)


class Files(StaticFiles):
    """The page's own files; a browser asks each time whether they are as they were."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or that it has not changed; after an upgrade the new one shows at once."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@functools.cache
def the_app() -> FastAPI:
    """Return the application that Airflow's API server mounts."""
    app = FastAPI(title="NATS executor", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(reads)
    app.include_router(of_tasks)
    app.include_router(order_routes)
    app.mount("/static", Files(directory=STATIC))
    return app


@reads.get("/me")
def me(user: GetUserDep) -> dict[str, Any]:
    """Return who looks, and what that person may order."""
    may = may_order(user)
    return {"name": user.get_name(), "actions": [as_described(a) for a in ACTIONS] if may else []}


@reads.get("/queues")
async def list_queues(
    limit: Limit = 50,
    offset: Offset = 0,
    sort: FilterText = "",
    reverse: bool = False,
    queue: FilterText = "",
    state: FilterText = "",
) -> dict[str, Any]:
    """Return a page of queues."""
    glance = await desks.here().glance()
    cut = Cut({"queue": queue, "state": state}, sort or None, reverse, offset, limit)
    page = page_of_table(glance, "queues", cut)
    minute = last_full_minute(time.time())
    return page | {"rows": with_depths(page["rows"], glance.histories, minute)}


@reads.get("/queues/hour")
async def show_hour(queue: Coordinate) -> dict[str, Any]:
    """Return what a queue was like in each minute of the last hour."""
    glance = await desks.here().glance()
    minutes = hour_rows(glance.histories.get(queue), last_full_minute(time.time()))
    return freshness_of(glance) | {"minutes": minutes}


@reads.get("/queues/waiting")
async def show_waiting(queue: Coordinate) -> dict[str, Any]:
    """Return the tasks that workers take next from a queue, and how many wait in all."""
    try:
        found = await desks.here().waiting(queue)
    except NotFound as exc:
        raise HTTPException(HTTPStatus.NOT_FOUND, presentable(str(exc))) from exc
    except NatsExecutorError as exc:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, presentable(str(exc))) from exc
    return {"rows": found.rows, "total": found.total, "is_whole": found.is_whole}


@reads.get("/workers")
async def list_workers(
    limit: Limit = 50,
    offset: Offset = 0,
    sort: FilterText = "",
    reverse: bool = False,
    worker: FilterText = "",
    queue: FilterText = "",
    state: FilterText = "",
) -> dict[str, Any]:
    """Return a page of workers."""
    glance = await desks.here().glance()
    texts = {"worker": worker, "queues": queue, "state": state}
    return page_of_table(glance, "workers", Cut(texts, sort or None, reverse, offset, limit))


@reads.get("/workers/show")
async def show_worker(worker: Coordinate) -> dict[str, Any]:
    """Return what a worker tells of itself and of what it runs, `carried` None if it does not."""
    desk = desks.here()
    glance = await desk.glance()
    named = [row for row in glance.workers if row["worker"] == worker]
    if glance.survey is None or not named:
        raise HTTPException(HTTPStatus.NOT_FOUND, glance.trouble or "no worker has that name")
    # Two may have one name, in different queues; the one that was heard of last is shown.
    seen = min(
        (one for one in glance.survey.workers if one.presence.name == worker),
        key=lambda one: one.age,
    )
    try:
        found = await desk.description(seen)
    except BrokerError as exc:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, presentable(str(exc))) from exc
    answer = {"details": worker_details(named[0], found, installed())}
    if isinstance(found, Untold):
        trouble = f"worker {worker} does not tell what it runs: {found.text}"
        return answer | {"carried": None, "trouble": presentable(trouble)}
    return answer | {"carried": carried_rows(found), "trouble": None}


@reads.get("/dead-letters")
async def list_letters(
    limit: Limit = 50,
    before: Annotated[int | None, Query(ge=1)] = None,
    queue: FilterText = "",
    dag: FilterText = "",
) -> dict[str, Any]:
    """Return a page of dead letters, the newest first, of those below a sequence."""
    desk = desks.here()
    glance = await desk.glance()
    nothing: dict[str, Any] = {"rows": [], "total": None, "older": None}
    if glance.trouble:
        return freshness_of(glance) | nothing
    try:
        page = await desk.letters(Wanted(queue or None, dag or None), before, limit)
    except BrokerError as exc:
        return freshness_of(glance) | nothing | {"trouble": presentable(str(exc))}
    rows = [letter_row(letter, page.now) for letter in page.letters]
    return freshness_of(glance) | {"rows": rows, "total": page.kept, "older": page.before}


@of_tasks.get("/delivery")
async def show_delivery(
    dag_id: Coordinate, run_id: Coordinate, task_id: Coordinate, map_index: int = -1
) -> dict[str, Any]:
    """Return what a task instance waits for, and from what that was concluded."""
    desk = desks.here()
    try:
        found = await desk.explanation(WhichTask(dag_id, run_id, task_id, map_index))
    except NotFound as exc:
        raise HTTPException(HTTPStatus.NOT_FOUND, presentable(str(exc))) from exc
    except NatsExecutorError as exc:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, presentable(str(exc))) from exc
    reason = found.reason
    return {
        "cause": str(reason.cause),
        "sentence": reason.sentence,
        "remedy": reason.remedy or None,
        "needs_person": reason.cause.needs_person,
        "facts": facts_row(found.situation),
    }


def page_of_table(glance: Glance, name: str, cut: Cut) -> dict[str, Any]:
    """Return a page of a table, of the last survey if there is none now."""
    try:
        found = cut_rows(getattr(glance, name), cut)
    except ConfigError as exc:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(exc)) from exc
    return freshness_of(glance) | found


def freshness_of(glance: Glance) -> dict[str, Any]:
    """Return how old what is shown is, and what keeps it from being new."""
    age = None if glance.at is None else round(time.monotonic() - glance.at, 1)
    return {"age_seconds": age, "trouble": presentable(glance.trouble) or None}
