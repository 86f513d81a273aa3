"""Faults of the broker, alone or as a cluster."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.chaos.plan import Kind
from tests.chaos.recovery import starts_again

if TYPE_CHECKING:
    from tests.chaos.blow import Blow
    from tests.support.nats_server import NatsServer

__all__ = [
    "node_ended",
    "node_frozen",
    "quorum_lost",
    "server_frozen",
    "server_killed",
    "server_stopped",
]


def server_ended(blow: Blow, server: NatsServer, how: signal.Signals) -> None:
    blow.hit(server.name)
    server.end(how)
    blow.last()
    if blow.fault.kind is Kind.BROKER_WIPED:
        server.wipe_storage()
        blow.injector.wiped_at = time.monotonic()
    server.start()
    blow.recovers(starts_again(time.monotonic()), since=time.monotonic())


def server_killed(blow: Blow, server: NatsServer) -> None:
    server_ended(blow, server, signal.SIGKILL)


def server_stopped(blow: Blow, server: NatsServer) -> None:
    server_ended(blow, server, signal.SIGTERM)


def server_frozen(blow: Blow, server: NatsServer) -> None:
    blow.hit(server.name)
    server.pause()
    blow.last()
    server.resume()
    blow.recovers(starts_again(time.monotonic()), since=time.monotonic())


def node_ended(blow: Blow, node: NatsServer) -> None:
    """End one of three; the others go on, so recovery is counted from this moment."""
    blow.hit(node.name)
    node.end(signal.SIGKILL if blow.fault.kind is Kind.NODE_KILLED else signal.SIGTERM)
    blow.recovers(starts_again(time.monotonic()))
    blow.last()
    node.start()


def node_frozen(blow: Blow, node: NatsServer) -> None:
    blow.hit(node.name)
    node.pause()
    blow.recovers(starts_again(time.monotonic()))
    blow.last()
    node.resume()


def quorum_lost(blow: Blow, spared: NatsServer) -> None:
    nodes = [node for node in blow.stage.servers if node is not spared]
    blow.hit(", ".join(node.name for node in nodes))
    for node in nodes:
        node.kill()
    blow.last()
    for node in nodes:
        node.launch()
    for node in nodes:
        node.require_ready()
    blow.recovers(starts_again(time.monotonic()), since=time.monotonic())
