"""Keeps a fork server's zygotes: has them built, gives them tasks and retires them."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from nats_worker.processes import memory
from nats_worker.processes.linux import kill_tree
from nats_worker.processes.protocol import Event, Op, pack, unpack
from nats_worker.processes.zygote_book import TEXTS, Book, DagZygotes, Obstacle, Way, dag_file_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats_worker.processes.zygote_book import DagFile

__all__ = ["ZygoteCounts", "Zygotes"]

# Not `__name__`: its lines belong to the fork server's.
log = logging.getLogger("nats_worker.processes.forkserver")

# Of a request: a task's token and its like take less, and a socket holds several.
MAX_BYTES = 65_536
TIDY_SECONDS = 10.0
# For a trial and the parse after it; with room for a busy machine.
BUILD_SECONDS = 300.0
TIGHT_PERCENT = 85.0


@dataclass
class ZygoteCounts:
    """The main process's counts of zygotes, for metrics."""

    ready: int = 0
    built: int = 0
    starts: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def note(self, event: dict[str, Any]) -> None:
        """Take in an event of the fork server."""
        self.ready = event["ready"]
        self.built += event["built"]
        self.starts += event["starts"]
        self.refused.update(event["refused"])


class ZygotePhase(Enum):
    """How far the life of a zygote is."""

    BUILDING = "it may become one"
    READY = "it gets tasks"
    LEAVING = "it ends, with its last task"


@dataclass
class Zygote:
    """One zygote, or what is to be one.

    Attributes:
        given: the runs that it got, over or not.
        is_told: whether it knows that it has to leave.
    """

    file: DagFile
    channel: socket.socket
    begun_at: float
    phase: ZygotePhase = ZygotePhase.BUILDING
    given: set[str] = field(default_factory=set)
    is_told: bool = False

    @property
    def is_ready(self) -> bool:
        return self.phase is ZygotePhase.READY

    def tell_to_leave(self) -> None:
        """Tell it, unless requests fill the channel; then it is told later."""
        with contextlib.suppress(OSError):
            self.channel.send(pack({"op": Op.RETIRE_ZYGOTES}))
            self.is_told = True


class Zygotes:
    """The zygotes of one fork server.

    Args:
        server: forks, knows the processes, and has the way to the main process.
    """

    def __init__(self, server: Any) -> None:
        self.server = server
        self.book = Book()
        self.by_pid: dict[int, Zygote] = {}
        self.tidy_at = 0.0

    def take_over(self, request: dict[str, Any]) -> bool:
        """Pass a request on to a zygote, and return whether that was possible."""
        wish = DagZygotes(request["dag_zygotes"])
        body = request["body"]
        if wish is DagZygotes.OFF or len(body) > MAX_BYTES:
            return False
        file = dag_file_of(unpack(body), request["team"])
        if file is None:
            return False
        match self.book.meet(file, time.monotonic()):
            case Way.BUILD:
                self.build(file, wish)
            case Way.HAND_OVER:
                return self.pass_on(file, request)
            case Way.PLAIN:
                pass
        return False

    def pass_on(self, file: DagFile, request: dict[str, Any]) -> bool:
        zygote = next(z for z in self.by_pid.values() if z.is_ready and z.file == file)
        try:
            zygote.channel.send(pack(request))
        except OSError:
            return False  # its channel is full, or it has just died; the task parses
        zygote.given.add(request["id"])
        self.tell(starts=1)
        return True

    def build(self, file: DagFile, wish: DagZygotes) -> None:
        """Fork a process that is to become a zygote."""
        if is_tight():
            self.refuse(file, [Obstacle.MEMORY])
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self.refuse(file, [Obstacle.DIED])
            return
        with theirs:
            pid = self.server.fork("", lambda: self.become(file, wish, ours, theirs))
        if not pid:
            ours.close()
            self.refuse(file, [Obstacle.DIED])
            return
        ours.setblocking(False)
        self.by_pid[pid] = Zygote(file, ours, time.monotonic())
        self.server.attach(pid, ours, lambda: self.hear(pid))

    def become(
        self, file: DagFile, wish: DagZygotes, ours: socket.socket, theirs: socket.socket
    ) -> int:
        from nats_worker.processes.zygote import become_zygote

        ours.close()
        server = self.server
        private = [private for private in (server.events, server.uploads) if private]
        return become_zygote(file, wish, theirs, server=server, private=private)

    def hear(self, pid: int) -> None:
        """Note that a zygote is ready or refused, or take a request back."""
        zygote = self.by_pid.get(pid)
        try:
            packet = zygote.channel.recv(2 * MAX_BYTES) if zygote else b""
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if zygote is None or not packet:
            self.server.drop(pid)  # its end is told when it is reaped
            return
        match unpack(packet):
            case {"size": int(size)}:
                zygote.phase = ZygotePhase.READY
                self.book.built(zygote.file, size, time.monotonic())
                self.tell(built=1)
                log.info("the zygote of %s is ready, with %d MB", zygote.file, size // 2**20)
                self.tidy_at = 0.0
            case {"reasons": reasons}:
                zygote.phase = ZygotePhase.LEAVING
                zygote.is_told = True
                self.refuse(zygote.file, [Obstacle(reason) for reason in reasons])
            case request:
                self.take_back(zygote, request)

    def take_back(self, zygote: Zygote, request: dict[str, Any]) -> None:
        """Have a task parse its Dag file, which has changed."""
        zygote.given.discard(request["id"])
        if zygote.is_ready:
            self.book.stale(zygote.file, time.monotonic())
            self.retire(zygote)
        self.server.run(request)

    def refuse(self, file: DagFile, reasons: list[Obstacle]) -> None:
        self.book.refuse(file, reasons[0], time.monotonic())
        self.tell(refused=reasons)
        log.info("no zygote of %s: %s", file, "; ".join(TEXTS[reason] for reason in reasons))

    def retire(self, zygote: Zygote) -> None:
        """Have a zygote end with the last task that it has."""
        zygote.phase = ZygotePhase.LEAVING
        self.book.gone(zygote.file)
        zygote.tell_to_leave()
        self.tell()

    def retire_all(self) -> None:
        """Keep no zygote, and no process that would become one."""
        for pid, zygote in self.by_pid.items():
            if zygote.phase is ZygotePhase.READY:
                self.retire(zygote)
            elif zygote.phase is ZygotePhase.BUILDING:
                kill_tree(pid)

    def ended(self, pid: int, status: int) -> None:
        """Settle what a zygote had when it ended; what is over already is not told twice."""
        zygote = self.by_pid.pop(pid, None)
        if zygote is None:
            return
        if zygote.phase is ZygotePhase.READY:
            self.book.gone(zygote.file)
        elif zygote.phase is ZygotePhase.BUILDING:
            self.refuse(zygote.file, [Obstacle.DIED])
        self.tell()
        for run_id in zygote.given:
            self.server.tell({"event": Event.EXITED, "id": run_id, "status": status})

    def tidy(self, now: float) -> float | None:
        """Retire what there is too much of; return the seconds to the next look."""
        if not self.by_pid:
            return None
        if now >= self.tidy_at:
            self.tidy_at = now + TIDY_SECONDS
            reading = memory.read()
            going = self.book.surplus(now, limit=reading.limit, is_tight=is_tight(reading))
            for pid, zygote in self.by_pid.items():
                is_late = now - zygote.begun_at > BUILD_SECONDS
                if zygote.is_ready and zygote.file in going:
                    self.retire(zygote)
                elif zygote.phase is ZygotePhase.LEAVING and not zygote.is_told:
                    zygote.tell_to_leave()
                elif zygote.phase is ZygotePhase.BUILDING and is_late:
                    kill_tree(pid)
        return max(0.0, self.tidy_at - now)

    def tell(self, *, built: int = 0, starts: int = 0, refused: Sequence[Obstacle] = ()) -> None:
        self.server.tell(
            {
                "event": Event.ZYGOTES,
                "id": "",
                "ready": sum(zygote.is_ready for zygote in self.by_pid.values()),
                "built": built,
                "starts": starts,
                "refused": [str(reason) for reason in refused],
            }
        )


def is_tight(reading: memory.MemoryReading | None = None) -> bool:
    """Return whether memory is too scarce for zygotes."""
    used = (reading or memory.read()).used_percent
    return used is not None and used >= TIGHT_PERCENT
