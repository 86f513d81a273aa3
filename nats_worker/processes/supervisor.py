"""Runs the workload that it was forked for, and more if its fork server has any: a supervisor.

A fork and its page faults are a fifth of a short task's CPU time, and Airflow's other executors
keep their supervisors likewise. One goes on only after the plainest of ends, so whatever is unusual
starts from, and ends with, a process of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats_worker.api.asking import Asking
from nats_worker.processes import airflow_supervisor
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.linux import children_of
from nats_worker.processes.protocol import FREE, Event, pack, pack_report, receive_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from nats_worker.processes.exit_report import ExitReport

__all__ = ["Supervisor"]


class Supervisor:
    """Runs workloads, one after the other, until its fork server has no more.

    Args:
        channel: says `FREE` to the fork server, which answers with the next request, or closes it.
        send: sends a packet to the main process.
    """

    def __init__(self, channel: socket, send: Callable[[bytes], None]) -> None:
        self.channel = channel
        self.send = send
        self.served = 0
        self.task_pid = 0

    def serve(self, request: dict[str, Any] | None) -> int:
        """Return the exit code: 0 if its processes came to an orderly end."""
        while request is not None:
            report = self.run(request)
            self.send(pack_report(request["id"], report))
            if not self.is_fit_for_more(report, request["workloads_per_supervisor"]):
                return int(report.exit_code < 0 or report.ending is Ending.RAISED)
            self.channel.sendall(FREE)
            request = receive_request(self.channel)
        return 0

    def run(self, request: dict[str, Any]) -> ExitReport:
        self.served += 1
        self.task_pid = 0
        asking = Asking(
            lambda: self.send(pack({"event": Event.ASKED, "id": request["id"]})),
            start_by=request["start_by"],
            reach_seconds=request["reach_seconds"],
        )
        return airflow_supervisor.supervise(
            request["body"],
            asking=asking,
            team=request["team"],
            delivery_seconds=request["delivery_seconds"],
            shown_as=request["shown_as"],
            on_start=lambda pid: self.announce_start(request["id"], pid),
        )

    def announce_start(self, dispatch_id: str, pid: int) -> None:
        self.task_pid = pid
        self.send(pack({"event": Event.STARTED, "id": dispatch_id, "pid": pid}))

    def is_fit_for_more(self, report: ExitReport, limit: int) -> bool:
        """Return whether the workload has left this process as it found it, as far as one can see.

        A late signal for a workload whose start was never announced would hit the next one; a
        process that it left running would be taken for the next one's; a thread that a log handler
        started may hold a lock when the next task is forked.
        """
        is_plain = report.ending is Ending.FINISHED and not report.exit_code and self.task_pid
        if not is_plain or self.served >= limit:
            return False
        threads = len(list(Path("/proc/self/task").iterdir()))
        return threads == 1 and not children_of(os.getpid())
