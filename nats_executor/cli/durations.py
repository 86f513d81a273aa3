"""Reads how long something is to last, from a command line. Pure."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

__all__ = ["duration", "interval"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Of a look that is repeated.
SHORTEST, LONGEST = 0.1, 3600.0


def duration(text: str) -> float:
    """Read `90s`, `30m`, `2h`, `1d` or several of them, as in `1h30m`; returns seconds."""
    if not re.fullmatch(r"([0-9]{1,6}[smhd])+", text):
        raise ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 2h, 1d or 1h30m")
    total = sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(\D)", text))
    if not total:
        raise ArgumentTypeError(f"{text!r} is no time at all")
    return float(total)


def interval(text: str) -> float:
    """Read a number of seconds between 0.1 and 3600, such as `2` or `0.5`."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not SHORTEST <= number <= LONGEST:
        raise ArgumentTypeError(
            f"{text!r} is no number of seconds between {SHORTEST:g} and {LONGEST:g}"
        )
    return number
