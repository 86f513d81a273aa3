"""The execution API with Airflow's lock: one process may start a task instance, and ask again."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.execution_api import ExecutionApi

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.execution_api import Received

__all__ = ["Delay", "LockingApi", "Starter"]

CONFLICT, SILENCE = 409, 0


class Starter(NamedTuple):
    """The worker that asks for a start; the server says yes again to the same one."""

    hostname: str
    unixname: str
    pid: int


@dataclass(frozen=True, slots=True)
class Delay:
    """What becomes of the answer to a start that was carried out.

    Attributes:
        seconds: until it is given.
        is_lost: the connection is closed then, without a word.
    """

    seconds: float = 0.0
    is_lost: bool = False


class LockingApi(ExecutionApi):
    """Takes one start of each task instance, by the rules of Airflow's `ti_run`.

    Attributes:
        delay: asked with the id of a task instance at each request for its start that is accepted.
        starters: who was allowed to start what.
        states: how far each task instance is.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self.delay: Callable[[str], Delay] = lambda _: Delay()
        self.starters: dict[str, Starter] = {}
        self.states: dict[str, str] = {}
        self.lock = threading.Lock()

    def answer(self, request: Received) -> tuple[int, Any]:
        match request.action:
            case "run":
                return self.start(request)
            case "state":
                with self.lock:
                    self.states[request.about] = str(request.body["state"])
        return super().answer(request)

    def start(self, request: Received) -> tuple[int, Any]:
        body = request.body
        starter = Starter(body["hostname"], body["unixname"], body["pid"])
        with self.lock:
            state = self.states.get(request.about, "queued")
            known = self.starters.get(request.about)
            if state != "queued" and (state, known) != ("running", starter):
                self.received.append(request)
                return CONFLICT, {"detail": refusal(state)}
            self.states[request.about] = "running"
            self.starters[request.about] = starter
        answer = super().answer(request)
        delay = self.delay(request.about)
        if delay.seconds:
            time.sleep(delay.seconds)
        return (SILENCE, None) if delay.is_lost else answer


def refusal(state: str) -> dict[str, str]:
    return {
        "reason": "invalid_state",
        "message": "TI was not in a state where it could be marked as running",
        "previous_state": state,
    }
