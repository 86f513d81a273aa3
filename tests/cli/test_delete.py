"""`airflow nats queues delete`, on a real nats-server."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.cli import arguments, commands

if TYPE_CHECKING:
    from nats_executor.broker.port import Broker
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration

GIVEN: dict[str, Any] = {"queue": "gpu", "dry_run": False, "yes": True}
PAUSE: dict[str, Any] = {"paused_queues": "gpu", "reason": "r", "duration": None}


@pytest.fixture
def queues(console: Console) -> Console:
    console.run(commands.setup, queues="gpu,other")
    return console


def known(console: Console) -> set[str]:
    async def look(broker: Broker) -> set[str]:
        stream = console.settings.names.tasks_stream
        return {info.queue for info in await broker.consumer_infos(stream)}

    return arguments.ask(console.settings, look)


def test_an_unused_queue_is_deleted_with_the_note_of_its_pause(queues: Console) -> None:
    queues.run(commands.queues_pause, **PAUSE)

    code, output = queues.run(commands.queues_delete, **GIVEN)

    assert (code, output) == (0, "queue 'gpu' is deleted; its next task makes it again\n")
    assert known(queues) == {"other"}
    names = queues.settings.names
    question = lambda broker: broker.last(names.holds_stream, names.queue_hold("gpu"))  # noqa: E731
    assert arguments.ask(queues.settings, question) is None


def test_a_queue_in_which_something_waits_is_kept(queues: Console) -> None:
    queues.send("gpu")

    code, output = queues.run(commands.queues_delete, **GIVEN)

    assert (code, output) == (1, "")
    assert "queue 'gpu' keeps 1 waiting, 0 running" in queues.error
    assert "airflow nats queues purge gpu" in queues.error
    assert known(queues) == {"gpu", "other"}


def test_a_queue_in_which_something_runs_is_kept(queues: Console) -> None:
    queues.send("gpu")

    async def take(broker: Broker) -> None:
        names = queues.settings.names
        pulls = await broker.pull(names.tasks_stream, names.consumer("gpu"))
        await pulls.wait()

    arguments.ask(queues.settings, take)
    code, _ = queues.run(commands.queues_delete, **GIVEN)

    assert code == 1
    assert "queue 'gpu' keeps 0 waiting, 1 running" in queues.error


@pytest.mark.parametrize("is_draining", [False, True])
def test_a_queue_that_a_worker_serves_is_kept(queues: Console, is_draining: bool) -> None:
    queues.announce("w1", "gpu", draining=is_draining)
    queues.announce("w2", "other")

    code, _ = queues.run(commands.queues_delete, **GIVEN)

    assert code == 1
    assert "queue 'gpu' is served by 1 worker: w1; stop them" in queues.error
    assert "airflow nats workers remove-queue w1 gpu" in queues.error
    assert known(queues) == {"gpu", "other"}


def test_a_trial_and_a_no_keep_the_queue(queues: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = queues.run(commands.queues_delete, **(GIVEN | {"dry_run": True}))
    assert (code, output) == (0, "nothing waits in queue 'gpu', and no worker serves it\n")

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, output = queues.run(commands.queues_delete, **(GIVEN | {"yes": False}))

    assert (code, output) == (1, "")
    assert "nothing was deleted" in queues.error
    assert known(queues) == {"gpu", "other"}


def test_an_unknown_queue_is_told(queues: Console) -> None:
    code, _ = queues.run(commands.queues_delete, **(GIVEN | {"queue": "qpu"}))

    assert code == 2
    assert "no queue is named 'qpu'; there are: gpu,other" in queues.error.replace(", ", ",")
