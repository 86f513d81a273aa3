"""`airflow nats auth`: what it prints, from settings alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.permissions import Role
from nats_executor.cli import commands
from nats_executor.cli.access_definitions import ROLES
from tests.support.nkeys import NKey

if TYPE_CHECKING:
    from tests.cli.conftest import Console

pytestmark = pytest.mark.integration


def printed(console: Console, user: str = "worker_gpu", **args: Any) -> str:
    """Run the command without any server, and return what it prints."""
    console.configure(servers="nats://127.0.0.1:1", subject_prefix="airflow")
    given = {
        "user": user, "role": "worker", "queues": "gpu", "inbox_prefix": None, "format": "config",
        "certificate": False,
    }  # fmt: skip
    code, output = console.run(commands.auth, **(given | args))
    assert (code, console.error) == (0, "")
    return output


def test_the_block_of_a_worker(console: Console) -> None:
    lines = printed(console).splitlines()

    assert lines[:4] == [
        "# for [nats_executor] inbox_prefix = _INBOX_worker_gpu",
        "{",
        '  user: "worker_gpu"',
        "  password: $NATS_PASSWORD_WORKER_GPU",
    ]
    for subject in (
        "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.gpu--b2",
        "airflow.results.gpu.*",
        "_INBOX_worker_gpu.>",
    ):
        assert f'      "{subject}"' in lines


@pytest.mark.parametrize("role", Role)
def test_every_role_has_a_block(console: Console, role: Role) -> None:
    output = printed(console, role=role.value)

    assert ("MSG.NEXT.AIRFLOW_TASKS" in output) == (role in {Role.WORKER, Role.SITE})
    assert '"_INBOX_worker_gpu.>"' in output


def test_a_block_follows_the_settings(console: Console) -> None:
    console.configure(priority_bands="none", jetstream_domain="hub")
    output = printed(console, queues="größe,b")

    assert '"$JS.hub.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.b"' in output
    assert "--b1" not in output
    assert "größe" not in output


def test_without_queues_it_is_airflows_default(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "standard")

    assert '"airflow.results.standard.*"' in printed(console, queues=None)


def test_an_nkey_and_an_inbox_of_ones_own(console: Console) -> None:
    key = NKey().public
    output = printed(console, key, inbox_prefix="_INBOX_gpu")

    assert f"  nkey: {key}\n" in output
    assert "password" not in output
    assert output.startswith("# for [nats_executor] inbox_prefix = _INBOX_gpu\n")
    assert '"_INBOX_gpu.>"' in output


def test_a_certificate(console: Console) -> None:
    output = printed(console, "CN=w", certificate=True)

    assert '  user: "CN=w"\n  permissions' in output


def test_claims_of_a_jwt(console: Console) -> None:
    claims = json.loads(printed(console, format="jwt"))

    assert set(claims) == {"pub", "sub", "resp"}
    assert "airflow.results.gpu.*" in claims["pub"]["allow"]


def test_an_inbox_prefix_that_would_show_everything_is_refused(console: Console) -> None:
    with pytest.raises(AssertionError, match="2"):
        printed(console, inbox_prefix=">")


def test_every_role_can_be_named() -> None:
    assert set(ROLES) == set(Role)
