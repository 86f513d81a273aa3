"""Faults of workers and of the processes below them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from nats_worker.processes.linux import children_of
from tests.chaos.blow import NoVictim, kill
from tests.chaos.injections import Span
from tests.chaos.recovery import starts_again, starts_there, went_on
from tests.chaos.supervision import Ailment, ailing

if TYPE_CHECKING:
    from tests.chaos.blow import Blow
    from tests.chaos.database import Execution
    from tests.chaos.processes import Member

__all__ = [
    "fork_server_killed",
    "starts_hang",
    "supervisor_killed",
    "task_killed",
    "worker_cut_off",
    "worker_cut_short",
    "worker_drained",
    "worker_frozen",
    "worker_killed",
    "worker_replaced",
    "worker_stopped",
    "worker_unfit",
    "worker_without_api",
]


def worker_ended(blow: Blow, worker: Member, how: signal.Signals) -> None:
    ran = blow.database.executions("outcome = 'running' AND worker = ?", worker.pid)
    blow.hit(f"{worker.name} (process {worker.pid})")
    blow.injector.hurt.add(worker.pid)
    worker.end(how)
    blow.recovers(went_on(ran))
    blow.last()
    worker.start()


def worker_killed(blow: Blow, worker: Member) -> None:
    worker_ended(blow, worker, signal.SIGKILL)


def worker_stopped(blow: Blow, worker: Member) -> None:
    worker_ended(blow, worker, signal.SIGTERM)


def worker_replaced(blow: Blow, worker: Member) -> None:
    release = blow.stage.change_release(worker)
    worker_ended(blow, worker, signal.SIGTERM)
    blow.injection.victim += f", now of {release}"


def worker_frozen(blow: Blow, worker: Member) -> None:
    pid, frozen = worker.pid, worker.process
    ran = blow.database.executions("outcome = 'running' AND worker = ?", pid)
    blow.hit(f"{worker.name} (process {pid})")
    blow.injector.hurt.add(pid)
    worker.signal(signal.SIGSTOP)
    blow.recovers(went_on(ran))
    blow.last()
    if frozen is not None:  # another one may have its name by now
        frozen.send_signal(signal.SIGCONT)
    blow.injector.cut_off.append(Span(pid, blow.injection.began, time.monotonic()))


def worker_cut_off(blow: Blow, worker: Member) -> None:
    """Cut it off for so long that it counts as lost."""
    ran = blow.database.executions("outcome = 'running' AND worker = ?", worker.pid)
    blow.injector.hurt.add(worker.pid)
    cut(blow, worker)
    blow.recovers(went_on(ran))


def worker_cut_short(blow: Blow, worker: Member) -> None:
    """Cut it off for so long that others are offered what it runs, and still leave it alone.

    So nothing that it runs is an excuse: it is not noted as hurt.
    """
    cut(blow, worker)
    now = time.monotonic()
    blow.recovers(starts_again(now), since=now)


def cut(blow: Blow, worker: Member) -> None:
    pid = worker.pid
    blow.hit(f"{worker.name} (process {pid})")
    for cable in blow.stage.cables[worker.name]:
        cable.cut()
    blow.last()
    for cable in blow.stage.cables[worker.name]:
        cable.mend()
    blow.injector.cut_off.append(Span(pid, blow.injection.began, time.monotonic()))


def worker_without_api(blow: Blow, worker: Member) -> None:
    pid = worker.pid
    ran = blow.database.executions("outcome = 'running' AND worker = ?", pid)
    blow.hit(f"{worker.name} (process {pid})")
    with ailing(Ailment.NO_API, blow.stage.directory, pid):
        blow.last()
    now = time.monotonic()
    blow.injector.api_outages.append(Span(pid, blow.injection.began, now))
    blow.recovers(went_on(ran), since=now)


def worker_drained(blow: Blow, worker: Member) -> None:
    """Stop it in good order while its tasks have time, and start the next one at once.

    Nothing that it runs is an excuse: it is not noted as hurt.
    """
    blow.hit(f"{worker.alias} (process {worker.pid})")
    drained = worker.replace()
    blow.recovers(lambda _: drained.poll() == 0)


def worker_unfit(blow: Blow, worker: Member) -> None:
    """Have it fail to start whatever it takes; others can, so none of that is an excuse."""
    ail(blow, worker, Ailment.READ_ONLY)


def starts_hang(blow: Blow, worker: Member) -> None:
    """Have what it is about to start go no further, ever."""
    ail(blow, worker, Ailment.HANGING)


def ail(blow: Blow, worker: Member, ailment: Ailment) -> None:
    pid = worker.pid
    blow.hit(f"{worker.alias} (process {pid})")
    with ailing(ailment, blow.stage.directory, pid):
        blow.last()
    now = time.monotonic()
    blow.recovers(starts_there(worker, pid, now), since=now)


def fork_server_killed(blow: Blow, execution: Execution) -> None:
    if execution.worker not in {pid for worker in blow.stage.workers for pid in worker.pids}:
        # Its worker had died when it asked who that is: the children of init are not ours to kill.
        raise NoVictim
    ran = blow.database.executions("outcome = 'running' AND worker = ?", execution.worker)
    servers = children_of(execution.worker)
    blow.hit(f"fork server {servers} of worker process {execution.worker}")
    blow.injector.hurt.add(execution.worker)
    for server in servers:
        kill(server)
    blow.recovers(went_on(ran))


def supervisor_killed(blow: Blow, execution: Execution) -> None:
    blow.hit(f"supervisor {execution.supervisor} of w{execution.number}")
    blow.injector.hurt.add(execution.supervisor)
    kill(execution.supervisor)
    blow.recovers(went_on([execution]))


def task_killed(blow: Blow, execution: Execution) -> None:
    blow.hit(f"process {execution.pid} of w{execution.number}")
    blow.injector.hurt.add(execution.pid)
    kill(execution.pid)
    blow.recovers(went_on([execution]))
