"""Chooses the address of NATS to try next, and tells why none of them works.

Pure: time and chance are given.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from nats_executor.errors import AccessDenied
from nats_executor.pacing import Once, pauses
from nats_executor.settings import without_userinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nats_executor.errors import BrokerError

__all__ = ["ADVERTISED", "Servers", "advertised_by"]

ADVERTISED = (
    "the NATS servers advertise this address, [nats_executor] servers does not have it: make it "
    "reachable, or set no_advertise: true in the cluster block of the servers' configuration"
)
# A dead address is tried last for so long. Longer, and a server that is back gets fewer clients
# than the others; shorter, and more connections wait for a dead one.
REMEMBERED_SECONDS = 60.0
# A server that is down refuses at once; an address that leads nowhere costs the whole timeout.
SLOW_SECONDS = 0.5
# Pauses between rounds double up to this.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


class Failure(NamedTuple):
    """The last attempt at an address."""

    at: float
    seconds: float


class Servers:
    """Remembers how each address answered.

    Args:
        configured: those in `[nats_executor] servers`. The cluster advertises others, which may
            lead nowhere: what is advertised inside of a network reaches clients outside, too.
    """

    def __init__(self, configured: Sequence[str]) -> None:
        self._configured = tuple(configured)
        self._advertised: tuple[str, ...] = ()
        self._answered: set[str] = set()
        self._failures: dict[str, Failure] = {}
        self._reasons: dict[str, BrokerError] = {}  # of this outage
        self._logged = Once()  # since the last connection
        self._pauses = pauses(SHORTEST_PAUSE, LONGEST_PAUSE)

    def is_advertised(self, server: str) -> bool:
        return server not in self._configured

    def has_answered(self, server: str) -> bool:
        """Whether a NATS server has ever spoken there."""
        return server in self._answered

    # Which to try

    def round(self, now: float, shuffle: Callable[[list[str]], None]) -> list[str]:
        """Return the addresses to try in one round, the most promising first.

        Of the advertised ones that have never answered there is one at most: each may cost the
        whole timeout, and a configured server may be back by then.
        """
        servers = [*self._configured, *self._advertised]
        shuffle(servers)
        unproven = [s for s in servers if self.is_advertised(s) and s not in self._answered]
        proven = [server for server in servers if server not in unproven]
        hopeful = [server for server in unproven if not self._is_trap(server, now)]
        hopeful.sort(key=self._last_failed)
        return [*sorted(proven, key=partial(self._rank, now=now)), *hopeful[:1]]

    def _rank(self, server: str, now: float) -> tuple[bool, bool]:
        return self._is_dead(server, now), self.is_advertised(server)

    def _is_dead(self, server: str, now: float) -> bool:
        return now - self._last_failed(server) < REMEMBERED_SECONDS

    def _is_trap(self, server: str, now: float) -> bool:
        return self._is_dead(server, now) and self._failures[server].seconds >= SLOW_SECONDS

    def _last_failed(self, server: str) -> float:
        failure = self._failures.get(server)
        return failure.at if failure else -math.inf

    def pause(self, longest: float, between: Callable[[float, float], float]) -> float:
        """Return how long to wait for the next round, so that a fleet does not return in step."""
        limit = min(next(self._pauses), longest)
        return between(limit / 2, limit)

    # How an attempt ended

    def answered(self, server: str) -> None:
        """Note that a NATS server has spoken there, whatever it said."""
        self._answered.add(server)

    def connected(self, server: str) -> None:
        self.answered(server)
        self._failures.pop(server, None)
        self._reasons.clear()
        self._logged.forget_all()
        self._pauses = pauses(SHORTEST_PAUSE, LONGEST_PAUSE)

    def lost(self, server: str, advertised: Iterable[str], *, now: float) -> None:
        """Note the end of a connection: others are tried first, the cluster's own among them."""
        self._failures[server] = Failure(now, 0.0)
        self._advertised = tuple(a for a in advertised if a not in self._configured)

    def failed(self, server: str, reason: BrokerError, *, began: float, now: float) -> None:
        self._failures[server] = Failure(now, now - began)
        self._reasons[server] = reason

    # Why none of them works

    @property
    def reason(self) -> BrokerError:
        """The most telling reason of this outage, and the other addresses that were tried."""
        first, *others = sorted(self._reasons, key=self._telling)
        told = self._reasons[first]
        text = str(told)
        in_vain = [without_userinfo(server) for server in others if not self.is_advertised(server)]
        if in_vain:
            text += f"; tried in vain as well: {', '.join(sorted(in_vain))}"
        beside = [without_userinfo(server) for server in others if self.is_advertised(server)]
        if beside:
            text += (
                f"; and {', '.join(sorted(beside))}, which the servers advertise: set no_advertise:"
                " true in their cluster block if it cannot be reached from here"
            )
        return type(told)(text)

    def _telling(self, server: str) -> tuple[bool, bool, int]:
        is_advertised = self.is_advertised(server)
        place = 0 if is_advertised else self._configured.index(server)
        return is_advertised, not isinstance(self._reasons[server], AccessDenied), place

    def is_news(self) -> bool:
        """Whether the reason was not logged in this outage; from now on it was.

        Log once that no server can be reached, with any failure, and each refusal by itself.
        """
        told = self._reasons[min(self._reasons, key=self._telling)]
        key = str(told) if isinstance(told, AccessDenied) else ""
        return self._logged.is_new(key)


def advertised_by(server: str, urls: Iterable[Any]) -> list[str]:
    """Return the addresses that a server advertises, to be reached as the server itself was.

    Args:
        urls: as nats-py has them, with a scheme of its own and without a login.
    """
    scheme, netloc = urlsplit(server)[:2]
    login = netloc.rpartition("@")[0]
    prefix = f"{scheme}://{login}@" if login else f"{scheme}://"
    return [prefix + url.netloc for url in urls]
