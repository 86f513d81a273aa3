"""Computes how much room NATS needs for teams and queues, and tells when it runs out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nats_executor.broker.releases import consumers_by_default
from nats_executor.errors import ConfigError, LimitReached
from nats_executor.text import number_of
from nats_executor.topology.storage import CROWDED
from nats_executor.topology.wanted import stream_configs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_executor.broker.port import Config, Usage
    from nats_executor.settings import Settings
    from nats_executor.topology.drift import Drift

__all__ = ["as_block", "as_variables", "limit_findings", "require_room", "room_for"]

GIBIBYTE = 2**30
# Streams may fill what they set aside; this much more lets an option grow a little.
SPARE = 1.25
# Readers of reports have their state in memory, a few KB each.
MEMORY_BYTES = 8 * 2**20
# An account's limit counts every replica, and deploy/nats/cluster.conf is for three servers. It is
# often computed where `replicas` is not set.
LEAST_REPLICAS = 3
# The limit holds for the stream of reports as well, which each scheduler reads by a consumer. One
# that crashed keeps its for a minute.
LEAST_CONSUMERS = 100


@dataclass(frozen=True, slots=True)
class Room:
    """Limits of the servers, and of each account with streams, for some teams and queues.

    Attributes:
        streams: of all teams together, so that they may also share one account.
        consumers: of one stream, which is how NATS counts.
        file: bytes of an account, every replica counted.
        file_store: bytes of a server.
    """

    streams: int
    consumers: int
    file: int
    memory: int
    file_store: int
    memory_store: int


def room_for(settings: Settings, *, teams: int, queues: int) -> Room:
    """Return the room for so many teams beside the global deployment, with so many queues each.

    Raises:
        ConfigError: a stream without a size has no bound.
    """
    if settings.max_stream_bytes == -1:
        raise ConfigError(
            f"[nats_executor] max_stream_bytes = {settings.max_stream_bytes}: write a size, "
            "as no room can be computed for a stream without one"
        )
    # Those who store no logs today may do so tomorrow.
    streams = stream_configs(replace(settings, stores_logs=True))
    replicas, deployments = max(LEAST_REPLICAS, settings.replicas), teams + 1
    file = whole(set_aside(streams, "file")) * replicas
    memory = (set_aside(streams, "memory") + MEMORY_BYTES) * replicas
    return Room(
        streams=deployments * len(streams),
        consumers=max(LEAST_CONSUMERS, queues * (len(settings.priority_bands) + 1)),
        file=file,
        memory=memory,
        # A server without a cluster starts only if it has room for all accounts together.
        file_store=deployments * file,
        memory_store=deployments * memory,
    )


def set_aside(streams: Sequence[Config], storage: str) -> int:
    sizes = (stream["max_bytes"] for stream in streams if stream["storage"] == storage)
    return int(sum(sizes) * SPARE)


def whole(size: int) -> int:
    """Round up to the unit that people read."""
    return -(-size // GIBIBYTE) * GIBIBYTE


def as_variables(room: Room) -> str:
    """Return what deploy/nats/cluster.conf takes its limits from."""
    return "\n".join(
        [
            f"MAX_FILE_STORE: {room.file_store // GIBIBYTE}GB",
            f"MAX_MEMORY_STORE: {room.memory_store // 2**20}MB",
            *(f"{name.upper()}: {value}" for name, value in account_limits(room).items()),
        ]
    )


def as_block(room: Room) -> list[str]:
    """Return the limits of an account, in the words of a server's configuration."""
    limits = (f"  {name}: {value}" for name, value in account_limits(room).items())
    return ["jetstream {", *limits, "}"]


def account_limits(room: Room) -> dict[str, str]:
    return {
        "max_file": f"{room.file // GIBIBYTE}GB",
        "max_memory": f"{room.memory // 2**20}MB",
        "max_streams": str(room.streams),
        "max_consumers": str(room.consumers),
    }


# What is there, and what is in its way


def limit_findings(
    usage: Usage | None, consumers: int, stream: str, version: str
) -> list[dict[str, Any]]:
    """Return a row for each limit of an account that is almost reached.

    Args:
        consumers: of the stream of tasks, which is the one that has many.
        version: of the server, which has a limit of its own where the account has none.
    """
    if usage is None:
        return []
    rows = []
    if is_near(usage.streams, usage.max_streams):
        rows.append(
            f"{share(usage.streams, usage.max_streams)} streams are used; at the limit `airflow "
            "nats setup` makes none for another team: raise max_streams of the account in the "
            "servers' configuration"
        )
    limit, setting = limit_of_consumers(usage, version)
    # NATS does not tell the limit of a server. With more than the usual one, it is larger.
    is_larger = usage.max_consumers <= 0 and consumers > limit
    if is_near(consumers, limit) and not is_larger:
        rows.append(
            f"{share(consumers, limit)} consumers of stream {stream} are used, one for each "
            "priority band of each queue; at the limit the workloads of a new queue wait in the "
            f"scheduler: raise {setting} in the servers' configuration, or run `airflow nats "
            "queues delete` for queues that are gone"
        )
    return [{"check": "account", "status": "full", "details": details} for details in rows]


def limit_of_consumers(usage: Usage, version: str) -> tuple[int, str]:
    """Return how many consumers a stream may have, -1 for any number, and what says so."""
    if usage.max_consumers > 0:
        return usage.max_consumers, "max_consumers of the account"
    return consumers_by_default(version), "jetstream { limits { default_max_consumers } }"


def is_near(used: int, limit: int) -> bool:
    return limit > 0 and used >= CROWDED * limit


def share(used: int, limit: int) -> str:
    return f"{used} of {limit} ({used / limit:.0%})"


def require_room(usage: Usage | None, consumers: int, missing: Sequence[Drift]) -> None:
    """Raise `LimitReached` if an account's limit leaves no room for what is missing.

    Args:
        consumers: of the stream of tasks.
        missing: streams and consumers that do not exist yet.
    """
    # Of several tiers another one than the nearest to its limit may be meant: NATS knows which.
    if usage is None or usage.has_tiers:
        return
    streams = sum(drift.where.startswith("stream ") for drift in missing)
    for kind, used, wanted, most in (
        ("stream", usage.streams, streams, usage.max_streams),
        ("consumer", consumers, len(missing) - streams, usage.max_consumers),
    ):
        if 0 < most < used + wanted and wanted:
            raise LimitReached(
                f"max_{kind}s of the account = {most}: {used} are there, and "
                f"{number_of(wanted, kind)} more cannot be made; set it to {used + wanted} or more "
                "in the servers' configuration and reload them (`airflow nats limits` computes "
                "it). Nothing was changed"
            )
