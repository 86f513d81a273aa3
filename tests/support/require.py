"""Skip or fail a test whose machine lacks what it needs."""

from __future__ import annotations

import os

import pytest

__all__ = ["require"]


def require(condition: object, reason: str) -> None:
    """Skip the test when the machine lacks something; fail it where CI promised to install it."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (a skip elsewhere, a failure where CI is set)")
    pytest.skip(reason)
