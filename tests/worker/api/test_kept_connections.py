"""Workloads of one supervisor share its connections to the API server, and nothing else.

Real supervisors and tasks, and a real server with TLS, which writes down what it gets on which
connection.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import ssl
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from nats_worker.api.kept_connections import IDLE_SECONDS, TRANSPORTS, KeptConnections
from nats_worker.processes.exit_report import Ending
from nats_worker.processes.pool import ProcessPool
from tests.support.certificates import Authority, Certificate
from tests.support.execution_api import Answer, ExecutionApi
from tests.support.process_stage import make_home
from tests.support.waiting import wait_until
from tests.worker.conftest import Stage, callback_body, connection_test_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nats_worker.processes.run import Run

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    connection: int
    path: str
    headers: tuple[tuple[str, str], ...]

    @property
    def token(self) -> str:
        return dict(self.headers)["authorization"].removeprefix("Bearer ")


class StrictApi(ExecutionApi):
    """An Execution API with TLS, with cookies, and with new tokens for those that it is told.

    Attributes:
        heard: every request.
        new_tokens: what to give in place of a token, with the next answer.
        idle_seconds: when it closes an idle connection, None for never.
    """

    def __init__(self, certificate: Certificate) -> None:
        super().__init__()
        self.heard: list[Heard] = []
        self.new_tokens: dict[str, str] = {}
        self.idle_seconds: float | None = None
        self.numbers = itertools.count()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.certificate_file, certificate.key_file)

    @property
    def url(self) -> str:
        return super().url.replace("http://", "https://")

    def handler(self) -> Any:
        api = self
        plain: Any = super().handler()

        class Handler(plain):  # type: ignore[misc]
            def setup(self) -> None:
                self.timeout = api.idle_seconds
                self.request: Any = api.context.wrap_socket(self.request, server_side=True)
                self.number = next(api.numbers)
                super().setup()

            def finish(self) -> None:
                super().finish()
                self.request.close()

            def parse_request(self) -> bool:
                is_good: bool = super().parse_request()
                headers = tuple((name.lower(), value) for name, value in self.headers.items())
                api.heard.append(Heard(self.number, self.path, headers))
                return is_good

            def end_headers(self) -> None:
                token = api.heard[-1].token
                self.send_header("set-cookie", f"session=of-{token}; Path=/")
                if new := api.new_tokens.pop(token, None):
                    self.send_header("refreshed-api-token", new)
                super().end_headers()

        return Handler


@pytest.fixture(scope="module")
def strict_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictApi]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    api = StrictApi(authority.issue("api"))
    with pytest.MonkeyPatch.context() as patch, api:
        patch.setenv("AIRFLOW__API__SSL_CERT", str(authority.ca_file))
        yield api


@pytest.fixture(scope="module")
async def far(
    strict_api: StrictApi, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    marks = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in make_home(tmp_path_factory.mktemp("home"), strict_api, marks).items():
            patch.setenv(name, value)
        async with ProcessPool(delivery_seconds=30.0) as pool:
            await pool.ready()
            yield Stage(pool, strict_api, marks)


@pytest.fixture(autouse=True)
def nothing_heard(strict_api: StrictApi) -> None:
    strict_api.heard.clear()
    strict_api.idle_seconds = None


async def finish(stage: Stage, token: str, task: str = "succeed", ti_id: str = "") -> Run:
    run = await stage.start(task, ti_id or None, token=token)
    report = await run.exited()
    assert (report.ending, report.exit_code, report.started) == (Ending.FINISHED, 0, True), report
    return run


async def test_no_request_carries_anything_of_the_task_before(
    far: Stage, strict_api: StrictApi
) -> None:
    """Three tasks on one connection; the first and the last get a new token while they run."""
    ids = {"alpha": far.new_id(), "beta": far.new_id(), "gamma": far.new_id()}
    strict_api.new_tokens.update(alpha="alpha-2", gamma="gamma-2")

    runs = [await finish(far, token, ti_id=ti_id) for token, ti_id in ids.items()]

    assert len({run.supervisor_pid for run in runs}) == 1
    assert len({heard.connection for heard in strict_api.heard}) == 1
    for token, ti_id in ids.items():
        own = [heard for heard in strict_api.heard if ti_id in heard.path]
        later = token if token == "beta" else f"{token}-2"
        assert [heard.token for heard in own] == [token, later, later]
        for stranger in ids.keys() - {token}:
            assert stranger not in str([heard.headers for heard in own])
        assert "cookie" not in dict(own[0].headers)
        assert dict(own[-1].headers)["cookie"] == f"session=of-{own[-2].token}"


async def test_callbacks_and_connection_tests_work_beside_tasks(
    far: Stage, strict_api: StrictApi
) -> None:
    test_id = far.new_id()
    await finish(far, "alpha")

    callback = await far.pool.start(
        far.new_id(), callback_body("os.getpid") | {"token": "of-callback"}
    )
    assert (await callback.exited()).ending is Ending.FINISHED
    await finish(far, "beta")
    test = await far.pool.start(far.new_id(), connection_test_body(test_id) | {"token": "of-test"})
    assert (await test.exited()).ending is Ending.FINISHED

    of_test = {heard.token for heard in strict_api.heard if test_id in heard.path}
    assert of_test == {"of-test"}
    assert {heard.token for heard in strict_api.heard} <= {
        "alpha",
        "beta",
        "of-callback",
        "of-test",
    }


async def test_a_server_that_closes_idle_connections_gets_one_start(
    far: Stage, strict_api: StrictApi
) -> None:
    strict_api.idle_seconds = 0.2
    first, second = far.new_id(), far.new_id()
    before = await finish(far, "alpha", ti_id=first)
    await wait_until(lambda: not strict_api.connections, 30, "the server to close the connection")

    after = await finish(far, "beta", ti_id=second)

    assert before.supervisor_pid == after.supervisor_pid
    assert len(strict_api.bodies(second, "run")) == 1
    connections = [
        {heard.connection for heard in strict_api.heard if ti_id in heard.path}
        for ti_id in (first, second)
    ]
    assert not connections[0] & connections[1]


@pytest.mark.parametrize("is_carried_out", [False, True])
async def test_a_start_on_a_connection_that_is_cut_is_accepted_once(
    far: Stage, strict_api: StrictApi, is_carried_out: bool
) -> None:
    """The request leaves on the kept connection, and no answer comes."""
    ti_id = far.new_id()
    before = await finish(far, "alpha")
    strict_api.script(ti_id, "run", Answer(0, is_carried_out=is_carried_out), Answer(200))

    after = await finish(far, "beta", ti_id=ti_id)

    assert before.supervisor_pid == after.supervisor_pid
    starts = [heard for heard in strict_api.heard if heard.path.endswith(f"{ti_id}/run")]
    assert [heard.token for heard in starts] == ["beta", "beta"]
    assert starts[0].connection == strict_api.heard[0].connection != starts[1].connection
    assert {body["pid"] for body in strict_api.bodies(ti_id, "run")} == {after.task_pid}
    assert [body["state"] for body in strict_api.bodies(ti_id, "state")] == ["success"]


async def test_a_task_holds_no_connection_of_its_supervisor(far: Stage) -> None:
    before, ti_id = await finish(far, "alpha"), far.new_id()

    after = await finish(far, "beta", "tcp_sockets", ti_id)

    assert before.supervisor_pid == after.supervisor_pid
    assert (far.marks / ti_id).read_text() == "0"


# Alone


class Client:
    """In the place of Airflow's."""

    def __init__(self) -> None:
        self.own: tuple[object, dict[str, object]] = object(), {}
        self._transport, self._mounts = self.own


class Maker:
    """Airflow's context, with a memory of what is open."""

    def __init__(self) -> None:
        self.open: list[Client] = []
        self.made = 0

    @contextlib.contextmanager
    def make(self, _server: str, _token: str, **given: Any) -> Iterator[Any]:
        if given.get("client"):
            yield given["client"]
            return
        client = Client()
        self.made += 1
        self.open.append(client)
        try:
            yield client
        finally:
            assert (client._transport, client._mounts) == client.own
            self.open.remove(client)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(maker: Maker, clock: Clock) -> KeptConnections:
    return KeptConnections(maker.make, clock=clock)


def transport(kept: KeptConnections, server: str = "https://api/") -> object:
    with kept.client(server, str(uuid.uuid4())) as client:
        return client._transport


@pytest.mark.parametrize(("idle", "is_kept"), [(0.0, True), (IDLE_SECONDS, True), (1.01, False)])
def test_a_connection_that_was_idle_for_long_starts_nothing(
    kept: KeptConnections, clock: Clock, maker: Maker, idle: float, is_kept: bool
) -> None:
    clock.now = 10.0
    first = transport(kept)
    clock.now += idle

    assert (transport(kept) is first) is is_kept
    assert len(maker.open) == 1


def test_another_server_has_connections_of_its_own(kept: KeptConnections, maker: Maker) -> None:
    assert transport(kept) is not transport(kept, "https://team/")
    assert len(maker.open) == 1


def test_after_an_error_nothing_is_kept(kept: KeptConnections, maker: Maker) -> None:
    with pytest.raises(ZeroDivisionError), kept.client("https://api/", "a"):
        raise ZeroDivisionError

    assert not maker.open


@pytest.mark.parametrize("given", [{"client": object()}, {"dry_run": True}])
def test_a_client_that_is_given_or_plays_is_left_alone(
    kept: KeptConnections, given: dict[str, Any]
) -> None:
    with kept.client("https://api/", "a", **given) as client:
        if isinstance(client, Client):
            assert client._transport is client.own[0]
        else:
            assert client is given["client"]
    assert not kept.server


def test_two_at_a_time_do_not_share(kept: KeptConnections) -> None:
    with kept.client("https://api/", "a") as outer, kept.client("https://api/", "b") as inner:
        assert outer._transport is not inner._transport


def test_an_httpx_without_these_names_keeps_nothing(
    kept: KeptConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nats_worker.api.kept_connections.TRANSPORTS", (*TRANSPORTS, "_other"))

    assert transport(kept) is not transport(kept)
    assert not kept.server


def test_a_process_that_is_forked_has_none(kept: KeptConnections, maker: Maker) -> None:
    with kept.client("https://api/", "a") as client:
        lent = client._transport
        pid = os.fork()
        if pid == 0:
            os._exit(len([made for made in maker.open if made.own[0] is lent]))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert kept.server
