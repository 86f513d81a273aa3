"""A question that can be neither sent nor answered fails once, where it was asked."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from nats_executor.broker.connection import Connection
from nats_executor.errors import BrokerUnavailable
from tests.support.fixtures import settings_for

pytestmark = pytest.mark.anyio


async def test_a_connection_that_ends_at_a_question_leaves_no_error_behind() -> None:
    """Or the event loop would log "Future exception was never retrieved" with a traceback."""
    unseen: list[Any] = []
    connection = Connection(settings_for("nats://127.0.0.1:4222"), role="test")
    client: Any = SimpleNamespace(is_closed=True)
    connection._client = client
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    try:
        with pytest.raises(BrokerUnavailable):
            await connection.ask("a.subject")
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(handler)

    assert unseen == []
