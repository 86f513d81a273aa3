"""Decides who may look at the page, and who may order something there."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_dag,
    requires_access_view,
)
from fastapi import Depends, HTTPException

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

__all__ = ["FOR_READERS", "OF_A_TASK", "clearable", "may_order", "require_operator"]

FOR_READERS = [Depends(requires_access_view(AccessView.JOBS))]
# Of the Dag that the query names in `dag_id`.
OF_A_TASK = [
    Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE))
]
REFUSAL = "only who may change Airflow's pools may do this (its roles Op and Admin)"


def may_order(user: BaseUser) -> bool:
    """Whether a user may change what runs, and how much at a time: Airflow asks so of its pools."""
    return bool(get_auth_manager().is_authorized_pool(method="PUT", user=user))


def require_operator(user: GetUserDep) -> BaseUser:
    """Return the user of a request who may order something; Airflow's viewers may not."""
    if not may_order(user):
        raise HTTPException(HTTPStatus.FORBIDDEN, REFUSAL)
    return user


def clearable(user: BaseUser, dags: Iterable[str]) -> set[str]:
    """Return the Dags whose task instances a user may clear."""
    manager = get_auth_manager()
    return {
        dag
        for dag in set(dags)
        if manager.is_authorized_dag(
            method="PUT",
            access_entity=DagAccessEntity.TASK_INSTANCE,
            details=DagDetails(id=dag),
            user=user,
        )
    }
