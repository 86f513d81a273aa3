"""A subscription without a subject is an inbox."""

from __future__ import annotations

from typing import Any

from nats_executor.broker.link import Listener


async def heard(_: Any) -> None:
    """Take a message."""


def test_a_listener_without_a_subject_is_an_inbox() -> None:
    assert Listener(heard).is_inbox is True
    assert Listener(heard, subject="a.b").is_inbox is False
    assert (Listener(heard).subject, Listener(heard).asks) == ("", "")


def test_a_listener_that_nobody_follows_needs_no_callbacks() -> None:
    listener = Listener(heard)

    listener.on_renewed()
    listener.on_denied(RuntimeError())  # type: ignore[arg-type]
