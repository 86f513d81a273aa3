"""The environment that a worker leaves to its tasks, and what is taken out of a configuration."""

from __future__ import annotations

from configparser import ConfigParser
from typing import Any

import pytest

from nats_executor.options import OPTIONS
from nats_worker.processes.concealment import LOGIN, conceal, environment_without_login
from tests.support.fixtures import settings_for

PREFIX = "AIRFLOW__NATS_EXECUTOR__"
SECRET = "hush-hush-hush"
EMPTY = {f"{PREFIX}{option.upper()}": "" for option in LOGIN}


def kept(
    environment: dict[str, str],
    url: str = "nats://h:4222",
    *,
    team: str | None = None,
    **options: Any,
) -> dict[str, str]:
    """Return the rest of an environment, without the empty values that are always there."""
    left = environment_without_login(environment, settings_for(url, **options), team=team)
    return {name: value for name, value in left.items() if EMPTY.get(name) != value}


def test_what_a_login_is_made_of() -> None:
    """An option that is secret is part of it; a new one has to be looked at here."""
    assert set(LOGIN) == {
        "user", "password", "token", "nkey_seed", "credentials_file", "tls_certificate_file",
        "tls_key_file",
    }  # fmt: skip
    assert {option.name for option in OPTIONS if option.sensitive} <= set(LOGIN)


@pytest.mark.parametrize("option", LOGIN)
@pytest.mark.parametrize("source", ["", "_CMD", "_SECRET"])
@pytest.mark.parametrize("team", ["", "ALPHA___", "A_B___", "A__B___"])
def test_no_option_of_a_login_is_left(option: str, source: str, team: str) -> None:
    name = f"AIRFLOW__{team}NATS_EXECUTOR__{option.upper()}{source}"
    assert kept({name: "x"}) == {}


def test_an_empty_value_goes_before_that_of_the_file() -> None:
    left = environment_without_login({}, settings_for("nats://h:4222"), team=None)
    assert left == EMPTY


def test_a_teams_options_are_empty_as_well() -> None:
    left = kept({}, team="alpha")
    assert left == {f"AIRFLOW__ALPHA___NATS_EXECUTOR__{name.upper()}": "" for name in LOGIN}


@pytest.mark.parametrize(
    "name",
    [
        "HOME", "USER", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
        f"{PREFIX}SUBJECT_PREFIX", f"{PREFIX}TLS_CA_FILE", f"{PREFIX}HEALTH_PORT",
        "AIRFLOW_CONN_NATS", "AIRFLOW__NATS_EXECUTOR_TOO__PASSWORD",
    ],
)  # fmt: skip
def test_everything_else_stays(name: str) -> None:
    assert kept({name: "x"}, user="me", password=SECRET) == {name: "x"}


@pytest.mark.parametrize("option", ["password", "token"])
def test_a_variable_that_is_the_secret_goes_whatever_its_name(option: str) -> None:
    options = {"user": "me"} if option == "password" else {}
    assert kept({"NATS_LOGIN": f"{SECRET}\n"}, **options, **{option: SECRET}) == {}


def test_a_short_secret_takes_no_other_variable_along() -> None:
    environment = {"USER": "airflow", "HOME": "/home/airflow"}
    assert kept(environment, user="airflow", password="airflow") == environment


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("nats://me:hush@a:4222", "nats://a:4222"),
        ("nats://me:hush@a, nats://b", "nats://a,nats://b"),
        ("nats://$NATS_USER:$NATS_PASSWORD@a", "nats://a"),
        ("me:hush@a:4222", "a:4222"),
        ("nats://a,tls://b", "nats://a,tls://b"),
    ],
)
@pytest.mark.parametrize("team", ["", "ALPHA___"])
def test_addresses_stay_without_their_logins(written: str, left: str, team: str) -> None:
    name = f"AIRFLOW__{team}NATS_EXECUTOR__SERVERS"
    assert kept({name: written}) == {name: left}


def test_addresses_that_come_from_elsewhere_are_written_without_their_logins() -> None:
    """From airflow.cfg, or by a variable that holds all of them."""
    environment = {f"{PREFIX}SERVERS": "$NATS_URL", "NATS_URL": f"nats://me:{SECRET}@h:4222"}

    left = kept(environment, f"nats://me:{SECRET}@h:4222")

    assert left == {f"{PREFIX}SERVERS": "nats://h:4222"}


def test_a_password_in_an_address_goes_as_it_is_written_and_as_it_is_meant() -> None:
    environment = {"A": "hush%40hush", "B": "hush@hush", "C": "hush"}
    assert kept(environment, "nats://me:hush%40hush@h:4222") == {
        "C": "hush",
        f"{PREFIX}SERVERS": "nats://h:4222",
    }


def test_a_configuration_file_is_forgotten_in_every_section() -> None:
    parser = ConfigParser()
    login = {option + source: "x" for option in LOGIN for source in ("", "_cmd", "_secret")}
    parser.read_dict(
        {
            "nats_executor": login | {"servers": "nats://me:hush@h", "subject_prefix": "p"},
            "alpha=nats_executor": login,
            "core": {"password": "not ours"},
        }
    )

    conceal(parser)

    assert {name: dict(parser[name]) for name in parser.sections()} == {
        "nats_executor": {"servers": "nats://h", "subject_prefix": "p"},
        "alpha=nats_executor": {},
        "core": {"password": "not ours"},
    }
