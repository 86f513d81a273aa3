"""The permissions of each role, and the forms in which they are written down."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from nats_executor.access.permissions import Permissions, Role, as_claims, as_config, permissions
from nats_executor.errors import ConfigError
from nats_executor.wire.names import Names, token
from tests.support.fixtures import settings_for
from tests.support.nkeys import NKey

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = Names()
ODD = ("größe", "a.b", "*", ">", "a b", "x" * 200)
# All of a subject's characters: neither quotes nor blanks nor anything that a server would read
# as something else.
SUBJECT = re.compile(r"[A-Za-z0-9_$-]+(\.([A-Za-z0-9_$-]+|\*))*(\.>)?")


def worker(*queues: str, domain: str | None = None, **options: Any) -> Permissions:
    settings = settings_for("nats://127.0.0.1:4222", **options)
    lanes = [lane for queue in queues for lane in settings.lanes(queue)]
    return permissions(Role.WORKER, settings.names, "_INBOX_w", lanes=lanes, domain=domain)


def pulled(granted: Permissions) -> set[str]:
    """The consumers that a worker may pull from."""
    start = "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS."
    return {subject.removeprefix(start) for subject in granted.publish if start in subject}


def tokens(subjects: Iterable[str]) -> set[str]:
    return {piece for subject in subjects for piece in subject.split(".")}


def test_a_worker_gets_every_band_of_its_queues() -> None:
    assert pulled(worker("a", "b")) == {"a", "a--b1", "a--b2", "b", "b--b1", "b--b2"}


def test_a_limited_queue_has_one_band() -> None:
    assert pulled(worker("a", "b", queue_limits="a=3")) == {"a", "b", "b--b1", "b--b2"}


def test_without_priority_bands_a_queue_has_one() -> None:
    assert pulled(worker("a", priority_bands="none")) == {"a"}


@pytest.mark.parametrize("queue", ODD)
def test_a_queues_name_of_any_text_opens_nothing_else(queue: str) -> None:
    granted = worker(queue)

    assert pulled(granted) == {token(queue) + band for band in ("", "--b1", "--b2")}
    assert all(SUBJECT.fullmatch(subject) for subject in granted.publish)
    added = tokens(granted.publish) - tokens(worker("a").publish)
    assert added == {token(queue) + band for band in ("", "--b1", "--b2")}


@pytest.mark.parametrize("role", Role)
def test_no_role_gets_a_whole_branch_of_the_api(role: Role) -> None:
    granted = permissions(role, NAMES, "_INBOX_x", lanes=settings_lanes())

    wide = [s for s in granted.publish if s.endswith(">") and s.count(".") < 2]
    assert wide == []
    # How full the account is concerns no stream.
    api = {s for s in granted.publish if s.startswith("$JS.API")} - {"$JS.API.INFO"}
    assert not [s for s in api if "AIRFLOW" not in s
                and "KV_airflow" not in s and "OBJ_airflow" not in s]  # fmt: skip
    assert granted.subscribe[0] == "_INBOX_x.>"
    heard = {Role.WORKER: 2, Role.SITE: 2, Role.SCHEDULER: 1}
    assert len(granted.subscribe) == 1 + heard.get(role, 0)
    assert granted.answers is (role in {Role.WORKER, Role.SCHEDULER})


def settings_lanes() -> list[Any]:
    return settings_for("nats://127.0.0.1:4222").lanes("a")


def test_names_of_another_prefix_are_others() -> None:
    granted = worker("a", subject_prefix="other")

    used = [s for s in (*granted.publish, *granted.subscribe) if "airflow" in s.lower()]
    assert used == []
    assert "other.results.a.*" in granted.publish


def test_a_domain_is_in_the_api_and_not_in_acks() -> None:
    granted = worker("a", domain="hub")

    assert not [s for s in granted.publish if s.startswith("$JS.API")]
    assert "$JS.hub.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a" in granted.publish
    assert "$JS.ACK.AIRFLOW_TASKS.a.*.*.*.*.*" in granted.publish


def test_presence_in_a_domain_has_another_address() -> None:
    """A leaf node lets no `$KV` subject through."""
    granted = worker("a", domain="hub")

    assert "$JS.hub.API.$KV.airflow_workers.a.*" in granted.publish
    assert not [s for s in granted.publish if s.startswith("$KV")]
    assert "$KV.airflow_workers.a.*" in worker("a").publish


def test_a_site_may_do_what_its_workers_do_and_answer_who_asks_them() -> None:
    lanes = settings_lanes()
    granted = permissions(Role.SITE, NAMES, "_INBOX_s", lanes=lanes, domain="hub")
    of_worker = permissions(Role.WORKER, NAMES, "_INBOX_s", lanes=lanes, domain="hub")

    more = set(granted.publish) - set(of_worker.publish)
    assert set(of_worker.publish) <= set(granted.publish)
    assert granted.subscribe == of_worker.subscribe
    assert more == {"$KV.airflow_workers.a.*"} | {
        f"_INBOX_{user}.*.*"
        for user in ("admin", "operator", "scheduler", "api-server", "worker-a")
    }


@pytest.mark.parametrize(
    "inbox", ["", ">", "*", "_INBOX.>", "_INBOX.*", "a b", "$JS", "airflow", "airflow.tasks", "a."]
)
def test_an_inbox_that_shows_more_than_answers_is_refused(inbox: str) -> None:
    with pytest.raises(ConfigError, match="inbox prefix"):
        permissions(Role.MONITOR, NAMES, inbox)


def test_a_block_for_a_server() -> None:
    text = as_config("worker-gpu", Permissions(("a.*", "b"), ("_INBOX_w.>",), answers=True))

    assert text == (
        '{\n  user: "worker-gpu"\n  password: $NATS_PASSWORD_WORKER_GPU\n  permissions {\n'
        '    publish: { allow: [\n      "a.*"\n      "b"\n    ] }\n'
        '    subscribe: { allow: [\n      "_INBOX_w.>"\n    ] }\n'
        '    allow_responses: { max: 1, expires: "60s" }\n  }\n}'
    )


def test_the_block_of_an_nkey_has_no_password() -> None:
    key = NKey().public

    text = as_config(key, Permissions((), ()))

    assert f"  nkey: {key}\n" in text
    assert "password" not in text
    assert "user" not in text
    assert "allow_responses" not in text


def test_the_block_of_a_certificate_has_no_password() -> None:
    text = as_config("CN=größe", Permissions((), ()), has_certificate=True)

    assert '  user: "CN=größe"\n' in text
    assert "password" not in text


def test_claims_are_those_of_a_jwt() -> None:
    granted = Permissions(("a.*",), ("_INBOX_w.>",), answers=True)

    assert json.loads(json.dumps(as_claims(granted))) == {
        "pub": {"allow": ["a.*"]},
        "sub": {"allow": ["_INBOX_w.>"]},
        "resp": {"max": 1, "ttl": 60_000_000_000},
    }
    assert "resp" not in as_claims(Permissions((), ()))
