"""Durations on a command line: what is one, in seconds, and what is refused."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from nats_executor.cli.durations import duration, interval


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1m1m", 120),
        ("999999s", 999999),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2 h", "-2h", "1.5h", "0s", "0h0m", "9999999s", "2w", "2h ", "٣h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize("text", ["0.1", "0.5", "2", "3600"])
def test_an_interval_is_read(text: str) -> None:
    assert interval(text) == float(text)


@pytest.mark.parametrize("text", ["0.09", "3600.5", "0", "-1", "nan", "inf", "2s", ""])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"between 0\.1 and 3600"):
        interval(text)
