"""The triggers of the tests' Dags."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["AtOnce", "OnMark"]


class AtOnce(BaseTrigger):
    """Fires before the worker that deferred to it has said goodbye."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow has no annotations here

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.airflow.lib.proving_triggers.AtOnce", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent("now")


class OnMark(BaseTrigger):
    """Fires when the test has left a mark."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow has no annotations here
        self.name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("tests.airflow.lib.proving_triggers.OnMark", {"name": self.name})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        mark = f"{os.environ['TEST_MARKS']}/{self.name}"
        self.log.info("the trigger looks for %s", self.name)
        while not os.path.exists(mark):  # noqa: ASYNC110, ASYNC240, PTH110 - the test's
            await asyncio.sleep(0.1)
        yield TriggerEvent("now")
