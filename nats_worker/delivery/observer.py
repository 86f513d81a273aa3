"""Tells an interested object of the steps of one delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats_executor.broker.port import Delivery
    from nats_executor.wire.messages import State

__all__ = ["Observer", "unobserved"]


class Observer:
    """Is told of the steps of one delivery, each once it has succeeded; does nothing.

    No step waits for it, and it must not raise.
    """

    def claimed(self, *, is_first: bool) -> None:
        """Note the claim.

        Args:
            is_first: whether no worker has claimed this dispatch before.
        """

    def started(self) -> None:
        """Note that Airflow has accepted the start."""

    def exited(self) -> None:
        """Note that the process is gone; its end is not reported yet."""

    def confirmed(self, seconds: float) -> None:
        """Note that NATS has stored a report, so many seconds after it was sent."""

    def reported(self, state: State) -> None:
        """Note what this worker has reported at the end of the delivery."""

    def buried(self) -> None:
        """Note that the message is a dead letter."""


def unobserved(_queue: str, _delivery: Delivery) -> Observer:
    """Return an observer that does nothing."""
    return Observer()
