"""Stands in for Airflow's execution API server: its rules for a start, a heartbeat and a state.

One request is one packet of JSON on a Unix socket, and so is the answer. The rules are those of
`airflow/api_fastapi/execution_api/routes/task_instances.py` in 3.3.2. SIGUSR1 freezes it: it
takes requests and answers none; SIGUSR2 has it go on, without those whose asker has given up. A
request `behave` has it carry out what it is asked and treat the answers in one of `MANNERS`.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.database import Behaviour, Database, Row

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MANNERS", "ask"]

ANSWER_SECONDS = 2.0
# No client waits that long.
LATE_SECONDS = 2.5
OK, NOT_FOUND, CONFLICT, BAD_GATEWAY = 200, 404, 409, 502
# How it may treat what it is asked: "late" answers when its client has given up, "mute" never, and
# "proxy" with an error, of every other request without having carried it out.
MANNERS = frozenset({"", "late", "mute", "proxy"})
POLL_SECONDS = 0.2


def ask(path: str, *, on_send: Callable[[], None] = lambda: None, **request: Any) -> dict[str, Any]:
    """Ask the server one thing; raises `OSError` when it does not answer.

    Args:
        on_send: called once there is a connection, before the request leaves.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.settimeout(ANSWER_SECONDS)
        line.connect(path)
        on_send()
        line.send(json.dumps(request).encode())
        packet = line.recv(65_536)
    if not packet:
        raise ConnectionResetError("the API server is gone")
    answer: dict[str, Any] = json.loads(packet)
    return answer


class Api:
    """The rules."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.database.transaction():
            found = self.database.rows("ti_id = ?", request["ti_id"])
            if not found:
                return {"status": NOT_FOUND}
            match request["op"]:
                case "run":
                    return self.run(found[0], request["pid"], request["parents"])
                case "heartbeat":
                    return self.heartbeat(found[0], request["pid"])
                case _:
                    return self.conclude(found[0], request["state"])

    def run(self, row: Row, pid: int, parents: list[int]) -> dict[str, Any]:
        """Accept a start of what is queued; all workers are on one host, so the pid tells apart.

        The supervisor's and the worker's pid are for the history alone.
        """
        if row.state == "queued":
            self.database.do(
                "UPDATE workloads SET pid = ?, last_heartbeat = ? WHERE number = ?",
                pid, time.monotonic(), row.number,
            )  # fmt: skip
            self.database.set_state(
                row, "running", f"process {pid} of {parents[0]} of {parents[1]}"
            )
        elif (row.state, row.pid) != ("running", pid):
            return {"status": CONFLICT, "previous_state": row.state}
        return {
            "status": OK,
            "length": row.length,
            "try_number": row.try_number,
            "fails": row.behaviour == Behaviour.FAILING,
            "may_retry": row.try_number <= row.max_tries,
        }

    def heartbeat(self, row: Row, pid: int) -> dict[str, Any]:
        if (row.state, row.pid) != ("running", pid):
            return {"status": CONFLICT, "previous_state": row.state}
        self.database.do(
            "UPDATE workloads SET last_heartbeat = ? WHERE number = ?", time.monotonic(), row.number
        )
        return {"status": OK}

    def conclude(self, row: Row, state: str) -> dict[str, Any]:
        if row.state == state:
            return {"status": OK}  # asked again because the answer was lost
        if row.state != "running":
            return {"status": CONFLICT, "previous_state": row.state}
        self.database.set_state(row, state)
        return {"status": OK}


class Server:
    """The socket, and the freezing."""

    def __init__(self, path: Path, api: Api) -> None:
        path.unlink(missing_ok=True)  # the one before may have been killed
        self.api = api
        self.is_frozen = False
        self.manner = ""
        self.is_passed_on = False
        self.late: deque[tuple[float, socket.socket, bytes]] = deque()
        self.waiting: dict[socket.socket, bytes] = {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(1024)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)

    def freeze(self, *, is_frozen: bool) -> None:
        self.is_frozen = is_frozen

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select(POLL_SECONDS):
                if key.fileobj is self.listener:
                    line, _ = self.listener.accept()
                    self.selector.register(line, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    self.receive(key.fileobj)
            while self.waiting and not self.is_frozen:
                self.handle(*self.waiting.popitem())
            while self.late and self.late[0][0] <= time.monotonic():
                self.say(*self.late.popleft()[1:])

    def receive(self, line: socket.socket) -> None:
        try:
            packet = line.recv(65_536)
        except ConnectionError:
            packet = b""
        if packet:
            self.waiting[line] = packet
        else:
            self.waiting.pop(line, None)
            self.selector.unregister(line)
            line.close()

    def handle(self, line: socket.socket, packet: bytes) -> None:
        request = json.loads(packet)
        if request["op"] == "behave":
            self.manner = request["manner"]
            self.say(line, json.dumps({"status": OK}).encode())
            return
        if self.manner == "proxy":
            self.is_passed_on = not self.is_passed_on
            if self.is_passed_on:
                self.api.answer(request)
            self.say(line, json.dumps({"status": BAD_GATEWAY}).encode())
            return
        answer = json.dumps(self.api.answer(request)).encode()
        match self.manner:
            case "late":
                self.late.append((time.monotonic() + LATE_SECONDS, line, answer))
            case "":
                self.say(line, answer)

    def say(self, line: socket.socket, answer: bytes) -> None:
        try:
            line.send(answer)
        except OSError as exc:
            sys.stderr.write(f"{answer!r} was an answer in vain: {exc}\n")


def main(directory: Path) -> None:
    api = Api(Database(directory / "database", teller="api"))
    server = Server(directory / "api", api)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: server.freeze(is_frozen=True))
    signal.signal(signal.SIGUSR2, lambda *_: server.freeze(is_frozen=False))
    server.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
