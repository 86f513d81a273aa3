"""Serves HTTP in a thread of its own, so that probes are answered while the event loop hangs."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import sys
import threading
import time
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from nats_executor.settings import option_error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from nats_executor.errors import ConfigError
    from nats_executor.settings import Settings
    from nats_worker.health.health import Health

__all__ = ["ProbeServer"]

log = logging.getLogger(__name__)

# A request that takes longer than this, in all, is cut off.
REQUEST_SECONDS = 5.0
# Far more than probes and scrapers need; one more connection ends the oldest.
MOST_CONNECTIONS = 32
STOP_LOOK_SECONDS = 0.25
PLAIN_TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class ProbeServer:
    """Serves `/livez`, `/readyz` and `/metrics` until `stop`.

    Raises:
        ConfigError: the port or the address cannot be had.
    """

    def __init__(self, settings: Settings, health: Health, metrics: WSGIApplication) -> None:
        address = settings.health_address, settings.health_port
        try:
            self._server = Server(address)
        except OSError as exc:
            raise refused(settings, exc) from exc
        self._server.set_app(ProbePages(health, metrics))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_LOOK_SECONDS,), name="probes", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the port, and whatever is connected to it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def refused(settings: Settings, exc: OSError) -> ConfigError:
    """Say which option has to change, and how."""
    match exc.errno:
        case errno.EADDRINUSE:
            remedy = "something listens there already; choose a free port, or 0 for no probes"
        case errno.EACCES:
            remedy = "this user may not listen there; choose a port above 1023, or 0 for no probes"
        case _:
            remedy = f"this machine cannot listen there ({exc}); write an IP address that it has"
            return option_error("health_address", settings.health_address, remedy)
    return option_error("health_port", settings.health_port, remedy)


class ProbePages:
    """The answers, as a WSGI application."""

    def __init__(self, health: Health, metrics: WSGIApplication) -> None:
        self._pages: dict[str, WSGIApplication] = {
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/metrics": metrics,
        }
        self._health = health

    def __call__(self, environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environ["PATH_INFO"])
        if page is None:
            return respond_with(respond, "404 Not Found", f"there are {', '.join(self._pages)}")
        if environ["REQUEST_METHOD"] != "GET":
            return respond_with(respond, "405 Method Not Allowed", "use GET", ("Allow", "GET"))
        try:
            return page(environ, respond)
        except Exception:
            log.exception("%s failed; next: answering 500", environ["PATH_INFO"])
            return respond_with(respond, "500 Internal Server Error", "see this worker's log")

    def livez(self, _: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if self._health.is_live():
            return respond_with(respond, "200 OK", "live")
        stall = self._health.stall()
        text = f"not live: its event loop has not moved for {stall:.0f} s"
        return respond_with(respond, "503 Service Unavailable", text)

    def readyz(self, _: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if missing := self._health.missing():
            return respond_with(respond, "503 Service Unavailable", f"not ready: {missing}")
        return respond_with(respond, "200 OK", "ready")


def respond_with(
    respond: StartResponse, status: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    respond(status, [*PLAIN_TEXT, *headers])
    return [f"{text}\n".encode()]


class Request(WSGIRequestHandler):
    """One request; then its connection is closed."""

    timeout = REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called above
        """Say nothing: probes come all the time."""

    def get_stderr(self) -> Any:
        return Quiet()


class Quiet:
    """Logs the traceback that wsgiref writes when a client goes away."""

    def write(self, text: str) -> None:
        log.debug("%s", text.rstrip())

    def flush(self) -> None: ...


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, for a limited time and number of them."""

    daemon_threads = True
    block_on_close = False
    # With the five of the library, a burst of connections makes a probe wait for a second SYN.
    request_queue_size = 128
    # Python 3.14 would let a second worker take the same port.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, Request)

    def server_bind(self) -> None:
        """Bind without the look into the DNS that `HTTPServer` takes here."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = time.monotonic()
        self._cut()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End what takes too long: a byte now and then would keep a timeout of reads away."""
        self._cut(before=time.monotonic() - REQUEST_SECONDS)

    def server_close(self) -> None:
        super().server_close()
        self._cut(most=0)

    def _cut(self, *, most: int = MOST_CONNECTIONS, before: float = -math.inf) -> None:
        """End connections, and their threads: the oldest of too many, and those from before."""
        with self._lock:
            excess = len(self._open) - most
            for number, (connection, since) in enumerate(list(self._open.items())):
                if number < excess or since < before:
                    del self._open[connection]
                    with contextlib.suppress(OSError):  # it is gone by itself
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("a probe of %s broke off: %s", client_address, sys.exc_info()[1])
