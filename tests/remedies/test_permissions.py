"""A user that lacks exactly one permission: where NATS only keeps silent, it is named."""

from __future__ import annotations

import dataclasses
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from nats_executor.access.permissions import Role, as_config, permissions
from nats_executor.broker.denials import permission
from nats_executor.cli import commands
from nats_executor.wire.messages import Kind, Workload, encode
from nats_executor.wire.names import Lane
from tests.remedies.lines import LINES
from tests.support.execution_api import Answer
from tests.support.nats_server import NatsServer
from tests.support.process_stage import task_body
from tests.support.user_stage import NAMES, PASSWORD, User, UserStage, grants, one_account_config
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nats_executor.broker.port import Broker
    from tests.remedies.stage import RemedyStage
    from tests.support.execution_api import ExecutionApi

LANE = Lane("a")
TASKS, RESULTS = NAMES.tasks_stream, NAMES.results_stream
ACKS = f"$JS.ACK.{TASKS}.a.*.*.*.*.*"


class Lack(NamedTuple):
    """One permission that a user lacks, and how the line names it."""

    of: User
    granted: str
    named: str
    verb: str = "publish"


def worker(name: str) -> User:
    return User(name, Role.WORKER, ("a",))


WORKERS = {
    "pull": Lack(
        worker("pulls"), f"$JS.API.CONSUMER.MSG.NEXT.{TASKS}.a",
        f"publish to $JS.API.CONSUMER.MSG.NEXT.{TASKS}.a",
    ),
    "ack": Lack(worker("acks"), ACKS, f"publish to $JS.ACK.{TASKS}.a.>"),
    "result": Lack(worker("reports"), NAMES.results("a"), "publish to airflow.results.a.*"),
    "presence": Lack(
        worker("beats"), NAMES.presences("a"), "publish to $KV.airflow_workers.a.*"
    ),
    "direct get": Lack(
        worker("looks"), f"$JS.API.DIRECT.GET.{RESULTS}.{NAMES.results('a')}",
        f"publish to $JS.API.DIRECT.GET.{RESULTS}.airflow.results.a.*",
    ),
    "inbox": Lack(
        worker("hears"), "_INBOX_hears.>", "subscribe to _INBOX_hears.>", "subscribe"
    ),
    "control": Lack(
        worker("obeys"), NAMES.controls(), "subscribe to airflow.ctl.*.*", "subscribe"
    ),
}  # fmt: skip
SENDER = Lack(User("sends", Role.SCHEDULER), NAMES.tasks(), "publish to airflow.tasks.a.*")
COUNTER = Lack(
    User("counts", Role.MONITOR), f"$JS.API.CONSUMER.LIST.{TASKS}",
    f"publish to $JS.API.CONSUMER.LIST.{TASKS}",
)  # fmt: skip
LACKS = [*WORKERS.values(), SENDER, COUNTER]
# A worker's start takes seconds.
QUICK = {"pull", "presence", "inbox"}
FOR_WORKERS = [
    pytest.param(what, marks=[] if what in QUICK else pytest.mark.slow) for what in WORKERS
]
# What has to wait in the queue for a permission to be missed. To what is delivered, a worker may
# give one answer in any case (`allow_responses`); it is the second one, of a task that runs, that
# needs the permission to ack.
WITH_A_WORKLOAD = {"ack", "result", "direct get"}


def block(lack: Lack) -> str:
    """Write a user with all that its role has, but one permission."""
    full = grants(lack.of)
    kept = tuple(s for s in getattr(full, lack.verb) if s != lack.granted)
    assert len(kept) == len(getattr(full, lack.verb)) - 1
    changes: dict[str, Any] = {lack.verb: kept}
    left = dataclasses.replace(full, **changes)
    return as_config(lack.of.name, left)


def config(*lacks: Lack) -> str:
    """Add those users to the ones that lack nothing."""
    whole = [as_config(lack.of.name, grants(lack.of)) for lack in LACKS if lack not in lacks]
    blocks = [*map(block, lacks), *whole]
    passwords = "".join(f'NATS_PASSWORD_{lack.of.name.upper()}: "{PASSWORD}"\n' for lack in LACKS)
    text = one_account_config()
    return passwords + text.replace("users: [\n", "users: [\n" + ",\n".join(blocks) + ",\n")


def line_of(lack: Lack) -> str:
    command = f"airflow nats auth --user {lack.of.name} --role {lack.of.role}"
    if lack.of.role is Role.WORKER:
        command += " --queues QUEUES"
    return LINES["permission"].format(user=lack.of.name, permission=lack.named, command=command)


@pytest.fixture(scope="module")
def user_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserStage]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), config=config(*LACKS))
    try:
        user_stage = UserStage(server.start())
        user_stage.set_up(ack_wait_seconds=1)
        yield user_stage
    finally:
        server.kill()


def seen_as(
    open_remedy_stage: Callable[..., RemedyStage], user_stage: UserStage, lack: Lack
) -> RemedyStage:
    return open_remedy_stage(user_stage.server.url, user=lack.of.name, password=PASSWORD)


def offer(user_stage: UserStage, api: ExecutionApi) -> None:
    """Put a workload into the queue that Airflow's API server is too busy to start."""
    instance = str(uuid.uuid4())
    api.script(instance, "run", Answer(503))
    workload = Workload(
        dispatch_id="d1", queue="a", kind=Kind.TASK, body=task_body("quick", instance),
        key=["d1"], sender="test",
    )  # fmt: skip
    body = encode(workload)
    user_stage.ask("root", lambda broker: broker.publish(NAMES.task("a", "d1"), body))


@pytest.fixture
def emptied(user_stage: UserStage) -> Iterator[None]:
    """Leave nothing for the next worker, who may lack something else."""
    yield

    async def remove(broker: Broker) -> None:
        await broker.remove(TASKS, NAMES.task("a", "d1"))
        await broker.remove(RESULTS, NAMES.result("a", "d1"))

    user_stage.ask("root", remove)


@pytest.mark.integration
@pytest.mark.parametrize("what", FOR_WORKERS)
@pytest.mark.usefixtures("emptied")
def test_a_worker_names_the_permission_that_it_lacks_once_and_is_not_ready(
    what: str,
    user_stage: UserStage,
    open_remedy_stage: Callable[..., RemedyStage],
    api: ExecutionApi,
) -> None:
    lack = WORKERS[what]
    seen, line = seen_as(open_remedy_stage, user_stage, lack), line_of(lack)
    if what in WITH_A_WORKLOAD:
        offer(user_stage, api)

    with seen.worker("-q", "a", drain_seconds=0, kill_seconds=0.5) as worker:
        seen.said(worker, line)
        block_until(lambda: not seen.is_ready(), 30, "its readiness to end")
        denials = denied(user_stage)
        block_until(lambda: denied(user_stage) > denials + 2, 30, "more attempts")

        assert worker.text.count(line) == 1
        assert f"{line}; next: trying again until it is allowed" in worker.text
        assert worker.text.count("NATS does not allow") == 1
        assert PASSWORD not in worker.text


def denied(user_stage: UserStage) -> int:
    return user_stage.server.log.count("Violation")


@pytest.mark.integration
def test_a_worker_goes_on_once_it_is_allowed(
    tmp_path: Path, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    lack = WORKERS["presence"]
    server = NatsServer(tmp_path / "nats", config=config(lack))
    try:
        user_stage = UserStage(server.start())
        user_stage.set_up()
        seen = seen_as(open_remedy_stage, user_stage, lack)
        with seen.worker("-q", "a") as worker:
            seen.said(worker, line_of(lack))
            server.config = config()
            server.restart()

            block_until(seen.is_ready, 60, "its readiness")
            assert worker.text.count(line_of(lack)) == 1
    finally:
        server.kill()


@pytest.mark.integration
def test_a_scheduler_names_the_permission_that_it_lacks(
    user_stage: UserStage, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = seen_as(open_remedy_stage, user_stage, SENDER)

    with seen.scheduler() as executor:
        seen.scheduler_says(executor, line_of(SENDER))

    assert seen.logged(f"NATS denies access: {line_of(SENDER)}; next: 1 workload left in the queue")


@pytest.mark.integration
def test_commands_name_the_permission_that_their_user_lacks(
    user_stage: UserStage, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """They can only tell of themselves: NATS does not say what another user may do."""
    seen = seen_as(open_remedy_stage, user_stage, COUNTER)
    asking = (commands.check, commands.queues_list, commands.workers_list)

    assert {seen.refused(command) for command in asking} == {line_of(COUNTER)}


@pytest.mark.integration
def test_a_monitor_lacks_nothing_that_check_needs_and_is_told_whose_setup_is(
    user_stage: UserStage, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    seen = open_remedy_stage(
        user_stage.server.url, user="monitor", password=PASSWORD, result_retention_seconds=7
    )

    code, _ = seen.console.run(commands.check, output="json")
    assert (code, seen.console.error) == (1, "")
    assert seen.refused(commands.setup) == (
        f"NATS does not allow user monitor to publish to $JS.API.STREAM.UPDATE.{RESULTS}: put what "
        "`airflow nats auth --user monitor --role admin` prints into the servers' configuration"
    )


@pytest.mark.integration
def test_a_monitor_is_told_that_a_purge_and_an_order_are_an_operators(
    user_stage: UserStage, open_remedy_stage: Callable[..., RemedyStage]
) -> None:
    """Not an admin's, who could read every workload."""
    seen = open_remedy_stage(user_stage.server.url, user="monitor", password=PASSWORD)
    line = (
        f"NATS does not allow user monitor to publish to $JS.API.STREAM.PURGE.{RESULTS}: put what "
        "`airflow nats auth --user monitor --role operator` prints into the servers' configuration"
    )

    code, output = seen.console.run(commands.purge, store="results", queue=None, yes=True)

    assert (code, output) == (2, "")
    assert seen.console.error.splitlines()[-1] == f"error: {line}"


# Which permission a subject belongs to


@pytest.mark.parametrize("role", [*Role])
def test_every_subject_that_a_role_uses_is_named_as_a_permission_of_it(role: Role) -> None:
    """What is named is what `airflow nats auth` prints, or the part of it that is missed."""
    granted = permissions(role, NAMES, "_INBOX_u", lanes=[LANE])

    for pattern in granted.publish:
        subject = pattern.replace("*", "x").replace(">", "x.x")
        named = permission(subject, NAMES, "_INBOX_u")
        assert covers(named, subject), (pattern, named)
    for pattern in granted.subscribe:
        subject = pattern.replace("*", "x").replace(">", "x")
        assert permission(subject, NAMES, "_INBOX_u", is_subscription=True) == pattern


def covers(pattern: str, narrower: str) -> bool:
    wanted, found = pattern.split("."), narrower.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(found) > place
        if place >= len(found) or token not in {"*", found[place]}:
            return False
    return len(wanted) == len(found)


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        ("airflow.tasks.gpu--b1.d1", "airflow.tasks.gpu--b1.*"),
        ("airflow.results.gpu.d1", "airflow.results.gpu.*"),
        ("airflow.ctl.w1-ab.ping", "airflow.ctl.*.ping"),
        ("airflow.schedulers.7.state", "airflow.schedulers.*.state"),
        ("$KV.airflow_holds.history.gpu", "$KV.airflow_holds.history.*"),
        (f"$JS.ACK.{TASKS}.gpu.1.5.7.1700000000.0", f"$JS.ACK.{TASKS}.gpu.>"),
        (f"$JS.ACK.hub.hash.{TASKS}.gpu.1.5.7.1700000000.0.x", f"$JS.ACK.hub.hash.{TASKS}.gpu.>"),
        (f"$JS.API.CONSUMER.CREATE.{TASKS}.gpu.airflow.tasks.gpu.*",
         f"$JS.API.CONSUMER.CREATE.{TASKS}.>"),
        (f"$JS.hub.API.STREAM.INFO.{TASKS}", f"$JS.hub.API.STREAM.INFO.{TASKS}"),
        ("$JS.lent.API.$KV.airflow_workers.a.w1-ab", "$JS.lent.API.$KV.airflow_workers.a.*"),
        ("airflow.peers.w1-ab", "airflow.peers.*"),
        ("$O.airflow_logs.C.gpu.path--1.part.0", "$O.airflow_logs.C.gpu.>"),
        ("$O.airflow_logs.M.bmFtZQ==", "$O.airflow_logs.M.>"),
        ("_INBOX_u.1234.*", "_INBOX_u.>"),
        ("somebody.elses", "somebody.elses"),
    ],
)  # fmt: skip
def test_the_permission_of_a_subject(subject: str, named: str) -> None:
    assert permission(subject, NAMES, "_INBOX_u") == named
