"""Does the same for many queues, several at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from nats_executor.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["for_several"]

# A consumer of three copies is an election of its own, for which the servers wait more than they
# work. More of them at once than this let some answers come too late.
QUEUES_AT_ONCE = 16

Result = TypeVar("Result")


@dataclass(slots=True)
class Outcomes(Generic[Result]):
    """The result or the refusal of each queue, by its name.

    Attributes:
        done: in the order in which the queues were given.
        refused: why it failed, in the same order.
    """

    done: dict[str, Result] = field(default_factory=dict)
    refused: dict[str, BrokerError] = field(default_factory=dict)

    def required(self) -> list[Result]:
        """Return the results of all queues.

        Raises:
            BrokerError: why it failed for the first one for which it did.
        """
        for refusal in self.refused.values():
            raise refusal
        return list(self.done.values())


async def for_several(
    queues: Iterable[str], act: Callable[[str], Awaitable[Result]]
) -> Outcomes[Result]:
    """Do something for each queue, for at most `QUEUES_AT_ONCE` of them at a time.

    A queue that is refused holds up no other one. Where the broker gives no answer any more, only
    the queues that were begun wait for one: the others have no outcome, but the silence has.
    """
    names = list(dict.fromkeys(queues))
    left = iter(names)
    done: dict[str, Result] = {}
    refused: dict[str, BrokerError] = {}

    async def act_for_some() -> None:
        for queue in left:
            try:
                done[queue] = await act(queue)
            except BrokerError as exc:
                refused[queue] = exc
                if isinstance(exc, BrokerUnavailable):
                    return

    async with asyncio.TaskGroup() as group:
        for _ in range(min(QUEUES_AT_ONCE, len(names))):
            group.create_task(act_for_some(), name="several queues")
    return Outcomes(
        {queue: done[queue] for queue in names if queue in done},
        {queue: refused[queue] for queue in names if queue in refused},
    )
