"""Airflow's own Execution API, on a port of loopback in a thread of this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import uvicorn

from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["execution_api_server"]

START_SECONDS = 120.0


@contextlib.contextmanager
def execution_api_server() -> Iterator[str]:
    """Serve with the configuration of this moment; yields its URL once it answers at once."""
    from airflow.api_fastapi.app import create_app

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/execution/"
        config = uvicorn.Config(create_app(apps="execution"), log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            block_until(lambda: server.started, START_SECONDS, "the API server to start")
            # The first answer takes seconds: Airflow prepares each version of the API then.
            httpx.get(f"{url}health/ping", timeout=START_SECONDS)
            yield url
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
