"""Takes the page's orders: who may give one, what it must say, and its line in the audit log."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from nats_executor.audit_events import order_event
from nats_executor.errors import ConfigError, NatsExecutorError, NotFound
from nats_executor.text import presentable
from nats_executor.ui.access import clearable, require_operator
from nats_executor.ui.actions import ACTIONS, Wanting

if TYPE_CHECKING:
    from nats_executor.ui.actions import Action

__all__ = ["order_routes"]

MOST_TARGETS = 200
LONGEST_TARGET = 1000
LONGEST_REASON_GIVEN = 500
MOST_PAUSE_SECONDS = 10 * 365 * 86400.0
MOST_CONCURRENCY = 10_000
BY_COMMAND = {action.command: action for action in ACTIONS}

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_TARGET)]
Operator = Annotated[BaseUser, Depends(require_operator)]

order_routes = APIRouter(prefix="/api/orders")


class OrderBody(BaseModel):
    """What the dialog says; see `Wanting`."""

    model_config = ConfigDict(extra="forbid")

    targets: Annotated[list[Name], Field(max_length=MOST_TARGETS)] = []
    reason: Annotated[str, Field(max_length=LONGEST_REASON_GIVEN)] = ""
    seconds: Annotated[float | None, Field(gt=0, le=MOST_PAUSE_SECONDS)] = None
    number: Annotated[int | None, Field(ge=1, le=MOST_CONCURRENCY)] = None
    queue: Name | None = None
    dag: Name | None = None
    run: Name | None = None
    task: Name | None = None
    map_index: int | None = None
    older_than: Annotated[float, Field(ge=0)] = 0.0
    is_now: bool = False
    is_trial: bool = False


@order_routes.post("/{noun}/{verb}")
def give_order_to(noun: str, verb: str, body: OrderBody, user: Operator) -> dict[str, Any]:
    """Carry out an order, once it stands in Airflow's audit log."""
    action = BY_COMMAND.get(f"{noun} {verb}")
    if action is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no order {presentable(verb)!r}")
    if lack := lack_of(action, body):
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, lack)
    wanting = Wanting(
        by=user.get_name(),
        clearable=lambda dags: clearable(user, dags),
        **body.model_dump(),
    )
    if not body.is_trial:
        write_audit(action, body, user)
    try:
        done = action.carry_out(wanting)
    except NatsExecutorError as exc:
        raise HTTPException(status_of(exc), presentable(str(exc))) from exc
    lines = [{"is_well": r.is_obeyed, "text": presentable(r.text)} for r in done.results]
    return {"count": done.how_many, "lines": lines}


def lack_of(action: Action, body: OrderBody) -> str:
    """Return what an order must say and does not, '' if nothing is missing."""
    if not body.targets and not action.by_filter:
        return f"say which {action.table}"
    for field in action.asks:
        if not field.endswith("?") and getattr(body, field) is None:
            return f"{action.command} needs a {field}"
    if action.table == "dead-letters" and not all(t.isdecimal() for t in body.targets):
        return "name dead letters by their sequences"
    if body.is_trial and not action.has_trial:
        return f"{action.command} cannot be tried"
    return ""


def status_of(exc: NatsExecutorError) -> HTTPStatus:
    """Return how an error is told: NATS that is away is no fault of this server."""
    if isinstance(exc, NotFound):
        return HTTPStatus.NOT_FOUND
    if isinstance(exc, ConfigError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.SERVICE_UNAVAILABLE


def write_audit(action: Action, body: OrderBody, user: BaseUser) -> None:
    """Add a line to Airflow's audit log; without it nothing is ordered."""
    said = body.model_dump(exclude_defaults=True)
    row = Log(
        event=order_event(action.command),
        owner=user.get_name(),
        owner_display_name=user.get_name(),
        extra=json.dumps(said, ensure_ascii=False),
    )
    try:
        with create_session(scoped=False) as session:
            session.add(row)
    except SQLAlchemyError as exc:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"Airflow's audit log cannot be written ({type(exc).__name__}); nothing was ordered",
        ) from exc
