"""Serves task logs with Airflow's log server, started when this worker is first asked for one.

It takes 40 MB of its own, and most workers are never asked: logs of running tasks reach the UI
over NATS, and what is stored elsewhere is read there.
"""

from __future__ import annotations

import contextlib
import errno
import socket

__all__ = ["end_waiting", "is_taken", "listen", "serve"]


def listen(port: int) -> socket.socket:
    """Listen on a port of every address, as Airflow's log server does.

    Raises:
        OSError: the port cannot be had.
    """
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port))
    listener.setblocking(False)
    return listener


def is_taken(port: int) -> bool:
    """Whether something listens on a port of this host; its owner is not disturbed."""
    try:
        listen(port).close()
    except OSError as exc:
        return exc.errno == errno.EADDRINUSE
    return False


def serve(listener: socket.socket) -> int:
    """Serve this host's task logs until a signal ends it.

    Airflow's own `serve_logs` does the same, but opens the port itself.
    """
    import uvicorn
    from airflow.configuration import conf
    from setproctitle import setproctitle

    setproctitle("airflow serve-logs")
    config = uvicorn.Config(
        "airflow.utils.serve_logs.log_server:get_app",
        log_level=conf.get("logging", "uvicorn_logging_level", fallback="info").lower(),
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def end_waiting(listener: socket.socket) -> None:
    """End the connections that wait, so that they do not start another server that fails."""
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
