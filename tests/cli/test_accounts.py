"""`airflow nats accounts`: what it prints, from settings alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.accounts import BESIDE
from nats_executor.cli import commands
from tests.support.nkeys import NKey

if TYPE_CHECKING:
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration


GIVEN = {"sites": None, "format": "config", "certificate": False}


def run(console: Console, *workers: str, **args: Any) -> tuple[int, str]:
    """Run the command without any server."""
    console.configure(servers="nats://127.0.0.1:1", subject_prefix="airflow")
    return console.run(commands.accounts, worker_users=list(workers), **(GIVEN | args))


def printed(console: Console, *workers: str, **args: Any) -> str:
    code, output = run(console, *workers, **args)
    assert (code, console.error) == (0, "")
    return output


def test_a_worker_of_several_queues_borrows_what_these_need(console: Console) -> None:
    main, beside = printed(console, "gpu=gpu", "ml=gpu,größe").split(BESIDE)

    pull = "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.gpu"
    assert f'{{ service: "{pull}", accounts: ["gpu", "ml"], response_type: Stream }}' in main
    assert '{ service: "airflow.results.gpu.*", accounts: ["gpu", "ml"] }' in main
    assert beside.count(f'{{ service: {{ account: "AIRFLOW", subject: "{pull}" }}, to: ') == 2
    assert 'user: "ml"' in beside
    assert "größe" not in main + beside
    for user in ("admin", "operator", "scheduler", "api-server", "monitor"):
        assert f'user: "{user}"' in main


def test_accounts_follow_the_settings(console: Console) -> None:
    console.configure(priority_bands="none")
    output = printed(console, "w=a")

    assert "--b1" not in output


def test_each_user_is_shown_with_its_settings(console: Console) -> None:
    _, beside = printed(console, "w=a").split(BESIDE)

    assert "# for [nats_executor] inbox_prefix = _INBOX_w\n" in beside
    assert "# and [nats_executor] jetstream_domain = lent\n" in beside


def test_a_worker_with_an_nkey_and_one_with_a_certificate(console: Console) -> None:
    key = NKey().public
    output = printed(console, f"{key}=a", "CN=w=b", certificate=True)

    assert f"  nkey: {key}\n" in output
    assert '"CN=w" {' in output
    assert "password" not in output


def test_claims_of_jwts(console: Console) -> None:
    found = json.loads(printed(console, "w=a", format="jwt"))

    assert set(found) == {"AIRFLOW", "AIRFLOW_PEERS", "w"}
    assert set(found["AIRFLOW"]["users"]) == {
        "admin",
        "operator",
        "scheduler",
        "api-server",
        "triggerer",
        "monitor",
    }
    lent = {export["subject"] for export in found["AIRFLOW"]["exports"]}
    borrowed = {i["subject"] for i in found["w"]["imports"] if i["account"] == "AIRFLOW"}
    assert borrowed == lent - {"airflow.ctl.*.ping"}


@pytest.mark.parametrize("words", ["gpu", "=gpu", "w=", "w=,"])
def test_a_worker_without_a_queue_is_refused(console: Console, words: str) -> None:
    assert run(console, words) == (2, "")
    assert f"error: '{words}': write USER=QUEUE or USER=QUEUE,QUEUE\n" in console.error


def test_no_two_have_one_name(console: Console) -> None:
    for workers in (["w=a", "w=b"], ["admin=a"], ["AIRFLOW=a"]):
        assert run(console, *workers) == (2, "")
        assert "two users or accounts would be called" in console.error


def test_streams_behind_a_leaf_node_are_refused(console: Console) -> None:
    console.configure(jetstream_domain="hub")

    assert run(console, "w=a") == (2, "")
    assert (
        "[nats_executor] jetstream_domain: accounts do not reach over leaf nodes" in console.error
    )


def test_the_user_of_a_site_is_in_airflow_s_own_account(console: Console) -> None:
    main, beside = printed(console, "gpu=gpu", sites=["site-muc=press,weld"]).split(BESIDE)

    assert 'user: "site-muc"' in main
    assert "airflow.tasks.press" in main.partition('user: "site-muc"')[2]
    assert "site-muc" not in beside
