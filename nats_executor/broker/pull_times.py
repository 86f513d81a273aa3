"""Decides how often the server speaks to a pull that waits, and when that pull ends. Pure.

At each heartbeat, end and request nats-server looks at every pull that waits at the consumer. With
ten thousand workers these looks cost more than the messages (2.15, `processWaiting`).
"""

from __future__ import annotations

__all__ = [
    "HEARTBEAT_SECONDS",
    "PULL_SECONDS",
    "PULL_SILENCE_SECONDS",
    "pull_heartbeat_seconds",
    "pull_seconds",
    "silence_seconds",
]

# The server forgets a pull after this time; a new one costs one message. Until then it may give a
# workload to a worker whose machine has lost its power or its network.
PULL_SECONDS = 30.0
# Pulls end on multiples of this, by the clock on the wall: one look of the server ends those of
# many workers. Machines whose clocks differ only share fewer looks.
PULL_TICK_SECONDS = 2.0
# The server says "still waiting" this often. It then also sees room under `max_ack_pending` that a
# purge has made, of which it tells no pull (2.15.1).
HEARTBEAT_SECONDS = 1.0
# What ends a pull at a lone server ends the connection, too, so this only has to show the rest.
CALM_HEARTBEAT_SECONDS = 5.0
# After four missed ones, the pull counts as lost; after two of the calm ones.
PULL_SILENCE_SECONDS = 4.5


def pull_heartbeat_seconds(*, is_witnessed: bool, is_limited: bool) -> float:
    """Return the time between two heartbeats of a pull.

    Args:
        is_witnessed: the pull waits at the server that this is connected to. Elsewhere, behind a
            leaf node or in a cluster, a pull may be lost while the connection stays.
        is_limited: the consumer may be full, and room may come of a purge.
    """
    return CALM_HEARTBEAT_SECONDS if is_witnessed and not is_limited else HEARTBEAT_SECONDS


def silence_seconds(heartbeat: float) -> float:
    """Return after how long without a heartbeat a pull counts as lost."""
    return max(PULL_SILENCE_SECONDS, 2 * heartbeat + 0.5)


def pull_seconds(now: float) -> float:
    """Return how long a pull waits that is asked for now: until the last tick in its time.

    Args:
        now: in epoch seconds.
    """
    return PULL_SECONDS - now % PULL_TICK_SECONDS
