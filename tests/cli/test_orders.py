"""`airflow nats workers set-concurrency`, `add-queue`, `remove-queue`: answers and exit codes."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import pytest

from nats_executor.broker.connection import connect
from nats_executor.cli import commands
from nats_executor.fleet import workers
from nats_executor.operations import orders
from nats_executor.wire.messages import Obeyed, encode
from nats_executor.wire.names import ORDERS, Order
from tests.remedies.lines import LINES
from tests.support.nats_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats_executor.broker.port import Broker
    from nats_executor.settings import Settings
    from tests.cli.conftest import Console
    from tests.support.nats_server import NatsServer

pytestmark = pytest.mark.integration

STATE: dict[str, Any] = {"queues": ["default", "gpu"], "concurrency": 8, "running": 1}


@dataclass
class Pretender:
    """Answers orders to workers, in a thread of its own; an answer of None stays out."""

    settings: Settings
    answers: dict[str, bytes | None]
    got: list[tuple[str, str, bytes]] = field(default_factory=list)
    is_ready: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=lambda: asyncio.run(self.live()))
        self.thread.start()
        assert self.is_ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.thread.join(10)

    async def live(self) -> None:
        async with connect(self.settings, role="test") as broker:
            await broker.ready(5)
            for name in self.answers:
                for order in ORDERS:
                    await self.serve(broker, name, order)
            self.is_ready.set()
            await asyncio.to_thread(self.is_over.wait)

    async def serve(self, broker: Broker, name: str, order: Order) -> None:
        async def reply(body: bytes) -> bytes:
            self.got.append((name, order, body))
            if (answer := self.answers[name]) is None:
                await asyncio.Event().wait()
            return answer or b""

        await broker.serve(self.settings.names.control(f"{name}.1", order), reply)


@pytest.fixture
def order_stage(console: Console) -> Console:
    console.run(commands.setup)
    for name in ("w1", "w2"):
        console.announce(name, "default", "gpu")
    return console


@pytest.fixture
def pretend(order_stage: Console) -> Iterator[Any]:
    """Have workers answer, each with the same outcome unless it says otherwise."""
    living: list[Pretender] = []

    def start(answers: dict[str, bytes | None]) -> Pretender:
        pretender = Pretender(order_stage.settings, answers)
        living.append(pretender)
        return pretender.__enter__()

    yield start
    for pretender in living:
        pretender.__exit__()


def outcome(**changes: Any) -> bytes:
    return encode(Obeyed(**(STATE | {"is_changed": True} | changes)))


COMMANDS: list[tuple[Any, dict[str, Any], str, bytes]] = [
    (commands.workers_set_concurrency, {"concurrency": 8}, "set-concurrency", b"8"),
    (commands.workers_add_queue, {"queue": "größe *"}, "add-queue", "größe *".encode()),
    (commands.workers_remove_queue, {"queue": "gpu"}, "remove-queue", b"gpu"),
]


@pytest.mark.parametrize(("command", "args", "order", "body"), COMMANDS)
def test_a_worker_is_told_and_says_what_it_is_now(
    order_stage: Console, pretend: Any, command: Any, args: dict[str, Any], order: str, body: bytes
) -> None:
    pretender = pretend({"w1": outcome(), "w2": outcome()})

    code, output = order_stage.run(command, workers="w1", **args)

    assert (code, order_stage.error) == (0, "")
    assert output == "worker w1 now has concurrency 8, queues default,gpu; until it restarts\n"
    assert pretender.got == [("w1", order, body)]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "worker w1 has concurrency 8 already"),
        (1, "worker w1 serves queue 'größe *' already"),
    ],
)
def test_what_is_so_already_is_no_error(
    order_stage: Console, pretend: Any, number: int, text: str
) -> None:
    pretend({"w1": outcome(is_changed=False)})
    command, args, _, _ = COMMANDS[number]

    code, output = order_stage.run(command, workers="w1", **args)

    assert (code, order_stage.error) == (0, "")
    assert output == f"{text}; nothing changed: concurrency 8, queues default,gpu\n"


def test_a_queue_that_is_not_there_to_be_removed_is_an_error(
    order_stage: Console, pretend: Any
) -> None:
    """It may be mistyped: then the worker goes on with the one that was meant."""
    pretend({"w1": outcome(is_changed=False)})

    assert order_stage.run(commands.workers_remove_queue, workers="w1", queue="gpo") == (1, "")
    assert order_stage.error == (
        "error: worker w1 does not serve queue 'gpo'; nothing changed: concurrency 8, "
        "queues default,gpu\n"
    )


def test_several_workers_each_have_a_line(order_stage: Console, pretend: Any) -> None:
    pretend({"w1": outcome(), "w2": outcome(refusal="it stops")})

    code, output = order_stage.run(commands.workers_add_queue, workers="w1, w2,w3", queue="gpu")

    assert code == 1
    assert output.startswith("worker w1 now has concurrency 8")
    assert order_stage.error.splitlines() == [
        "error: worker w2 refuses: it stops",
        "error: no worker is named 'w3'; there are: w1, w2",
    ]


@pytest.mark.parametrize("workers", ["", " , ", "w"])
def test_an_unknown_worker(order_stage: Console, workers: str) -> None:
    code, output = order_stage.run(commands.workers_set_concurrency, workers=workers, concurrency=2)

    assert (code, output) == (1, "")
    name = workers.strip(" ,")
    assert order_stage.error == f"error: no worker is named {name!r}; there are: w1, w2\n"


def test_no_worker_at_all(console: Console) -> None:
    code, _ = console.run(commands.workers_add_queue, workers="w1", queue="gpu")

    assert code == 1
    assert console.error == "error: no worker is named 'w1'; there are: none\n"


def test_a_worker_that_is_gone_or_too_old(order_stage: Console) -> None:
    code, output = order_stage.run(commands.workers_add_queue, workers="w1", queue="gpu")

    assert (code, output) == (1, "")
    (line,) = order_stage.error.splitlines()
    assert line.startswith("error: worker w1 does not answer, last seen ")
    assert line.endswith("it is gone, or its release 0.1 cannot change while it runs")


def test_a_worker_that_hangs(
    order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "ORDER_SECONDS", 0.2)
    pretend({"w1": None})

    code, output = order_stage.run(commands.workers_add_queue, workers="w1", queue="gpu")

    assert (code, output) == (1, "")
    assert order_stage.error == "error: worker w1 did not answer within 0.2 s\n"


@pytest.mark.parametrize("answer", [b"", b"stopping", b"\xff", b"\x80"])
def test_an_answer_that_cannot_be_read(order_stage: Console, pretend: Any, answer: bytes) -> None:
    pretend({"w1": answer})

    code, output = order_stage.run(commands.workers_add_queue, workers="w1", queue="gpu")

    assert (code, output) == (1, "")
    (line,) = order_stage.error.splitlines()
    assert line.startswith("error: worker w1 gave an answer that cannot be read: ")


def test_what_a_worker_says_cannot_write_on_the_terminal(
    order_stage: Console, pretend: Any
) -> None:
    pretend({"w1": outcome(refusal="\x1b[2J"), "w2": outcome(queues=["\x1b[2J"])})

    _, output = order_stage.run(commands.workers_add_queue, workers="w1,w2", queue="gpu")

    assert "\x1b" not in output + order_stage.error


@pytest.mark.parametrize(("command", "args", "order", "body"), COMMANDS)
def test_a_broker_that_is_down(
    console: Console, command: Any, args: dict[str, Any], order: str, body: bytes
) -> None:
    console.configure(servers=f"nats://127.0.0.1:{free_port()}", connect_timeout_seconds=0.3)

    assert console.run(command, workers="w1", **args) == (2, ""), (order, body)
    assert console.error.startswith("error: cannot reach NATS at ")


def test_a_broker_that_goes_away_meanwhile(
    console: Console, private_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the worker that does not answer then."""
    console.settings = replace(console.settings, servers=(private_nats_server.url,))
    console.configure(servers=private_nats_server.url)
    console.run(commands.setup)
    console.announce("w1", "default")
    look = workers.seen_workers

    async def look_and_lose(broker: Broker, settings: Settings) -> Any:
        seen = await look(broker, settings)
        private_nats_server.kill()
        return seen

    monkeypatch.setattr(orders, "seen_workers", look_and_lose)

    code, _ = console.run(commands.workers_add_queue, workers="w1", queue="gpu")

    assert code == 2
    assert console.error.startswith("error: ")
    assert "worker w1" not in console.error


# A worker that pauses


def test_a_worker_that_pauses_is_shown_with_its_reason(console: Console) -> None:
    reason = "memory is 95.0% used (7.6 of 8.0 GiB of the cgroup), memory_high_percent is 90"
    console.run(commands.setup)
    console.announce("w1", "default", paused=f"{reason}\x1b")
    console.send("default")

    code, listed = console.run(commands.workers_list, output="plain")
    assert code == 0
    assert listed.splitlines()[1].split()[:3] == ["w1", "paused", "default"]
    code, checked = console.run(commands.check, output="json")

    assert code == 1
    assert '"status": "paused"' in checked
    assert reason in checked
    assert "1 pending, served by w1" in checked
    assert "\x1b" not in console.run(commands.check, output="plain")[1]
    [queue] = json.loads(console.run(commands.queues_list, output="json")[1])
    assert (queue["workers"], queue["slots"]) == (1, 4)


def test_a_paused_worker_that_drains_or_is_lost_is_that(console: Console) -> None:
    console.run(commands.setup)
    console.announce("w1", "default", paused="memory", draining=True)

    _, listed = console.run(commands.workers_list, output="plain")

    assert listed.splitlines()[1].split()[1] == "draining"


# Two workers of one name


@pytest.fixture
def namesakes(order_stage: Console) -> Console:
    """Let another worker be called `w1` as well, in another queue."""
    order_stage.announce("w1", "other", worker="elsewhere.1", host="host-8", pid=8)
    return order_stage


def test_a_name_that_two_workers_have_is_refused_with_how_to_name_one(
    namesakes: Console, pretend: Any
) -> None:
    pretender = pretend({"w1": outcome(), "elsewhere": outcome()})

    code, output = namesakes.run(commands.workers_set_concurrency, workers="w1", concurrency=8)

    assert (code, output) == (1, "")
    line = LINES["several workers"].format(worker="w1", here="default,gpu", there="other")
    assert namesakes.error == f"error: {line}\n"
    assert pretender.got == []


@pytest.mark.parametrize(("queue", "who"), [("gpu", "w1"), ("other", "elsewhere")])
def test_of_two_workers_with_one_name_the_one_of_a_queue_is_told(
    namesakes: Console, pretend: Any, queue: str, who: str
) -> None:
    pretender = pretend({"w1": outcome(), "elsewhere": outcome()})

    code, _ = namesakes.run(
        commands.workers_set_concurrency, workers="w1", concurrency=8, serving=queue
    )

    assert (code, namesakes.error) == (0, "")
    assert pretender.got == [(who, "set-concurrency", b"8")]


def test_no_worker_of_a_queue_has_that_name(namesakes: Console) -> None:
    code, _ = namesakes.run(
        commands.workers_set_concurrency, workers="w2", concurrency=8, serving="other"
    )

    assert code == 1
    assert namesakes.error == "error: no worker is named 'w2'; there are: w1\n"


def test_one_that_is_lost_leaves_the_name_to_one_that_lives(
    order_stage: Console, pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started again for other queues, and did not stop in order."""
    order_stage.announce("w1", "other", worker="gone.1")
    look = workers.seen_workers

    async def look_later(broker: Broker, settings: Settings) -> Any:
        return [
            replace(seen, age=1000.0) if seen.presence.worker == "gone.1" else seen
            for seen in await look(broker, settings)
        ]

    monkeypatch.setattr(orders, "seen_workers", look_later)
    pretender = pretend({"w1": outcome(), "gone": outcome()})

    code, _ = order_stage.run(commands.workers_set_concurrency, workers="w1", concurrency=8)

    assert (code, order_stage.error) == (0, "")
    assert pretender.got == [("w1", "set-concurrency", b"8")]
