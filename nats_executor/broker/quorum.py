"""Tells whether a cluster can store anything, from STREAM.INFO and in words for a person.

Pure. A client without the rights of the system account knows a stream's leader, the names of its
servers and how long the leader has not heard from each; on some releases only their names once
there is no leader.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nats_executor.errors import NoQuorum, TopologyMismatch
from nats_executor.text import number_of, presentable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Replication", "no_quorum", "replication", "too_few_servers"]

# Servers of a stream hear from each other every second. A leader that hears nothing of the others
# goes on for ten seconds as if it could store something.
AWAY_SECONDS = 3.0
# nats-server's error for replicas on a server that is in no cluster; else the cluster is too small.
NO_CLUSTER = 10074


@dataclass(frozen=True, slots=True)
class Peer:
    """One server that keeps a copy of a stream, as its leader sees it."""

    name: str
    is_current: bool = True
    is_offline: bool = False
    silent_seconds: float = 0.0
    lag: int = 0  # messages that it has to catch up

    @property
    def is_away(self) -> bool:
        return self.is_offline or self.silent_seconds > AWAY_SECONDS

    def __str__(self) -> str:
        if self.is_away:
            return f"{presentable(self.name)} is offline"
        return f"{presentable(self.name)} is catching up ({number_of(self.lag, 'message')})"


@dataclass(frozen=True, slots=True)
class Replication:
    """Where a stream is kept.

    Attributes:
        leader: the server that leads, '' if there is none.
        peers: the others; without a leader all of them.
        is_clustered: whether there may be other servers with copies of it.
        is_changing: whether NATS still changes which servers keep it, as 2.15 and later tell. All
            copies may be complete before that is over. If the leader is lost until then, the others
            elect none.
    """

    leader: str = "this server"
    peers: tuple[Peer, ...] = ()
    is_clustered: bool = False
    is_changing: bool = False

    @property
    def servers(self) -> tuple[str, ...]:
        names = {self.leader, *(peer.name for peer in self.peers)}
        return tuple(sorted(names - {""}))

    @property
    def has_quorum(self) -> bool:
        """Whether more than half of its servers are in touch, the leader among them."""
        away = sum(peer.is_away for peer in self.peers)
        return bool(self.leader) and away <= len(self.peers) / 2

    @property
    def missing(self) -> list[Peer]:
        """The servers whose copy would not count if the leader died."""
        return [peer for peer in self.peers if peer.is_away or not peer.is_current]


def replication(response: Mapping[str, Any]) -> Replication:
    """Read the response to STREAM.INFO; a server that is in no cluster leads by itself."""
    cluster = response.get("cluster")
    if not cluster:
        return Replication()
    led_for = seconds_between(cluster.get("leader_since"), response.get("ts"))
    peers = [
        Peer(
            str(entry.get("name", "")),
            is_current=bool(entry.get("current")),
            is_offline=bool(entry.get("offline")),
            silent_seconds=silence_of(entry, led_for),
            lag=entry.get("lag", 0),
        )
        for entry in cluster.get("replicas") or ()
    ]
    leader = str(cluster.get("leader", ""))
    return Replication(leader, tuple(peers), "name" in cluster, "desired" in cluster)


def silence_of(entry: Mapping[str, Any], led_for: float) -> float:
    """Return the seconds since the leader last heard from a server.

    Args:
        led_for: for how many seconds the leader leads. One that it has never heard from has been
            silent for as long.
    """
    if active := entry.get("active", 0):
        return float(active) / 1e9
    return 0.0 if entry.get("current") else led_for


def seconds_between(start: str | None, end: str | None) -> float:
    """Return the time between two of the server's times, 0 if one is missing."""
    if not start or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def no_quorum(servers: Sequence[str] = ()) -> NoQuorum:
    """Return why nothing can be stored.

    Args:
        servers: those that keep the stream, as far as they are known.
    """
    if len(servers) == 1:
        name = presentable(servers[0])
        return NoQuorum(
            f"NATS has no quorum: {name}, the only server with this stream, is down; start it, "
            "then set [nats_executor] replicas = 3 and run `airflow nats setup`"
        )
    names = f" ({', '.join(map(presentable, servers))})" if servers else ""
    return NoQuorum(
        f"NATS has no quorum: more than half of its servers{names} have to be up and in touch with "
        "each other; start those that are down, or mend the routes between them"
    )


def too_few_servers(replicas: int, error: Mapping[str, Any]) -> TopologyMismatch:
    """Return what to do when a stream cannot have as many replicas as it is to have."""
    is_single = error.get("err_code") == NO_CLUSTER
    found = "is a single server" if is_single else f"has fewer than {replicas} servers for it"
    return TopologyMismatch(
        f"[nats_executor] replicas = {replicas}, but NATS {found} ({error.get('description')}, "
        f"NATS error {error.get('err_code')}): set a smaller number, or run NATS as a cluster of "
        f"{replicas} servers with JetStream"
    )
