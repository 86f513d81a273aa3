"""Asking a worker's probe server, and reading what it answers."""

from __future__ import annotations

import asyncio
import http.client
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Answer", "Samples", "ask", "ask_now", "samples"]

ASK_SECONDS = 10.0

Samples = dict[tuple[str, tuple[str, ...]], float]
"""Values by name and the values of the labels, in the labels' order by name."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]


def ask_now(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=ASK_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode(), dict(response.getheaders()))
    finally:
        connection.close()


async def ask(port: int, path: str, method: str = "GET") -> Answer:
    """Do so in a thread, because the worker may run in this loop."""
    return await asyncio.to_thread(ask_now, port, path, method)


async def samples(port: int) -> Samples:
    """Scrape `/metrics`."""
    answer = await ask(port, "/metrics")
    assert answer.status == 200, answer
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
