"""The account of each worker user: what it lends and borrows, and how that is written down."""

from __future__ import annotations

import pytest

from nats_executor.access.accounts import (
    BESIDE,
    DOMAIN,
    Import,
    User,
    accounts_for,
    as_account_claims,
    as_accounts,
    everyone,
    import_line,
    member,
)
from nats_executor.access.permissions import Permissions, Role
from nats_executor.errors import ConfigError
from nats_executor.wire.names import Names
from tests.support.fixtures import settings_for

NAMES = Names()
PULL = "$JS.lent.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a"


def worker(name: str, *publish: str) -> User:
    return User(name, Role.WORKER, f"_INBOX_{name}", Permissions(publish, ("x",), answers=True))


MONITOR = User("monitor", Role.MONITOR, "_INBOX_monitor", Permissions(("m",), ("y",)))
USERS = [MONITOR, worker("w1", PULL, "both", "airflow.peers.*"), worker("w2", "both")]


def test_each_worker_user_has_an_account_that_borrows_what_it_publishes_on() -> None:
    main, relay, first, second = accounts_for(NAMES, USERS)

    assert [a.name for a in (main, relay, first, second)] == [
        "AIRFLOW",
        "AIRFLOW_PEERS",
        "w1",
        "w2",
    ]
    assert [a.users for a in (main, relay, first)] == [(MONITOR,), (), (USERS[1],)]
    assert [(e.subject, e.to, e.response_type) for e in main.exports] == [
        ("$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a", ("w1",), "Stream"),
        ("both", ("w1", "w2"), "Singleton"),
        ("airflow.ctl.*.ping", ("AIRFLOW_PEERS",), "Singleton"),
    ]
    assert [(i.account, i.subject, i.local) for i in main.imports] == [
        ("w1", "airflow.ctl.*.*", "airflow.ctl.*.*"),
        ("w2", "airflow.ctl.*.*", "airflow.ctl.*.*"),
    ]
    assert [(e.subject, e.to) for e in relay.exports] == [("airflow.peers.*", ("w1", "w2"))]
    assert [(i.account, i.subject, i.local) for i in relay.imports] == [
        ("AIRFLOW", "airflow.ctl.*.ping", "airflow.peers.*")
    ]
    assert [(e.subject, e.to) for e in first.exports] == [("airflow.ctl.*.*", ("AIRFLOW",))]
    assert [(i.account, i.subject, i.local) for i in first.imports] == [
        ("AIRFLOW", "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a", PULL),
        ("AIRFLOW", "both", "both"),
        ("AIRFLOW_PEERS", "airflow.peers.*", "airflow.peers.*"),
    ]


@pytest.mark.parametrize("name", ["AIRFLOW", "AIRFLOW_PEERS", "w1", "monitor"])
def test_two_accounts_of_one_name_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"would be called '{name}'"):
        accounts_for(NAMES, [*USERS, worker(name)])


def test_the_first_of_two_doubled_names_is_told() -> None:
    with pytest.raises(ConfigError, match="would be called 'w2'"):
        accounts_for(NAMES, [worker(name) for name in ("w2", "w1", "w1", "w2")])


@pytest.mark.parametrize("local", ["a", "z"])
def test_a_subject_of_another_name_here_is_written_with_it(local: str) -> None:
    line = import_line(Import("acc", "m", local))

    assert line == f'  {{ service: {{ account: "acc", subject: "m" }}, to: "{local}" }}'


def test_accounts_are_written_for_a_server() -> None:
    text = as_accounts(
        accounts_for(NAMES, [MONITOR, worker("w\u00fc", "$JS.lent.API.STREAM.INFO.S")])
    )

    inside, beside = text.split(f"{BESIDE}\n")
    expected = """\
# Inside of the account AIRFLOW, which has JetStream:
exports: [
  { service: "$JS.API.STREAM.INFO.S", accounts: ["w\u00fc"] }
  { service: "airflow.ctl.*.ping", accounts: ["AIRFLOW_PEERS"] }
]
imports: [
  { service: { account: "w\u00fc", subject: "airflow.ctl.*.*" } }
]
users: [
# for [nats_executor] inbox_prefix = _INBOX_monitor
{
  user: "monitor"
  password: $NATS_PASSWORD_MONITOR
"""
    assert inside.startswith(expected)
    assert 'subject: "airflow.ctl.*.ping" }, to: "airflow.peers.*" }' in beside
    assert "users:" not in beside.split('"w\u00fc" {')[0]
    assert "# and [nats_executor] jetstream_domain = lent\n" in beside
    assert "jetstream_domain" not in inside


def test_a_subject_with_many_answers_is_marked() -> None:
    text = as_accounts(accounts_for(NAMES, USERS))

    assert f'{PULL.replace("lent.", "")}", accounts: ["w1"], response_type: Stream }}' in text


def test_with_certificates_there_are_no_passwords() -> None:
    made = accounts_for(NAMES, USERS)

    assert "password" in as_accounts(made)
    assert "password" not in as_accounts(made, have_certificates=True)


def test_claims_hold_the_same() -> None:
    made = as_account_claims(accounts_for(NAMES, USERS))

    assert list(made) == ["AIRFLOW", "AIRFLOW_PEERS", "w1", "w2"]
    assert made["w1"]["imports"][0] == {
        "name": "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a",
        "subject": "$JS.API.CONSUMER.MSG.NEXT.AIRFLOW_TASKS.a",
        "account": "AIRFLOW",
        "local_subject": PULL,
        "type": "service",
    }
    assert made["AIRFLOW"]["exports"][0]["response_type"] == "Stream"
    assert set(made["AIRFLOW"]["users"]) == {"monitor"}


def test_only_pulls_and_lookups_of_several_get_many_answers() -> None:
    def kind(subject: str) -> str:
        main, *_ = accounts_for(NAMES, [worker("w", subject)])
        return main.exports[0].response_type

    assert kind("$JS.lent.API.DIRECT.GET.S") == "Stream"
    assert kind("$JS.lent.API.DIRECT.GET.S.subject") == "Singleton"
    assert kind("$JS.lent.API.STREAM.INFO.S") == "Singleton"
    assert kind("airflow.results.a.*") == "Singleton"


def test_each_role_but_workers_and_sites_has_a_user_and_those_are_named() -> None:
    settings = settings_for("nats://127.0.0.1:4222")
    made = everyone(settings, ["w=a,b"], ["s=a"])

    assert [(user.name, user.role) for user in made] == [
        *((str(role), role) for role in Role if role not in {Role.WORKER, Role.SITE}),
        ("w", Role.WORKER),
        ("s", Role.SITE),
    ]
    by_name = {user.name: user for user in made}
    assert any(".lent." in subject for subject in by_name["w"].granted.publish)
    assert any(".hub." in subject for subject in by_name["s"].granted.publish)
    assert not any(".lent." in subject for subject in by_name["scheduler"].granted.publish)
    assert "airflow.results.b.*" in by_name["w"].granted.publish
    assert DOMAIN == "lent"


@pytest.mark.parametrize("words", ["w", "w=", "=a", ""])
def test_a_user_has_a_name_and_queues(words: str) -> None:
    settings = settings_for("nats://127.0.0.1:4222")
    with pytest.raises(ConfigError, match="write USER=QUEUE"):
        everyone(settings, [words], [])


def test_a_users_inbox_is_its_own() -> None:
    assert member(NAMES, "monitor", Role.MONITOR).inbox == "_INBOX_monitor"
