"""Writes down what really runs, and when: the proof that nothing ran twice at a time.

A task process connects, says who it is and waits for an answer before it counts as started. Its
end is the end of its connection, which the kernel closes however the process dies. Ends are taken
down before starts, so whatever ended before another one started is never recorded the other way.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["executing"]

DONE = b"."
ANSWER_SECONDS = 60.0


@contextlib.contextmanager
def executing(path: str, **facts: Any) -> Iterator[None]:
    """Count as an execution for the length of the context; one that is left early was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(ANSWER_SECONDS)
        line.connect(path)
        line.send(json.dumps(facts).encode())
        line.recv(1)
        yield
        line.send(DONE)


class Journal:
    """The process that all of them talk to."""

    def __init__(self, path: str, database: Database) -> None:
        self.database = database
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(1024)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.executions: dict[socket.socket, int] = {}

    def serve(self) -> None:
        while True:
            self.selector.select()
            with self.database.transaction():
                # The lock may have taken a while; what has ended by now has ended before the rest.
                starting = self.take_down()
            for line in starting:
                with contextlib.suppress(OSError):  # killed meanwhile
                    line.send(b"+")

    def take_down(self) -> list[socket.socket]:
        """Record every end, then every start; return the lines that wait for an answer."""
        packets: list[tuple[socket.socket, bytes]] = []
        for key, _ in self.selector.select(0):
            line = key.fileobj
            if line is self.listener:
                accepted, _ = self.listener.accept()
                self.selector.register(accepted, selectors.EVENT_READ)
            elif isinstance(line, socket.socket):
                packets.append((line, receive(line)))
        for line, packet in packets:
            if packet == DONE:
                self.end(line, "done")
            elif not packet:
                self.end(line, "killed")
                self.selector.unregister(line)
                line.close()
        starting = [(line, json.loads(packet)) for line, packet in packets if len(packet) > 1]
        for line, facts in starting:
            self.begin(line, facts)
        return [line for line, _ in starting]

    def begin(self, line: socket.socket, facts: dict[str, Any]) -> None:
        [(self.executions[line],)] = self.database.do(
            "INSERT INTO executions (number, try_number, dispatch, worker, supervisor, pid,"
            " started_at, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, 'running') RETURNING seq",
            facts["number"], facts["try_number"], facts["dispatch"], facts["worker"],
            facts["supervisor"], facts["pid"], time.monotonic(),
        )  # fmt: skip

    def end(self, line: socket.socket, outcome: str) -> None:
        if (execution := self.executions.pop(line, None)) is not None:
            self.database.do(
                "UPDATE executions SET ended_at = ?, outcome = ? WHERE seq = ?",
                time.monotonic(), outcome, execution,
            )  # fmt: skip


def receive(line: socket.socket) -> bytes:
    try:
        return line.recv(65_536)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    directory = Path(sys.argv[1])
    Journal(str(directory / "journal"), Database(directory / "database", teller="journal")).serve()
