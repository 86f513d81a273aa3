"""Accounts for each worker user, on real servers.

`test_roles.py` runs the product in such accounts, `test_permission_attacks.py` attacks them, and
the broker's contract is played from a borrowing account, too.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from nats_executor.access import accounts
from nats_executor.wire.names import in_domain
from tests.contract.test_permissions import PUBLISHED, state
from tests.support.nats_server import NatsServer, nats_cluster, server_binary, start_together
from tests.support.user_stage import NAMES, QUEUES, ROOT_USER, UserStage, accounts_config, secret
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.fixtures import MakeNatsServer
    from tests.support.raw_nats import RawClient

pytestmark = pytest.mark.integration

STREAM = NAMES.tasks_stream
API = f"$JS.{accounts.DOMAIN}.API"
INBOX = "_INBOX_worker_a.x"


def filled(server: NatsServer) -> UserStage:
    user_stage = UserStage(server, has_accounts=True)
    user_stage.set_up()
    for queue in QUEUES:
        user_stage.send(queue)
    return user_stage


def test_accounts_alone_let_nothing_out_that_a_worker_does_not_need(
    make_nats_server: MakeNatsServer,
) -> None:
    """Here with users that may do anything in them: permissions are a second line of defence."""
    user_stage = filled(make_nats_server(config=accounts_config(is_open=True)))
    before = state(user_stage)
    with user_stage.raw("worker_a") as worker, user_stage.raw(ROOT_USER) as root:
        assert root.subscribe(">") == ""
        for subject in PUBLISHED:
            # As it is called everywhere else, and as it is called here.
            local = in_domain(subject, accounts.DOMAIN)
            for name in {subject, subject.replace("$JS.API", API), local}:
                assert worker.publish(name, b"{") == ""
        root.settle()
        seen = {m.subject for m in root.arrived if not m.subject.startswith("$JS.EVENT.")}

    granted = {subject for subject, who in PUBLISHED.items() if "worker_a" in who}
    assert seen == granted - {"airflow.peers.w"} | {"airflow.ctl.w.ping"}
    stored = dict.fromkeys(
        [NAMES.results_stream, NAMES.dead_letters_stream, NAMES.workers_stream], 1
    )
    stored[NAMES.logs_stream] = len([subject for subject in granted if subject.startswith("$O.")])
    for (name, config, messages, consumers), old in zip(state(user_stage), before, strict=True):
        assert (name, config, consumers) == (old[0], old[1], old[3])
        assert messages == old[2] + stored.get(name, 0)


def test_nothing_arrives_in_an_account_that_is_not_for_its_workers(
    make_nats_server: MakeNatsServer,
) -> None:
    """Except questions to workers, as only they know which account they are in."""
    user_stage = filled(make_nats_server(config=accounts_config(is_open=True)))
    with (
        user_stage.raw("worker_a") as a,
        user_stage.raw("worker_b") as b,
        user_stage.raw("scheduler") as scheduler,
    ):
        a.subscribe(">")
        b.subscribe("_INBOX_worker_b.>")
        b.subscribe("airflow.ctl.b1.*")
        pull = f"{API}.CONSUMER.MSG.NEXT.{STREAM}.b"
        delivery = b.ask(pull, b'{"batch": 1, "no_wait": true}', "_INBOX_worker_b.x")
        assert delivery.body == secret("b")
        b.ask("airflow.results.b.d1", b"report", "_INBOX_worker_b.x")
        b.ask(delivery.reply, b"+ACK", "_INBOX_worker_b.x")
        scheduler.publish("airflow.ctl.b1.stop", b"d1", "_INBOX_scheduler.x")
        assert b.next().body == b"d1"
        a.settle()

        assert [message.subject for message in a.arrived] == ["airflow.ctl.b1.stop"]


def is_taken(directory: Path, config: str) -> str:
    """Ask a server about a configuration; '' if there is nothing against it."""
    path = directory / "asked.conf"
    path.write_text(f'jetstream {{ store_dir: "{directory}/storage" }}\n{config}')
    asked = [server_binary(), "-t", "-c", str(path)]
    done = subprocess.run(asked, capture_output=True, check=False, text=True)
    return "" if done.returncode == 0 else done.stderr


def test_a_server_takes_the_accounts_in_whatever_order_it_reads_them(tmp_path: Path) -> None:
    """Which is another one each time."""
    assert {is_taken(tmp_path, accounts_config()) for _ in range(20)} == {""}


def test_why_pings_among_workers_make_a_detour(tmp_path: Path) -> None:
    config = accounts_config()
    direct = config.replace(
        'account: "AIRFLOW_PEERS", subject: "airflow.peers.*" }',
        'account: "AIRFLOW", subject: "airflow.ctl.*.ping" }, to: "airflow.peers.*"',
    ).replace('accounts: ["AIRFLOW_PEERS"]', "accounts: [AIRFLOW_PEERS, worker_a, worker_b]")
    assert direct != config

    block_until(lambda: "import forms a cycle" in is_taken(tmp_path, direct), 20, "a cycle")


def test_why_workers_reach_jetstream_under_a_name_of_its_own(
    make_nats_server: MakeNatsServer,
) -> None:
    """Under its usual one they get a second answer, which may be the first to come."""
    config = accounts_config(is_open=True).replace(API, "$JS.API")
    user_stage = filled(make_nats_server(config=config))
    question = f"$JS.API.STREAM.INFO.{NAMES.results_stream}"
    with user_stage.raw("worker_a") as worker:
        worker.subscribe("_INBOX_worker_a.>")
        answers = [worker.ask(question, b"", INBOX).answer, worker.next().answer]

    errors = [answer["error"]["err_code"] for answer in answers if "error" in answer]
    assert errors == [10039]  # JetStream not enabled for account


def test_an_empty_message_ends_a_pull_from_another_account(
    make_nats_server: MakeNatsServer,
) -> None:
    """To a server it is the end of the answers; what follows is offered again after `ack_wait`.

    No workload is empty, and a worker buries what is none.
    """
    user_stage = filled(make_nats_server(config=accounts_config()))
    with user_stage.raw("scheduler") as scheduler, user_stage.raw("worker_a") as worker:
        scheduler.subscribe("_INBOX_scheduler.>")
        for number, body in enumerate((b"", b"after it"), start=2):
            scheduler.ask(NAMES.task("a", f"d{number}"), body, "_INBOX_scheduler.x")
        worker.subscribe("_INBOX_worker_a.>")
        pull = f"{API}.CONSUMER.MSG.NEXT.{STREAM}.a"
        bodies = [worker.ask(pull, b'{"batch": 3, "no_wait": true}', INBOX).body]
        bodies.append(worker.next().body)
        worker.settle()

    assert bodies == [secret("a"), b""]
    assert worker.arrived == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[NatsServer]]:
    servers = nats_cluster(tmp_path_factory.mktemp("cluster"), config=accounts_config())
    try:
        start_together(servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


def test_a_task_that_goes_to_a_worker_that_is_gone_comes_again(
    cluster: Sequence[NatsServer],
) -> None:
    """In a cluster, a server keeps a pull from another account until it expires.

    In the account itself it would see that no worker listens any more.
    """
    with UserStage(cluster[0]).raw(ROOT_USER) as root:
        root.subscribe("_INBOX_root.>")
        create_queue(root)
        for number, server in enumerate(cluster):
            user_stage = UserStage(server, has_accounts=True)
            with user_stage.raw("worker_a") as gone:
                pull(gone, f"gone{number}", seconds=10)
            with user_stage.raw("worker_a") as worker:
                inbox = pull(worker, f"here{number}", seconds=30)
                body = f"t{number}".encode()
                root.ask(NAMES.task("a", f"d{number}"), body, "_INBOX_root.x")
                delivery = worker.next()

                assert delivery.body == body
                worker.ask(delivery.reply, b"+ACK", inbox)


def pull(client: RawClient, name: str, *, seconds: int) -> str:
    """Ask for a message to come to an inbox of one's own, which is returned."""
    inbox = f"_INBOX_worker_a.{name}"
    client.subscribe(inbox)
    request = json.dumps({"batch": 1, "expires": seconds * 1_000_000_000}).encode()
    assert client.publish(f"{API}.CONSUMER.MSG.NEXT.{STREAM}.a", request, inbox) == ""
    return inbox


def create_queue(root: RawClient) -> None:
    """Create the stream and a queue, as soon as the cluster can."""
    stream = {
        "name": STREAM, "subjects": [NAMES.tasks()], "retention": "workqueue", "num_replicas": 3,
    }  # fmt: skip
    config = {
        "durable_name": "a", "filter_subject": "airflow.tasks.a.*", "ack_policy": "explicit",
        "ack_wait": 1_000_000_000,
    }  # fmt: skip
    calls = {
        f"$JS.API.STREAM.CREATE.{STREAM}": stream,
        f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.a": {"stream_name": STREAM, "config": config},
    }
    for subject, body in calls.items():
        request = json.dumps(body).encode()

        def is_done(subject: str = subject, request: bytes = request) -> bool:
            return "error" not in root.ask(subject, request, "_INBOX_root.x").answer

        block_until(is_done, 20, subject)
