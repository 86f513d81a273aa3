"""A task looks for its worker's login: in its environment, its configuration, its memory, above it.

Real workers with Airflow's supervisors, on servers with each way to log in; and their tasks' logs
are stored all the same.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.broker.connection import connect
from nats_executor.logs import store
from nats_executor.topology import setup
from nats_executor.wire.messages import State
from tests.support.execution_api import ExecutionApi
from tests.support.fixtures import settings_for
from tests.support.nkeys import NKey, Operator
from tests.support.process_stage import QUICK, is_alive, make_home, task_body
from tests.support.user_stage import PASSWORD, ROOT_INBOX, ROOT_USER, UserStage
from tests.support.waiting import wait_until
from tests.support.worker_process import Post, WorkerProcess, descendants
from tests.worker.conftest import callback_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from nats_executor.settings import Settings
    from tests.support.fixtures import MakeNatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

DAG = Path(__file__).with_name("prying_dag.py")
LOGS = {
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "nats_executor.logging_config.LOGGING_CONFIG",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
    "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "nats://",
}
# Root may read everything, unless it has none of root's capabilities; a container's has few.
UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()


@dataclass
class Way:
    """One way to log in.

    Attributes:
        secret: the text that no task may find.
        server: of the server's configuration.
        options: of the worker, in its environment.
        environment: more of its environment.
        file: its airflow.cfg.
        admin: options of the test's own connection.
    """

    secret: str
    server: str
    options: dict[str, Any]
    admin: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    file: str = ""
    login: str = ""  # in the servers' addresses


def new_secret() -> str:
    return f"hush-{secrets.token_hex(12)}"


def users(password: str) -> str:
    return f'authorization {{ users: [ {{ user: me, password: "{password}" }} ] }}\n'


def a_password(_: Path) -> Way:
    secret = new_secret()
    login = {"user": "me", "password": secret}
    return Way(secret, users(secret), login, login)


def a_password_in_a_variable_of_its_own(_: Path) -> Way:
    secret = new_secret()
    return Way(
        secret, users(secret), {"user": "me", "password": "$NATS_LOGIN"},
        {"user": "me", "password": secret}, {"NATS_LOGIN": secret},
    )  # fmt: skip


def a_password_by_command(directory: Path) -> Way:
    secret = new_secret()
    file = directory / "password"
    file.write_text(secret)
    return Way(
        secret, users(secret), {"user": "me", "password_cmd": f"cat {file}"},
        {"user": "me", "password": secret},
    )  # fmt: skip


def a_password_of_a_secrets_backend(directory: Path) -> Way:
    secret = new_secret()
    (directory / "vault.secret").write_text(secret)
    (directory / "a_vault.py").write_text(
        "from pathlib import Path\n"
        "from airflow.secrets import BaseSecretsBackend\n"
        "class Vault(BaseSecretsBackend):\n"
        "    def get_config(self, key):\n"
        "        return Path(__file__).with_name(key).read_text()\n"
    )
    return Way(
        secret, users(secret), {"user": "me", "password_secret": "vault.secret"},
        {"user": "me", "password": secret},
        {"AIRFLOW__SECRETS__BACKEND": "a_vault.Vault", "PYTHONPATH": str(directory)},
    )  # fmt: skip


def a_password_in_the_file(_: Path) -> Way:
    secret = new_secret()
    login = {"user": "me", "password": secret}
    section = "\n".join(f"{name} = {value}" for name, value in login.items())
    file = f"[nats_executor]\n{section}\n[alpha=nats_executor]\n{section}\n"
    return Way(secret, users(secret), {}, login, file=file)


def a_teams_password_beside_it(_: Path) -> Way:
    secret, other = new_secret(), new_secret()
    login = {"user": "me", "password": secret}
    return Way(
        other, users(secret), login, login, {"AIRFLOW__ALPHA___NATS_EXECUTOR__PASSWORD": other}
    )  # fmt: skip


def a_token(_: Path) -> Way:
    secret = new_secret()
    return Way(
        secret, f'authorization {{ token: "{secret}" }}', {"token": secret}, {"token": secret}
    )


def an_nkey(_: Path) -> Way:
    key = NKey()
    login = {"nkey_seed": key.seed}
    return Way(key.seed, f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}", login, login)


def an_nkey_in_a_file(directory: Path) -> Way:
    key = NKey()
    file = directory / "seed"
    file.write_text(key.seed)
    login = {"nkey_seed": file}
    return Way(key.seed, f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}", login, login)


def credentials(directory: Path) -> Way:
    operator, user, file = Operator(), NKey(), directory / "worker.creds"
    operator.write_credentials(file, user)
    login = {"credentials_file": file}
    return Way(user.seed, operator.server_config(), login, login)


def the_address(_: Path) -> Way:
    secret = new_secret()
    return Way(
        secret, users(secret), {}, {"user": "me", "password": secret}, login=f"me:{secret}@"
    )  # fmt: skip


WAYS = (
    a_password, a_password_in_a_variable_of_its_own, a_password_by_command,
    a_password_of_a_secrets_backend, a_password_in_the_file, a_teams_password_beside_it, a_token,
    an_nkey, an_nkey_in_a_file, credentials, the_address,
)  # fmt: skip


@pytest.fixture(scope="module")
def api() -> Iterator[ExecutionApi]:
    with ExecutionApi() as api:
        yield api


@dataclass
class Cell:
    """A worker whose tasks pry, and what they have found."""

    worker: WorkerProcess
    post: Post
    home: Path
    queue: str = "default"

    async def send(self, task: str) -> str:
        dispatch_id = str(uuid.uuid4())
        body = task_body(task, dispatch_id)
        body["ti"]["queue"] = self.queue
        await self.post.send(body, dispatch_id, self.queue)
        return dispatch_id

    async def pry(self) -> tuple[str, dict[str, Any]]:
        """Run a task and return its id and what it has found."""
        dispatch_id = await self.send("pry")
        await self.post.reported(dispatch_id, State.SUCCESS, queue=self.queue)
        return dispatch_id, json.loads((self.home / "marks" / dispatch_id).read_text())

    async def stored(self, dispatch_id: str) -> bytes:
        names, path = self.post.settings.names, f"{dispatch_id}.log"
        broker = self.post.broker
        found = await store.find(broker, names, self.queue, path)
        bodies = [
            await store.chunks(broker, names, self.queue, path, part, part.numbers)
            for part in found.parts
        ]
        return b"".join(body or b"" for part in bodies for body in part)

    def written(self, dispatch_id: str) -> bytes:
        return (self.home / "logs" / f"{dispatch_id}.log").read_bytes()


def pattern(secret: str) -> str:
    """Match a text, and not this pattern."""
    return f"{secret[:-1]}[{secret[-1]}]"


@asynccontextmanager
async def cell_of(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    api: ExecutionApi,
    settings: Settings,
    worker: Settings,
    way: Way,
    *args: str,
) -> AsyncIterator[Cell]:
    """Start a worker with an Airflow of its own.

    Args:
        settings: of the test's own connection.
        worker: whose servers and names the worker has.
    """
    home, decoy = directory / "home", new_secret()
    home.mkdir()
    (home / "marks").mkdir()
    if way.file:
        (home / "airflow.cfg").write_text(way.file)
    environment = make_home(home, api, home / "marks", DAG) | LOGS | way.environment
    environment["TEST_PATTERNS"] = json.dumps(
        {"login": pattern(way.secret), "decoy": pattern(decoy)}
    )
    environment["TEST_DECOY"] = decoy
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    running = WorkerProcess.launch(
        directory, worker, "--skip-serve-logs", *args, prefix=UNPRIVILEGED, **QUICK | way.options
    )
    try:
        async with connect(settings, role="test") as broker:
            await running.said("is ready")
            yield Cell(running, Post(broker, settings), home)
    finally:
        running.clear_away()


@pytest.mark.parametrize("way", [a_password, a_password_in_the_file], ids=lambda way: way.__name__)
async def test_a_task_in_an_interpreter_of_its_own_finds_no_login(
    way: Callable[[Path], Way],
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads Airflow's configuration itself; Airflow 3.3 forks it all the same."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER", "True")
    await require_no_login(way, make_nats_server, api, tmp_path, monkeypatch)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_task_finds_no_login(
    way: Callable[[Path], Way],
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await require_no_login(way, make_nats_server, api, tmp_path, monkeypatch)


async def require_no_login(
    way: Callable[[Path], Way],
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = way(tmp_path)
    server = make_nats_server(config=chosen.server)
    settings = settings_for(server.url, remote_base_log_folder="nats://", **chosen.admin)
    worker = settings_for(server.url.replace("://", f"://{chosen.login}"))
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])

    async with cell_of(tmp_path, monkeypatch, api, settings, worker, chosen) as cell:
        first, _ = await cell.pry()
        last, seen = await cell.pry()  # the supervisor has had a log stored before it

        require_nothing(seen, cell.worker, may_be_read=bool(chosen.file))
        for dispatch_id in (first, last):
            assert b"pry" in cell.written(dispatch_id)
            assert await cell.stored(dispatch_id) == cell.written(dispatch_id)


def require_nothing(
    seen: dict[str, Any], worker: WorkerProcess, *, may_be_read: bool = False
) -> None:
    """Fail unless the decoy alone was found, and those who log in are closed.

    Args:
        may_be_read: whether the login is in a file that the task can read: then it may be in what
            processes without a login have left of reading it.
    """
    places = [where for where in seen["found"]["login"] if not where.startswith("memory")]
    assert places == []
    assert may_be_read or seen["found"]["login"] == []
    assert {"environ", "environ of itself", "objects", "memory"} <= set(seen["found"]["decoy"])
    assert seen["doors"] == []
    for private in (worker.pid, uploader_of(worker)):
        assert {f"environ of {private}", f"memory of {private}"} <= set(seen["refused"])


async def test_a_callback_finds_no_login(
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = a_password(tmp_path)
    server = make_nats_server(config=way.server)
    settings = settings_for(server.url, remote_base_log_folder="nats://", **way.admin)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])
    (tmp_path / "prying.py").write_text(DAG.read_text())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    body = callback_body("prying.look_around")
    body["callback"]["data"]["kwargs"] = {"name": "callback"}

    async with cell_of(tmp_path, monkeypatch, api, settings, settings, way) as cell:
        await cell.post.send(body, body["callback"]["id"])
        await cell.post.reported(body["callback"]["id"], State.SUCCESS)

        require_nothing(json.loads((cell.home / "marks" / "callback").read_text()), cell.worker)


async def test_logs_of_a_shipped_users_tasks_are_stored(
    user_stage: UserStage, api: ExecutionApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over one connection that does no more than the worker's user may."""
    settings = user_stage.settings(ROOT_USER, inbox_prefix=ROOT_INBOX)
    worker = user_stage.settings("worker_a")
    options = {
        "user": "worker_a",
        "password": PASSWORD,
        "jetstream_domain": worker.jetstream_domain or "",
        "replicas": worker.replicas,
    }
    way = Way(new_secret(), "", options, {})

    async with cell_of(tmp_path, monkeypatch, api, settings, worker, way, "-q", "a") as cell:
        cell.queue = "a"
        ids = [(await cell.pry())[0] for _ in range(2)]

        for dispatch_id in ids:
            assert await cell.stored(dispatch_id) == cell.written(dispatch_id) != b""


async def test_a_log_is_stored_although_the_worker_has_died(
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The uploader outlives it by the farewell of its supervisors, and no longer."""
    way = a_password(tmp_path)
    server = make_nats_server(config=way.server)
    settings = settings_for(server.url, remote_base_log_folder="nats://", **way.admin)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])

    async with cell_of(tmp_path, monkeypatch, api, settings, settings, way) as cell:
        uploader = uploader_of(cell.worker)
        waiting = await cell.send("wait")
        mark = cell.home / "marks" / waiting
        await wait_until(mark.exists, 30, "the task")

        cell.worker.tell(signal.SIGKILL)

        await wait_until(lambda: not is_alive(uploader), 30, "the end of the uploader")
        assert b"the first words" in await cell.stored(waiting) == cell.written(waiting)


async def test_another_uploader_takes_the_place_of_one_that_died(
    make_nats_server: MakeNatsServer,
    api: ExecutionApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = a_password(tmp_path)
    server = make_nats_server(config=way.server)
    settings = settings_for(server.url, remote_base_log_folder="nats://", **way.admin)
    async with connect(settings, role="test") as broker:
        await broker.ready(5)
        await setup.apply(broker, settings, ["default"])

    async with cell_of(tmp_path, monkeypatch, api, settings, settings, way) as cell:
        os.kill(uploader_of(cell.worker), signal.SIGKILL)

        dispatch_id, _ = await cell.pry()

        assert await cell.stored(dispatch_id) == cell.written(dispatch_id) != b""
        assert "the uploader of task logs was killed by SIGKILL; next: another" in cell.worker.text
        # One that is told to stop has work to do until its worker is gone.
        last = uploader_of(cell.worker)
        cell.worker.tell(signal.SIGTERM)
        await cell.worker.ended()
        assert not is_alive(last)


def uploader_of(worker: WorkerProcess) -> int:
    (found,) = (pid for pid in descendants(worker.pid) if title(pid) == "airflow nats worker: logs")
    return found


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
