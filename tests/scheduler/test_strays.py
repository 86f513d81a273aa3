"""What a message in a queue tells of its task, and which messages are left alone."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from nats_executor.broker.port import Stored
from nats_executor.scheduler import strays
from nats_executor.scheduler.ledger import Dispatch
from nats_executor.wire.messages import Kind, Workload, encode
from tests.support.fixtures import settings_for

MESSAGE = Workload(
    dispatch_id="d", queue="gpu", kind=Kind.TASK, key=[], sender="s",
    body={"ti": {"id": str(uuid.UUID(int=5))}},
)  # fmt: skip


def stored(workload: Workload | bytes, subject: str = "airflow.tasks.gpu.d") -> Stored:
    return Stored(subject, 1, workload if isinstance(workload, bytes) else encode(workload), 100.0)


def changed(**fields: Any) -> Workload:
    return Workload(**({name: getattr(MESSAGE, name) for name in MESSAGE.__slots__} | fields))


def test_a_task_s_message_is_read() -> None:
    settings = settings_for("nats://x")

    stray = strays.stray_of(stored(MESSAGE), settings, before=100.5)

    assert stray == Dispatch("d", "d", "gpu", Kind.TASK, str(uuid.UUID(int=5)), 0)


def test_a_message_in_a_band_is_read() -> None:
    settings = settings_for("nats://x", priority_bands="10")

    stray = strays.stray_of(stored(MESSAGE, "airflow.tasks.gpu--b1.d"), settings, before=100.5)

    assert stray
    assert stray.band == 1


@pytest.mark.parametrize(
    "message",
    [
        stored(changed(kind=Kind.CALLBACK)),
        stored(changed(kind="Newer")),
        stored(changed(body={})),
        stored(changed(body={"ti": "text"})),
        stored(changed(body={"ti": {"id": "no uuid"}})),
        stored(changed(body={"ti": {"id": 5}})),
        stored(changed(queue="other")),
        stored(changed(dispatch_id="other")),
        stored(MESSAGE, "airflow.tasks.gpu--b9.d"),
        stored(b"\xc1"),
    ],
)
def test_any_other_message_is_left_alone(message: Stored) -> None:
    assert strays.stray_of(message, settings_for("nats://x"), before=100.5) is None


def test_a_young_message_is_left_alone() -> None:
    assert strays.stray_of(stored(MESSAGE), settings_for("nats://x"), before=100.0) is None
