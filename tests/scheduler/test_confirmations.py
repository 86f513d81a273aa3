"""An end that Airflow has not taken in is looked at again after some time."""

from __future__ import annotations

from nats_executor.scheduler.confirmations import Confirmations
from nats_executor.scheduler.ledger import Dispatch, Ended


def ended(name: str) -> Ended:
    return Ended(Dispatch(name, "key", "default", "k", "ti-1"), succeeded=False, info="")


def test_it_is_looked_at_after_pauses_that_double_up_to_a_minute() -> None:
    expected = Confirmations()
    expected.expect(ended("d1"), 100.0)

    looks, last = [], 100.0
    for tick in range(100 * 8, 500 * 8):
        if expected.due(tick / 8):
            looks.append(tick / 8 - last)
            last = tick / 8

    assert looks[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_what_has_had_its_effect_is_struck_out_and_the_rest_stays() -> None:
    expected = Confirmations()
    expected.expect(ended("d1"), 100.0)
    expected.expect(ended("d2"), 100.5)
    assert len(expected) == 2

    due = expected.due(101.0)
    assert [one.ended.dispatch.id for one in due] == ["d1"]
    expected.settle(due[0])
    expected.settle(due[0])

    assert len(expected) == 1
    assert [one.ended.dispatch.id for one in expected.due(1000.0)] == ["d2"]


def test_a_second_end_of_a_dispatch_begins_again() -> None:
    expected = Confirmations()
    expected.expect(ended("d1"), 100.0)
    expected.due(101.0)

    expected.expect(ended("d1"), 102.0)

    assert len(expected) == 1
    assert not expected.due(102.9)
    assert expected.due(103.0)
