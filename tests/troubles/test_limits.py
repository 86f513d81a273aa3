"""A server that is away, empty, full or too narrow: what is said of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nats_executor import commands
from tests.executor.stage import queue_up, task_workload
from tests.support.nats_server import free_port
from tests.support.waiting import block_until
from tests.troubles.lines import LINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer
    from tests.troubles.surfaces import Surfaces

pytestmark = pytest.mark.integration


def test_a_server_that_is_not_there(surfaces: Callable[..., Surfaces]) -> None:
    port = free_port()
    seen = surfaces(f"nats://127.0.0.1:{port}")
    address = f"'127.0.0.1', {port}"
    line = LINES["unreachable"].format(url=f"nats://127.0.0.1:{port}", address=address)

    assert seen.refusals() == {line}
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)


def test_a_server_without_streams(
    private_nats_server: NatsServer, surfaces: Callable[..., Surfaces]
) -> None:
    """A worker makes none; `check` names all that are missing."""
    seen = surfaces(private_nats_server.url)
    line = LINES["no streams"].format(name=seen.console.settings.names.workers_stream)

    with seen.worker("-q", "a") as worker:
        seen.said(worker, f"waiting for NATS: {line}; next: asking until it answers")
        code, output = seen.console.run(commands.check, output="json")
        assert code == 1
        assert output.count("does not exist: run `airflow nats setup`") == 4
        assert seen.console.run(commands.setup, queues="a")[0] == 0
        block_until(seen.is_ready, 90, "its readiness")

        assert worker.text.count(line) == 1


def test_a_stream_that_is_full(
    private_nats_server: NatsServer, surfaces: Callable[..., Surfaces]
) -> None:
    seen = surfaces(private_nats_server.url, max_stream_bytes=200)

    with seen.scheduler() as executor:
        seen.scheduler_says(executor, LINES["full"])

    assert len(seen.logged("NATS is full: ")) == 1


def test_a_workload_over_max_payload(
    make_nats_server: MakeNatsServer, surfaces: Callable[..., Surfaces]
) -> None:
    """It fails with the reason, as it would be too large the next time, too."""
    seen = surfaces(make_nats_server(config="max_payload: 1500").url)

    with seen.scheduler() as executor:
        queue_up(executor, task_workload("t" * 3000, queue="a"))
        found: dict[object, tuple[object, object]] = {}

        def has_failed() -> bool:
            executor.heartbeat()
            found.update(executor.get_event_buffer())
            return len(found) == 1

        block_until(has_failed, 10, "the failure")

    [(_, info)] = found.values()
    pattern = re.escape(LINES["too large"].format(size="SIZE", limit=1500)).replace("SIZE", r"\d+")
    assert re.fullmatch(pattern, str(info))
