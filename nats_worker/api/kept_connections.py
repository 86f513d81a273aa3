"""Keeps the connections to the API server over the workloads that one supervisor runs.

A TLS handshake costs a far worker two round trips and a near one 4 ms of CPU time. Each workload
still gets a client of its own, which Airflow makes: token, cookies, headers and all else that
tells one workload from another are in there. Only httpx's transports go on, which hold connections.

A kept connection may be dead, and a request that is sent on it may have arrived. That is an answer
that did not come, as after any cut: `asking.py` asks again, from the same process. To make it rare
a connection is kept for less time than servers keep idle ones. httpx drops one that is closed
before it sends anything.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

__all__ = ["ARGUMENTS", "CLIENT_MAKER", "TRANSPORTS", "KeptConnections", "keep_connections"]

log = logging.getLogger(__name__)

# Airflow's context that makes an API client and closes it, in both supervisors' modules.
CLIENT_MAKER = "_ensure_client"
ARGUMENTS = {"server", "token", "client", "dry_run"}
# Where httpx's client has its transports: the plain one, and those of proxies.
TRANSPORTS = ("_transport", "_mounts")
# How long a connection may be idle before it carries another workload's start. Of the usual servers
# gunicorn closes idle ones first, after 2 s, and uvicorn after 5 s.
IDLE_SECONDS = 1.0


class KeptConnections:
    """The connections of one process to the API server.

    Args:
        make: Airflow's context that makes a client.
        clock: seconds.
    """

    def __init__(self, make: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.make = make
        self.clock = clock
        self.server = ""
        self.idle_since = 0.0
        self.is_in_use = False
        self.transports: dict[str, Any] = {}
        self.owner = contextlib.ExitStack()
        # A task must not hold its supervisor's connection: it could read and write there.
        os.register_at_fork(after_in_child=self.close)

    @contextlib.contextmanager
    def client(
        self, server: str | None, token: str, client: Any = None, dry_run: bool = False
    ) -> Iterator[Any]:
        """Yield a new client of Airflow's that uses the kept connections."""
        with self.make(server, token, client=client, dry_run=dry_run) as made:
            if client or dry_run or not server or self.is_in_use or not is_known(made):
                yield made
                return
            self.open(server)
            own = {name: getattr(made, name) for name in TRANSPORTS}
            self.is_in_use = True
            try:
                lend(made, self.transports)
                yield made
            except BaseException:
                self.close()  # whatever it was, the next one need not wonder
                raise
            finally:
                self.is_in_use = False
                self.idle_since = self.clock()
                lend(made, own)  # which Airflow closes now

    def open(self, server: str) -> None:
        """Have transports for a server; those that were idle for long go."""
        if server == self.server and self.clock() - self.idle_since <= IDLE_SECONDS:
            return
        self.close()
        owner = self.owner.enter_context(self.make(server, ""))
        self.transports = {name: getattr(owner, name) for name in TRANSPORTS}
        self.server = server

    def close(self) -> None:
        """Close the connections. A copy of this in another process may go on with its own."""
        self.server = ""
        self.owner.close()


def is_known(client: Any) -> bool:
    return all(hasattr(client, name) for name in TRANSPORTS)


def lend(client: Any, transports: dict[str, Any]) -> None:
    for name, transport in transports.items():
        setattr(client, name, transport)


def keep_connections(*modules: ModuleType) -> None:
    """Have the supervisors in these modules of Airflow keep their connections.

    Without the names that this needs each workload has connections of its own, as Airflow has it.
    """
    makers = [getattr(module, CLIENT_MAKER, None) for module in modules]
    make = makers[0]
    if make is None or any(maker is not make for maker in makers):
        log.debug("this Airflow makes its API clients otherwise; none is kept")
        return
    if inspect.signature(make).parameters.keys() != ARGUMENTS:
        return
    kept = KeptConnections(make)
    for module in modules:
        setattr(module, CLIENT_MAKER, kept.client)
