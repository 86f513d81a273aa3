"""A stand-in for statsd_exporter, which no package here has: datagrams in, Prometheus's page out.

It knows what the project's mapping uses: globs over whole parts of a name, the tags of InfluxDB's
form, gauges, and timers as histograms in seconds.
"""

from __future__ import annotations

import functools
import re
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StatsdBridge", "StatsdClient"]

LINE = re.compile(r"(?P<name>[^,:]+)(?P<tags>(?:,[^:]+)?):(?P<value>[^|]+)\|(?P<kind>g|ms)")
KINDS = {"g": "gauge", "ms": "observer"}
MOST_BYTES = 65536


class StatsdClient:
    """A client of statsd as Airflow's logger needs it, which sends each metric at once."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def gauge(self, stat: str, value: float, *_: Any, **__: Any) -> None:
        self._send(f"airflow.{stat}:{value}|g")

    def timing(self, stat: str, dt: Any, *_: Any, **__: Any) -> None:
        milliseconds = dt.total_seconds() * 1000 if hasattr(dt, "total_seconds") else dt
        self._send(f"airflow.{stat}:{milliseconds}|ms")

    def incr(self, *_: Any, **__: Any) -> None: ...

    def close(self) -> None:
        self._socket.close()

    def _send(self, line: str) -> None:
        self._socket.sendto(line.encode(), self._address)


class StatsdBridge:
    """Receives on a loopback port and shows on another one.

    Attributes:
        port: of statsd.
        page_port: of Prometheus.
        unread: the lines that it does not know.
    """

    def __init__(self, mappings: Iterable[dict[str, Any]], page_port: int) -> None:
        self.page_port = page_port
        self.unread: list[str] = []
        self._mappings = list(mappings)
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Gauge | Histogram] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._reader = threading.Thread(target=self._read, name="statsd bridge", daemon=True)

    def __enter__(self) -> Self:
        self._server, self._page = start_http_server(
            self.page_port, "127.0.0.1", registry=self._registry
        )
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._reader.join()
        self._socket.close()
        self._server.shutdown()
        self._server.server_close()
        self._page.join()

    def _read(self) -> None:
        while line := self._socket.recv(MOST_BYTES).decode():
            if not (match := LINE.fullmatch(line)) or not self._take(match):
                self.unread.append(line)

    def _take(self, line: re.Match[str]) -> bool:
        """Count a line; tell whether a mapping has it."""
        kind = KINDS[line["kind"]]
        for mapping in self._mappings:
            pattern = re.escape(mapping["match"]).replace(r"\*", r"([^.]+)")
            found = re.fullmatch(pattern, line["name"])
            if found and mapping["match_metric_type"] == kind:
                name = mapping["name"].replace("$1", found[1] if found.groups() else "")
                labels = dict(tag.split("=", 1) for tag in line["tags"].split(",")[1:])
                self._count(name, labels, float(line["value"]), mapping)
                return True
        return False

    def _count(self, name: str, labels: dict[str, str], value: float, mapping: Any) -> None:
        buckets = mapping.get("histogram_options", {}).get("buckets")
        if name not in self._metrics:
            made = functools.partial(Histogram, buckets=buckets) if buckets else Gauge
            self._metrics[name] = made(name, name, sorted(labels), registry=self._registry)
        metric = self._metrics[name].labels(**labels) if labels else self._metrics[name]
        if isinstance(metric, Histogram):
            metric.observe(value / 1000)
        else:
            metric.set(value)
