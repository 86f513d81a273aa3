"""What executors answer, and what a field means that an earlier release leaves out."""

from __future__ import annotations

import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.messages import decode
from nats_executor.wire.scheduler_answers import ExecutorState, encode_answer
from nats_executor.wire.sizes import ANSWER_BYTES

STATE = ExecutorState(
    job="7", sender="host-7-x", host="host", version="1", airflow_version="3.3.2",
    python_version="3.11.1", connected_since=1.0, waiting=1, running=2, parallelism=32, tracked=3,
    at=4.0,
)  # fmt: skip


def test_a_state_survives_the_wire() -> None:
    assert decode(ExecutorState, encode_answer(STATE)) == STATE
    assert (STATE.trouble, STATE.trouble_since, STATE.refused) == ("", 0.0, [])
    about = STATE.is_tracked, STATE.dispatch_state, STATE.dispatch_worker, STATE.returned_for
    assert about == (False, "", "", "")


def test_a_state_is_bounded() -> None:
    with pytest.raises(DecodeError):
        decode(ExecutorState, encode_answer(STATE) + b"x" * ANSWER_BYTES)
