"""Measure no-op tasks of a worker that is far away: TLS, and 20 ms to whatever it talks to.

The scheduler is near its broker. The worker has 20 ms each way to the API server, to the broker,
and, where it needs that, to the result backend. Lines that delay what they carry stand between.

- API server: TLS ends at the line in front of it, as at the ingress of a cluster.
- NATS: the server's own TLS. Redis: TLS ends at the line; Celery has `rediss://`.
- Celery's result backend is PostgreSQL, which gets the delay and no TLS.
- EdgeExecutor: its API is the API server's.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Self

from tests.bench.delayed import DelayedLine
from tests.bench.sample import Sample
from tests.bench.shared_airflow import SharedAirflow
from tests.bench.sides import CELERY, EDGE, NATS
from tests.bench.works import Work, carried_out
from tests.support.certificates import Authority
from tests.support.nats_server import NatsServer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.bench.sample import Task
    from tests.bench.session import Session
    from tests.bench.sides import Side

__all__ = ["KEY", "measure"]

KEY = "tls_far"
SLOTS = 4
DELAY_SECONDS = 0.02


def measure(task: Task) -> Iterator[Sample]:
    """Yield the samples of every round; raises what `carried_out` does."""
    yield from carried_out(task, WORKS, lambda here: FarAirflow(task, here))


def of_far_worker(session: Session, _: frozenset[str]) -> Iterator[Sample]:
    session.run("warm")
    yield Sample(KEY, session.side.name, session.run("noops").tasks_per_second)


class FarAirflow(SharedAirflow):
    """An Airflow whose workers are behind delayed lines."""

    def __init__(self, task: Task, sides: Collection[Side]) -> None:
        super().__init__(task, sides)
        self.home.mkdir(parents=True)
        self.authority = Authority(self.home)
        self.certificate = self.authority.issue("server")
        files = self.certificate
        config = f'tls {{ cert_file: "{files.certificate_file}", key_file: "{files.key_file}" }}\n'
        self.broker = NatsServer(self.home / "nats", config=config)
        self.lines = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            exits.push(self.lines)
            super().__enter__()
            exits.callback(super().__exit__, None, None, None)
            self.worker_env = self.far_env()
            exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.lines.close()

    def line(self, port: int, *, tls: bool) -> int:
        """Return the port of a new line to another port."""
        shown = None
        if tls:
            shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            shown.load_cert_chain(self.certificate.certificate_file, self.certificate.key_file)
        delayed = DelayedLine(port, there=DELAY_SECONDS, back=DELAY_SECONDS, tls=shown)
        return self.lines.enter_context(delayed).port

    def far_env(self) -> dict[str, str]:
        """What a worker has instead of what the scheduler has."""
        ca = str(self.authority.ca_file)
        api = f"https://127.0.0.1:{self.line(self.port, tls=True)}"
        settings = {
            "CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
            "API__SSL_CERT": ca,
            "EDGE__API_URL": f"{api}/edge_worker/v1/rpcapi",
        }
        if NATS in self.sides:
            port = self.line(self.broker.port, tls=False)
            settings["NATS_EXECUTOR__SERVERS"] = f"tls://127.0.0.1:{port}"
        if CELERY in self.sides:
            redis = self.line(self.redis_port, tls=True)
            database = self.postgres.url.replace(
                str(self.postgres.port), str(self.line(self.postgres.port, tls=False))
            )
            query = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}"
            settings["CELERY__BROKER_URL"] = f"rediss://127.0.0.1:{redis}/0?{query}"
            settings["CELERY__RESULT_BACKEND"] = f"db+{database}"
        env = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        # The EdgeExecutor's client trusts what Python trusts.
        return env | {"SSL_CERT_FILE": ca}

    def more_settings(self) -> dict[str, object]:
        return {
            "NATS_EXECUTOR__SERVERS": f"tls://127.0.0.1:{self.broker.port}",
            "NATS_EXECUTOR__TLS_CA_FILE": self.authority.ca_file,
        }


WORKS = (Work(of_far_worker, SLOTS, {KEY: frozenset({NATS, CELERY, EDGE})}),)
