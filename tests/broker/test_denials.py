"""The command that a line about a missing permission names is the one that prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.accounts import DOMAIN
from nats_executor.broker.denials import Denials
from tests.remedies.lines import LINES
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from nats_executor.errors import AccessDenied

SUBJECT = "airflow.results.gpu.d1"


@pytest.mark.parametrize(
    ("domain", "command"),
    [
        (None, "airflow nats auth --user worker-gpu --role worker --queues QUEUES"),
        ("hub", "airflow nats auth --user worker-gpu --role worker --queues QUEUES"),
        (DOMAIN, "airflow nats accounts worker-gpu=QUEUES"),
    ],
)
def test_a_worker_is_told_what_prints_its_permissions(domain: str | None, command: str) -> None:
    """One with an account of its own has to be lent the subject as well."""
    login: dict[str, Any] = {"user": "worker-gpu", "password": "secret", "jetstream_domain": domain}
    denials = Denials(settings_for("nats://127.0.0.1:4222", **login), "worker w1")
    told: list[AccessDenied] = []

    text = f'nats: permissions violation for publish to "{SUBJECT}"'
    assert denials.tell(text, [(SUBJECT, told.append)])

    (line,) = map(str, told)
    assert f"to publish to airflow.results.gpu.*: put what `{command}` prints" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("triggerer", "triggerer"),
        ("red-triggerer", "triggerer"),
        ("worker-triggerer", "worker --queues QUEUES"),  # of a queue of that name
        ("red-worker-triggerer", "worker --queues QUEUES"),
        ("strangetriggerer", "worker --queues QUEUES"),
    ],
)
def test_who_stores_logs_is_told_by_the_user(user: str, role: str) -> None:
    login = settings_for("nats://127.0.0.1:4222", user=user, password="secret")
    denials = Denials(login, "task log")
    told: list[AccessDenied] = []

    denials.tell(
        f'nats: permissions violation for publish to "{SUBJECT}"', [(SUBJECT, told.append)]
    )

    assert f"`airflow nats auth --user {user} --role {role}` prints" in str(told[0])


def test_messages_that_a_client_drops_are_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    denials = Denials(settings_for("nats://127.0.0.1:4222"), "scheduler")

    for _ in range(3):
        assert not denials.tell("nats: slow consumer, messages dropped subject: x", [])

    assert caplog.messages == [LINES["dropped"].format(part="scheduler")]
