"""A trouble while logs are shown is logged once, however many pages ask."""

from __future__ import annotations

import pickle

from nats_executor.logs.connection import Complaints


def test_an_outage_is_logged_once_whatever_its_texts() -> None:
    complaints = Complaints()

    assert complaints.is_news("refused", is_away=True)
    assert not complaints.is_news("timed out", is_away=True)

    complaints.end_outage()
    assert complaints.is_news("timed out", is_away=True)


def test_anything_else_is_logged_once_for_each_text() -> None:
    complaints = Complaints()

    assert complaints.is_news("denied", is_away=False)
    assert complaints.is_news("unreadable", is_away=False)
    assert not complaints.is_news("denied", is_away=False)


def test_texts_without_end_take_no_memory_without_end() -> None:
    complaints = Complaints()
    for number in range(10_000):
        assert complaints.is_news(f"d{number}: denied", is_away=False)

    assert len(pickle.dumps(complaints)) < 10_000
