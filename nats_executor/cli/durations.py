"""Reads how long something is to last, from a command line. Pure."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

__all__ = ["duration"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Read `90s`, `30m`, `2h`, `1d` or several of them, as in `1h30m`; returns seconds."""
    if not re.fullmatch(r"([0-9]{1,6}[smhd])+", text):
        raise ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 2h, 1d or 1h30m")
    seconds = sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(\D)", text))
    if not seconds:
        raise ArgumentTypeError(f"{text!r} is no time at all")
    return float(seconds)
