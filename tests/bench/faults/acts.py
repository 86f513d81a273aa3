"""Carries each fault out on a contender."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from nats_executor.local.process import LocalError
from tests.bench.faults.stage import FaultySession, SmallDisk, kill_below
from tests.bench.needs import Missing
from tests.faults.memory_group import MemoryGroup
from tests.support.nats_server import free_port
from tests.support.worker_process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["ACTS", "surroundings"]

AWAY_SECONDS = 10.0
SLOW_SECONDS, ANSWER_SECONDS = 30.0, 10.0
FULL_SECONDS = 20.0
# Of what the processes have that run tasks, at rest: two tasks of the Dag `hungry` have 250 MB
# and pandas each.
MEMORY_MORE = 700_000_000
READY_SECONDS = 60.0


@contextlib.contextmanager
def surroundings(session: FaultySession) -> Iterator[None]:
    """What must be there before the contender starts and after it has stopped.

    Raises:
        Missing: this machine cannot have it.
    """
    with contextlib.ExitStack() as exits:
        try:
            if session.fault.name == "disk_full":
                place = session.airflow.home / f"disk-{session.airflow.number}"
                session.disk = exits.enter_context(SmallDisk(place))
                session.task_env = {
                    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(place), "TMPDIR": str(place)
                }  # fmt: skip
            if session.fault.name == "memory_limit":
                session.group = exits.enter_context(MemoryGroup())
        except OSError as exc:
            raise Missing(f"no {session.fault.name} can be made on this machine: {exc}") from exc
        yield


def kill_worker(session: FaultySession) -> None:
    kill_below(session.host)


def kill_scheduler(session: FaultySession) -> None:
    kill_below(next(p for p in session.components.processes if p.name == "scheduler"))


def kill_broker(session: FaultySession) -> None:
    session.faulty.kill_broker(session.side)
    session.repair_later(AWAY_SECONDS, lambda: session.faulty.start_broker(session.side))


def wipe_broker(session: FaultySession) -> None:
    kill_broker(session)
    session.faulty.wipe_broker(session.side)


def slow_api(session: FaultySession) -> None:
    line = session.faulty.line
    line.back = ANSWER_SECONDS
    session.repair_later(SLOW_SECONDS, lambda: setattr(line, "back", 0.0))


def add_unfit_worker(session: FaultySession) -> None:
    """Start a second worker, whose tasks look for the Execution API where nothing listens."""
    nowhere = f"http://127.0.0.1:{free_port()}/execution/"
    session.task_env = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": nowhere}
    session.add_worker()
    with contextlib.suppress(LocalError):  # it noticed, and does not say that it is ready
        session.components.wait_until(
            session.is_working, seconds=READY_SECONDS, description="the second worker to start"
        )
    session.task_env = {}


def fill_disk(session: FaultySession) -> None:
    assert session.disk is not None
    session.disk.fill()
    session.repair_later(FULL_SECONDS, session.disk.free)


def limit_memory(session: FaultySession) -> None:
    """Put all that runs tasks into the group, and limit what it may take more."""
    assert session.group is not None
    assert session.host.leash is not None
    root = session.host.leash.pid
    for pid in (root, *descendants(root)):
        with contextlib.suppress(OSError):  # it has just ended
            session.group.add(pid)
    session.group.limit(session.group.usage + MEMORY_MORE)


def do_nothing(_: FaultySession) -> None:
    pass


ACTS: Mapping[str, Callable[[FaultySession], None]] = {
    "none": do_nothing,
    "worker_killed": kill_worker,
    "worker_stopped": FaultySession.stop_worker,
    "scheduler_killed": kill_scheduler,
    "broker_killed": kill_broker,
    "broker_wiped": wipe_broker,
    "api_slow": slow_api,
    "worker_unfit": add_unfit_worker,
    "long_backlog": do_nothing,
    "disk_full": fill_disk,
    "memory_limit": limit_memory,
}
