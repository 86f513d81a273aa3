"""Tells what is wrong with a release of nats-server, and which one to run instead. Pure.

`tests/attacks/test_acks.py` holds it to the servers of `make test-matrix`; the borders between
these were found with every release on PyPI.
"""

from __future__ import annotations

import re

__all__ = ["consumers_by_default", "danger", "weakness"]

Release = tuple[int, int, int]

# Since this one, an ack removes no message that another queue's consumer still wants. It never came
# to 2.11, and every release of 2.14 and later has it.
SAFE: Release = (2, 12, 5)
# Of the later ones, the first that does not lose messages when a limit per subject is reached while
# others are removed.
RECOMMENDED = "2.14.4"
# Since this one, a stream has a limit of consumers also where its account sets none.
LIMITING = (2, 15)
CONSUMERS_BY_DEFAULT = 1000
VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-|\+|$)")


def release(version: str) -> Release | None:
    """Read what a server calls itself, `2.15.1` or `2.16.0-RC.1`; None for anything else."""
    found = VERSION.match(version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def danger(version: str) -> str:
    """Return what is wrong with a release and what to do, '' if nothing is known against it."""
    found = release(version)
    if found is None or found >= SAFE:
        return ""
    return (
        f"nats-server {version} lets the login of any worker delete tasks of other queues; run "
        f"{RECOMMENDED} or later ({'.'.join(map(str, SAFE))} is the first that does not)"
    )


def weakness(version: str) -> str:
    """Return what a safe release lacks that the recommended one has, '' if that is nothing.

    It spends no try and loses no task: the executor finds out what is gone, and sends it again.
    """
    found, recommended = release(version), release(RECOMMENDED)
    if found is None or recommended is None or not SAFE <= found < recommended:
        return ""
    return (
        f"nats-server {version} works, but may lose a message when a subject reaches its "
        f"limit while other messages are being removed; {RECOMMENDED} or later is recommended"
    )


def consumers_by_default(version: str) -> int:
    """Return how many consumers a stream may have where nothing is set, -1 for any number."""
    found = release(version)
    return CONSUMERS_BY_DEFAULT if found and found >= LIMITING else -1
