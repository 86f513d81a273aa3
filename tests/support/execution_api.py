"""A small real HTTP server that answers like Airflow's execution API, or as a test wants it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.nats_server import free_port

__all__ = ["Answer", "ExecutionApi", "Received"]

HOLD_SECONDS = 60.0
WHEN = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say to one request; status 0 closes the connection without a word.

    Attributes:
        is_carried_out: the request takes effect all the same, as when an answer gets lost.
        is_held: it is given after `let_go` only; the request takes effect before.
        after: seconds to wait before the answer.
        html: what a proxy says, in place of the Execution API's JSON.
    """

    status: int
    detail: Any = None
    is_carried_out: bool = False
    is_held: bool = False
    after: float = 0.0
    html: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """One request; `about` is the id in its path and `action` the path's last part."""

    method: str
    about: str
    action: str
    body: Any


@dataclass(slots=True)
class Script:
    """The answers to one kind of request: each is used once, the last one for ever."""

    answers: list[Answer] = field(default_factory=list)

    def next(self) -> Answer | None:
        return self.answers.pop(0) if len(self.answers) > 1 else next(iter(self.answers), None)


class ExecutionApi:
    """The server, one thread for each request, with a memory of what it was asked."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.received: list[Received] = []
        self.scripts: dict[tuple[str, str], Script] = {}
        self.may_retry: set[str] = set()
        # Whose start was accepted, by task instance: its host, user and process id.
        self.accepted: dict[str, tuple[str, str, int]] = {}
        # The callbacks whose single-use token was exchanged, as Airflow 3.4 has it.
        self.exchanged: set[str] = set()
        self.held: set[tuple[str, str]] = set()
        self.gate = threading.Event()
        self.connections: set[socket.socket] = set()
        self.port = free_port()
        self.server: ThreadingHTTPServer | None = None
        self.thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/execution/"

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        if self.server is not None:
            return
        self.server = ThreadingHTTPServer((self.host, self.port), self.handler())
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def go_away(self) -> None:
        """Refuse connections from now on and close those that are open."""
        if self.server is None or self.thread is None:
            return
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.server = None
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # closed by its client
                connection.shutdown(socket.SHUT_RDWR)

    def script(self, about: str, action: str, *answers: Answer) -> None:
        """Answer an id's requests for an action this way from now on."""
        if any(answer.is_held for answer in answers):
            self.gate.clear()
        self.scripts[about, action] = Script(list(answers))

    def hold(self, about: str, action: str) -> None:
        """Let requests like this wait for their answer until `let_go`."""
        self.gate.clear()
        self.held.add((about, action))

    def let_go(self) -> None:
        self.held.clear()
        self.gate.set()

    def bodies(self, about: str, action: str) -> list[Any]:
        """The bodies of every request that came for this."""
        return [r.body for r in list(self.received) if (r.about, r.action) == (about, action)]

    def answer(self, request: Received) -> tuple[int, Any]:
        self.received.append(request)
        if (request.about, request.action) in self.held:
            self.gate.wait(HOLD_SECONDS)
        script = self.scripts.get((request.about, request.action))
        scripted = script.next() if script else None
        if scripted is None:
            return self.carry_out(request)
        answer = scripted.status, scripted.html or {"detail": scripted.detail}
        if scripted.is_carried_out or scripted.status == 200:
            carried_out = self.carry_out(request)
            answer = carried_out if scripted.status == 200 else answer
        if scripted.is_held:
            self.gate.wait(HOLD_SECONDS)
        time.sleep(scripted.after)
        return answer

    def carry_out(self, request: Received) -> tuple[int, Any]:
        match request:
            case Received(about="execution", action="ping"):
                return 200, {"ok": ["JWTValidator"], "failing": {}}
            case Received(action="run", body={"hostname": _}):
                return self.run(request.about, request.body)
            case Received(method="PATCH", action="run"):
                return self.exchange(request.about)
            case Received(action="connection"):
                return 200, {"conn_id": "a", "conn_type": "no_such_type"}
            case Received(method="GET"):
                return 404, {"detail": {"reason": "not_found"}}
        return 200, {}

    def run(self, task_instance: str, body: Any) -> tuple[int, Any]:
        """Accept a start once; the same process hears the same answer again, as from Airflow."""
        who = str(body["hostname"]), str(body["unixname"]), int(body["pid"])
        if self.accepted.setdefault(task_instance, who) == who:
            return 200, run_context(may_retry=task_instance in self.may_retry)
        return refusal("running")

    def exchange(self, callback: str) -> tuple[int, Any]:
        """Accept a callback's start once, and refuse every further one."""
        if callback in self.exchanged:
            return refusal("running")
        self.exchanged.add(callback)
        return 204, None

    def handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api.connections.add(self.connection)

            def finish(self) -> None:
                api.connections.discard(self.connection)
                with contextlib.suppress(OSError):  # shut down already
                    super().finish()

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # one end has gone away
                    super().handle()

            def handle_request(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(size) or b"null")
                parts = self.path.partition("?")[0].strip("/").split("/")
                about, action = (parts[2], parts[-1]) if len(parts) > 3 else (parts[-1], "self")
                if parts == ["execution", "health", "ping"]:
                    about, action = "execution", "ping"
                status, answer = api.answer(Received(self.command, about, action, body))
                if status == 0:
                    self.close_connection = True
                    return
                is_html = isinstance(answer, str)
                text = answer if is_html else json.dumps(answer)
                content = b"" if status == 204 else text.encode()
                self.send_response(status)
                kind = "text/html" if is_html else "application/json"
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PATCH = do_POST = do_PUT = handle_request  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        return Handler


def refusal(state: str) -> tuple[int, Any]:
    detail = {"reason": "invalid_state", "message": "no", "previous_state": state}
    return 409, {"detail": detail}


def run_context(*, may_retry: bool) -> dict[str, Any]:
    """Airflow's `TIRunContext`."""
    dag_run: dict[str, Any] = {
        "dag_id": "outcomes",
        "run_id": "manual",
        "logical_date": None,
        "data_interval_start": None,
        "data_interval_end": None,
        "run_after": WHEN,
        "start_date": WHEN,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "conf": {},
        "consumed_asset_events": [],
        "partition_key": None,
    }
    return {"dag_run": dag_run, "max_tries": 1 if may_retry else 0, "should_retry": may_retry}
