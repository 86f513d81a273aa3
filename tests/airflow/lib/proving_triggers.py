"""What the triggerer runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["AtOnce"]


class AtOnce(BaseTrigger):
    """Fires before the worker that deferred to it has said goodbye."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow has no annotations here

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.airflow.lib.proving_triggers.AtOnce", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent("now")
