"""The server cuts its list of subjects at a hundred thousand; a cut list proves nothing."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest

from nats_executor.broker.jetstream import JetStream
from nats_executor.broker.port import Stored
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from collections.abc import Sequence

SUBJECTS = [f"a.tasks.q.d{number}" for number in range(600)]


class CutLink:
    """Lists 10 subjects of however many."""

    def __init__(self, total: int) -> None:
        self.answer = {"state": {"subjects": dict.fromkeys(SUBJECTS[:10], 1)}, "total": total}
        self.asked: list[bytes] = []

    async def ask(self, _subject: str, body: bytes) -> Any:
        self.asked.append(body)
        return SimpleNamespace(data=json.dumps(self.answer).encode())


@pytest.mark.parametrize(("total", "expected"), [(10, SUBJECTS[:10]), (11, SUBJECTS)])
async def test_a_list_that_was_cut_is_not_believed(
    total: int, expected: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link: Any = CutLink(total)
    broker = JetStream(link, settings_for("nats://127.0.0.1:4222"))
    one_by_one = AsyncMock(return_value=[Stored(subject, 1, b"") for subject in SUBJECTS])
    monkeypatch.setattr(broker, "last_of_each", one_by_one)

    found = await broker.occupied("A_TASKS", SUBJECTS)

    assert found == set(expected)
    assert one_by_one.await_count == (total > 10)
    assert json.loads(link.asked[0]) == {"subjects_filter": "a.tasks.q.*"}
