"""Commands that run in this process, on streams that no other test uses."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.releases import danger
from nats_executor.cli import arguments
from nats_executor.wire.messages import Kind, Presence, Workload, encode
from tests.support.fixtures import settings_for
from tests.support.nats_server import server_version
from tests.support.presences import records_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats_executor.settings import Settings
    from nats_executor.wire.names import Names
    from tests.support.nats_server import NatsServer

PREFIX = "AIRFLOW__NATS_EXECUTOR__"
# What `check` exits with where nothing else is wrong: an unsafe server needs attention, too.
WELL = int(bool(danger(".".join(map(str, server_version())))))


class Console:
    """Runs commands, and does what workers and schedulers would do."""

    def __init__(
        self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        self.patch = patch
        self.capture = capture
        self.settings = settings
        self.configure(servers=",".join(settings.servers), subject_prefix=settings.subject_prefix)
        self.error = ""

    def configure(self, **options: object) -> None:
        for name, value in options.items():
            self.patch.setenv(f"{PREFIX}{name.upper()}", str(value))

    @property
    def environment(self) -> dict[str, str]:
        """What a command in another process needs."""
        return {
            f"{PREFIX}SERVERS": ",".join(self.settings.servers),
            f"{PREFIX}SUBJECT_PREFIX": self.settings.subject_prefix,
        }

    def run(self, command: Callable[[Namespace], None], **args: Any) -> tuple[int, str]:
        """Return a command's exit code and what it printed; `error` has what went to stderr."""
        given = {
            "queues": None, "check": False, "may_drop": False, "team_name": None,
            "output": "table", "verbose": False, "serving": None, "queue_patterns": None,
            "worker_patterns": None, "state": None, "sort": None, "reverse": False, "watch": None,
            "min_workers": None,
        } | args  # fmt: skip
        code: Any = 0
        try:
            command(Namespace(**given))
        except SystemExit as exc:
            code = exc.code
        printed = self.capture.readouterr()
        self.error = printed.err
        assert isinstance(code, int)
        return code, printed.out

    def publish(self, subject: str, body: bytes) -> None:
        arguments.ask(self.settings, lambda broker: broker.publish(subject, body))

    def send(self, queue: str, dispatch_id: str = "d1") -> None:
        workload = Workload(
            dispatch_id=dispatch_id, queue=queue, kind=Kind.TASK, body={}, key=[], sender="test"
        )
        self.publish(self.settings.names.task(queue, dispatch_id), encode(workload))

    def announce(self, name: str, *queues: str, **changes: Any) -> None:
        """Write the record of a worker."""
        facts: dict[str, Any] = {
            "worker": f"{name}.1", "name": name, "host": "host-7", "pid": 7,
            "queues": list(queues), "concurrency": 4, "running": 1, "draining": False,
            "started_at": 0.0, "at": 0.0, "version": "0.1",
        }  # fmt: skip
        for subject, body in records_of(self.settings.names, Presence(**(facts | changes))):
            self.publish(subject, body)


@pytest.fixture
def console(
    nats_server: NatsServer,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Console:
    return Console(monkeypatch, capsys, settings_for(nats_server.url, subject_prefix=names.prefix))
