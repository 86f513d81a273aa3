"""The question why JetStream does not answer is not put by those who may not put it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from nats_executor.broker.diagnosis import Diagnosis
from nats_executor.errors import BrokerUnavailable, NoQuorum

API = "$JS.hub.API"


class LeaderlessLink:
    """Answers as a cluster's API does that has no leader."""

    is_connected = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, subject: str, *, timeout: float) -> Any:
        assert timeout > 0
        self.asked.append(subject)
        return SimpleNamespace(data=json.dumps({"error": {"err_code": 10008}}).encode())


@pytest.mark.parametrize("may_ask", [True, False])
async def test_only_users_who_may_ask_a_stream_ask_it_on_their_domain(may_ask: bool) -> None:
    link: Any = LeaderlessLink()
    diagnosis = Diagnosis(link, API, "A_RESULTS", may_ask=may_ask)
    late = BrokerUnavailable("no answer within 5 s")

    reason = await diagnosis.reason(late)
    [refusal] = await diagnosis.explain_all([late], limit=2)

    assert isinstance(reason, NoQuorum) is may_ask
    assert isinstance(refusal, NoQuorum) is may_ask
    assert link.asked == ([f"{API}.STREAM.INFO.A_RESULTS"] if may_ask else [])
