"""A server that is away, empty, full or too narrow: what is said of it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from nats_executor.cli import arguments, commands
from nats_executor.errors import StreamFull
from tests.remedies.lines import LINES
from tests.scheduler.stage import queue_up, task_workload
from tests.support.nats_server import free_port, nats_cluster, start_together
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nats_executor import NatsExecutor
    from nats_executor.broker.port import Broker
    from tests.remedies.stage import RemedyStage
    from tests.support.fixtures import MakeNatsServer
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.integration


def test_a_server_that_is_not_there(open_remedy_stage: Callable[..., RemedyStage]) -> None:
    port = free_port()
    seen = open_remedy_stage(f"nats://127.0.0.1:{port}")
    address = f"'127.0.0.1', {port}"
    line = LINES["unreachable"].format(url=f"nats://127.0.0.1:{port}", address=address)

    assert seen.refusals() == {line}
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)


def test_a_server_without_streams(
    private_nats_server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """A worker makes none; `check` names all that are missing."""
    seen = open_remedy_stage(private_nats_server.url)
    line = LINES["no streams"].format(name=seen.console.settings.names.workers_stream)

    with seen.worker("-q", "a") as worker:
        seen.said(worker, f"waiting for NATS: {line}; next: asking until it answers")
        code, output = seen.console.run(commands.check, output="json")
        assert code == 1
        assert output.count("does not exist: run `airflow nats setup`") == 5
        assert seen.console.run(commands.setup, queues="a")[0] == 0
        block_until(seen.is_ready, 90, "its readiness")

        assert worker.text.count(line) == 1


def test_a_stream_that_is_full(
    private_nats_server: NatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(private_nats_server.url, max_stream_bytes=200)

    with seen.scheduler() as executor:
        seen.scheduler_says(executor, LINES["full"])

    assert len(seen.logged("NATS is full: ")) == 1


# Of all streams together 34 MiB, in which a test can find its way.
SMALL = {
    "max_stream_bytes": 1_000_000,
    "max_results_bytes": 1024 * 1024,
    "max_dead_letters_bytes": 16 * 1024 * 1024,
}
LIMITED = """
accounts {{ A {{ jetstream {{ max_file: {size} }}, users: [ {{user: u, password: p}} ] }} }}
no_auth_user: u
"""


def fill_with_another_stream(seen: RemedyStage) -> str:
    """Fill what is left, and return the stream that does."""
    broker, name = seen.console.settings, f"{seen.console.settings.names.prefix}-other"

    async def fill(broker: Broker) -> None:
        await broker.create_stream({"name": name, "subjects": [f"{name}.>"], "storage": "file"})
        for size in (500_000, 5_000, 50):
            with contextlib.suppress(StreamFull):
                while True:
                    await broker.publish(f"{name}.x", bytes(size))

    arguments.ask(broker, fill)
    return name


@pytest.mark.parametrize("where", ["account", "server"])
def test_storage_that_another_stream_has_used_up(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage], where: str
) -> None:
    limits = {"account": (LIMITED.format(size="40MB"), ""),
              "server": ("", "  max_file_store: 40MB")}  # fmt: skip
    config, jetstream = limits[where]
    seen = open_remedy_stage(make_nats_server(config=config, jetstream=jetstream).url, **SMALL)
    assert seen.console.run(commands.setup, queues="a")[0] == 0
    other = fill_with_another_stream(seen)

    with seen.scheduler() as executor:
        line = LINES["full account"] if where == "account" else LINES["full server"]
        seen.scheduler_says(executor, line)
    with seen.worker("-q", "a") as worker:
        seen.said(worker, line)
    if where == "account":
        code, output = seen.console.run(commands.check, output="json")
        assert code == 1
        row = next(row for row in json.loads(output) if row["check"] == "account")
        start, end = LINES["account nearly full"].split(" of that is stream {stream}")
        pattern = re.escape(start).replace(r"\{used\}", r"[\d.]+").replace(r"\{room\}", "41.9")
        pattern = pattern.replace(r"\{share\}", r"\d+%").replace(r"\{most\}", r"[\d.]+")
        assert re.match(pattern, row["details"]), row
        assert row["details"].endswith(end)
        assert other not in row["details"]  # it is none of ours


def test_dead_letters_that_nearly_fill_their_stream(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(make_nats_server().url, **SMALL)
    assert seen.console.run(commands.setup, queues="gpu")[0] == 0
    for number in range(18):
        seen.console.publish(seen.console.settings.names.dead_letter("gpu", f"d{number}"),
                             bytes(800_000))  # fmt: skip

    code, output = seen.console.run(commands.check, output="json")

    assert code == 1
    rows = {row["check"]: row["details"] for row in json.loads(output)}
    line = LINES["letters nearly full"].format(used="14.4", room="16.8", share="86%", number=18)
    assert rows[f"stream {seen.console.settings.names.dead_letters_stream}"] == line


def test_a_stream_that_has_no_room_for_its_size(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """The command and the scheduler name the option, as its value is what has to be smaller."""
    server = make_nats_server(jetstream="  max_file_store: 600MB")
    seen = open_remedy_stage(server.url)
    line = LINES["no room"].format(
        option="max_results_bytes",
        wanted=536870912,
        stream=seen.console.settings.names.results_stream,
        reason="insufficient storage resources available, NATS error 10047",
    )

    assert seen.refused(commands.setup) == line
    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line)


@pytest.mark.parametrize("where", ["servers", "account"])
def test_a_cluster_that_has_no_room_for_a_stream(
    tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage], where: str
) -> None:
    config, jetstream = "", "  max_file_store: 300MB"
    if where == "account":
        config, jetstream = LIMITED.format(size="400MB"), ""
    servers = nats_cluster(tmp_path, config=config, jetstream=jetstream)
    try:
        start_together(servers)
        seen = open_remedy_stage(",".join(server.url for server in servers), replicas=3)
        line = seen.refused(commands.setup)
    finally:
        for server in servers:
            server.kill()

    start, end = LINES["no room"].split("{reason}")
    option, stream = "max_stream_bytes", seen.console.settings.names.tasks_stream
    assert line.startswith(start.format(option=option, wanted=536870912, stream=stream))
    assert line.endswith(end)
    assert "insufficient storage" in line


def test_a_workload_over_max_payload(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """It fails with the reason, as it would be too large the next time, too."""
    seen = open_remedy_stage(make_nats_server(config="max_payload: 1500").url)

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


COUNTED = """
accounts {{ A {{ jetstream {{ max_streams: {streams}, max_consumers: {consumers} }}, users: [
  {{user: u, password: p}}
] }} }}
no_auth_user: u
"""


def test_an_account_that_may_have_no_more_streams(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """`setup` makes none of them, instead of some."""
    seen = open_remedy_stage(make_nats_server(config=COUNTED.format(streams=4, consumers=9)).url)
    line = LINES["no more streams"].format(most_streams=4, streams=0, more="5 streams", enough=5)

    assert seen.refused(commands.setup, queues="a") == line
    code, output = seen.console.run(commands.setup, check=True)
    assert (code, output.count("does not exist")) == (1, 5 + 3)


def test_an_account_that_may_have_no_more_consumers(
    make_nats_server: MakeNatsServer, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """The workloads of a new queue wait in the scheduler; those of the other queues go on."""
    server = make_nats_server(config=COUNTED.format(streams=6, consumers=7))
    seen = open_remedy_stage(server.url)
    assert seen.console.run(commands.setup, queues="a,b")[0] == 0
    line = LINES["no more consumers"].format(
        most_consumers=7, consumers=6, needed="3 consumers", raised=9
    )

    assert seen.refused(commands.setup, queues="c") == line
    rows = account_rows(seen)
    tasks = seen.console.settings.names.tasks_stream
    assert rows == [
        LINES["streams nearly used up"].format(streams=5, most_streams=6, share="83%"),
        LINES["consumers nearly used up"].format(
            consumers=6, most_consumers=7, share="86%", name=tasks
        ),
    ]
    with seen.scheduler() as executor:
        queue_up(executor, task_workload("t1", queue="c"))
        line = LINES["consumers used up"]
        block_until(lambda: beaten(executor) and seen.logged(line), 20, "the line")
        number = len(executor.running)
        queue_up(executor, task_workload("t2", queue="b"))
        block_until(lambda: beaten(executor) and len(executor.running) > number, 20, "queue b")
        assert len(seen.logged(line)) == 1
    assert not seen.logged("NATS is ")  # that would make the other queues wait between attempts


def beaten(executor: NatsExecutor) -> bool:
    executor.heartbeat()
    return True


def account_rows(seen: RemedyStage) -> list[str]:
    code, output = seen.console.run(commands.check, output="json")
    assert code == 1
    return [row["details"] for row in json.loads(output) if row["check"] == "account"]
