"""What executors answer, and what a field means that an earlier release leaves out."""

from __future__ import annotations

import dataclasses

import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.messages import decode
from nats_executor.wire.scheduler_answers import (
    ExecutorState,
    ProbeOrder,
    ProbeResult,
    encode_answer,
)
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


def test_an_order_for_a_probe_survives_the_wire() -> None:
    order = ProbeOrder(queue="gpu", seconds=10.0)

    assert decode(ProbeOrder, encode_answer(order)) == order


def test_a_time_of_a_probe_that_is_not_known_is_less_than_none() -> None:
    """An executor of an earlier release may not know all of them."""
    assert dataclasses.asdict(ProbeResult()) == {
        "refusal": "", "worker": "",
        "publish": -1, "wait": -1, "start": -1, "run": -1, "report": -1, "whole": -1,
    }  # fmt: skip
    result = ProbeResult(worker="w1", publish=0.5, whole=9.0)
    assert decode(ProbeResult, encode_answer(result)) == result


@pytest.mark.parametrize("kind", [ExecutorState, ProbeOrder, ProbeResult])
def test_a_message_is_a_value_of_names(kind: type) -> None:
    options = kind.__dataclass_params__  # type: ignore[attr-defined]
    assert (options.frozen, hasattr(kind, "__slots__")) == (True, True)
    with pytest.raises(TypeError):
        kind("7")
