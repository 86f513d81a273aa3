from __future__ import annotations

import pytest

from tests.bench.heavy import Started, later_starts, starts


def test_a_start_is_the_time_from_its_date_to_its_code() -> None:
    found = starts("b 20.0 20.25\na 10.0 13.0\nc 21.0 21.5\n")
    assert found[0] == Started(20.0, 20.25)
    assert later_starts(found) == pytest.approx([250, 500])


def test_one_task_alone_has_no_later_one() -> None:
    assert later_starts(starts("a 10.0 13.0\n")) == []
