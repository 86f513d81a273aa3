"""The last hour of a queue, in one record that several schedulers write."""

from __future__ import annotations

import pytest

from nats_executor.errors import DecodeError
from nats_executor.wire.bounds import packed
from nats_executor.wire.history import MINUTES, History, Minute, extended, minutes_until
from nats_executor.wire.messages import LARGEST, as_map, decode
from nats_executor.wire.sizes import HISTORY_BYTES

NOTHING = Minute()
SEEN = Minute(depth=5, started=2, waited=300, ended=1, oldest=60)


def after(*seen: tuple[int, Minute]) -> History:
    """Return the record that these minutes make."""
    history = None
    for minute, what in seen:
        history = extended(history, "q", minute, what)
    assert history is not None
    return history


def test_an_hour_has_sixty_minutes_and_no_record_is_sixty_empty_ones() -> None:
    assert MINUTES == 60
    assert minutes_until(None, 7) == [NOTHING] * 60


def test_a_record_begins_with_empty_minutes() -> None:
    assert minutes_until(after((100, SEEN)), 100) == [NOTHING] * 59 + [SEEN]


@pytest.mark.parametrize(
    ("until", "place"), [(99, None), (100, 59), (101, 58), (159, 0), (160, None)]
)
def test_a_minute_moves_back_as_time_goes_on(until: int, place: int | None) -> None:
    expected = [NOTHING] * 60
    if place is not None:
        expected[place] = SEEN

    assert minutes_until(after((100, SEEN)), until) == expected


def test_minutes_of_which_no_scheduler_wrote_are_empty() -> None:
    found = minutes_until(after((100, SEEN), (103, Minute(1, 1, 1, 1))), 103)

    assert found[-4:] == [SEEN, NOTHING, NOTHING, Minute(1, 1, 1, 1)]
    assert len(found) == 60


def test_two_schedulers_add_up_in_a_minute_but_see_one_depth() -> None:
    found = minutes_until(after((100, SEEN), (100, Minute(4, 10, 20, 30, 59))), 100)

    assert found[-2:] == [NOTHING, Minute(4, 12, 320, 31, 60)]


def test_a_clock_that_is_behind_adds_to_the_latest_minute() -> None:
    history = after((105, SEEN), (100, Minute(0, 1, 0, 0)))

    assert history.minute == 105
    assert minutes_until(history, 105)[-1] == Minute(0, 3, 300, 1, 60)


def test_a_record_from_the_future_is_replaced() -> None:
    history = after((106, SEEN), (100, Minute(1, 1, 1, 1)))

    assert history.minute == 100
    assert minutes_until(history, 100) == [NOTHING] * 59 + [Minute(1, 1, 1, 1)]


def test_lists_of_any_length_are_read() -> None:
    """A later release may keep more, or fewer."""
    history = History(
        queue="q", minute=9, depth=list(range(70)), started=[3], waited=[], ended=[1, 2], oldest=[]
    )

    found = minutes_until(history, 9)

    assert len(found) == 60
    assert found[-2:] == [Minute(68, 0, 0, 1), Minute(69, 3, 0, 2)]
    assert found[0] == Minute(10, 0, 0, 0)
    assert minutes_until(history, 10)[-2:] == [Minute(69, 3, 0, 2), NOTHING]


def test_the_largest_record_fits() -> None:
    many = [LARGEST] * MINUTES
    history = History(
        queue="\N{PILE OF POO}" * 256, minute=2**32, depth=many, started=many, waited=many,
        ended=many, oldest=many,
    )  # fmt: skip

    body = packed(as_map(history))

    assert decode(History, body, most_bytes=HISTORY_BYTES) == history


@pytest.mark.parametrize("value", [[-1], [LARGEST + 1], [True], ["1"], [1.5]])
def test_what_is_no_number_is_refused(value: list[object]) -> None:
    values = as_map(after((1, SEEN))) | {"depth": value}

    with pytest.raises(DecodeError, match="field 'depth': not a list of numbers from 0 to "):
        decode(History, packed(values), most_bytes=HISTORY_BYTES)


@pytest.mark.parametrize("value", [0, LARGEST])
def test_any_count_is_read(value: int) -> None:
    values = as_map(after((1, SEEN))) | {"depth": [value]}

    assert decode(History, packed(values), most_bytes=HISTORY_BYTES).depth == [value]
