"""Settings: every option is read, checked and named in what goes wrong; secrets never show."""

from __future__ import annotations

import string
import traceback
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_executor.errors import ConfigError
from nats_executor.options import OPTIONS, SECTION
from nats_executor.settings import Settings
from nats_executor.wire.names import Lane, Names
from tests.support.fixtures import settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from nats_executor.option import Option

SECRET = "SU" + "HUNTER2" * 8  # in the form of an NKey, so that every secret may be it
PAIRS = {"password": {"user": "u"}, "token": {}, "nkey_seed": {}}


class Section:
    """Airflow's configuration as it answers for one section; None is an option that is not set."""

    def __init__(self, **values: str | None) -> None:
        self.values = values
        self.asked: list[tuple[str, str]] = []

    def get(self, section: str, key: str, *, fallback: Any) -> Any:
        self.asked.append((section, key))
        return self.values.get(key, fallback)


def load(**values: str | None) -> Settings:
    return Settings.load(Section(**values))


def test_a_list_is_told_as_it_is_written() -> None:
    assert "servers='nats://a, nats://b'" in repr(load(servers="nats://a,nats://u:p@b"))
    assert "queue_limits='gpu=2, a=1'" in repr(load(queue_limits="gpu=2,a=1"))
    with pytest.raises(ConfigError, match=r"servers = 'http://a, b': write nats"):
        load(servers="http://a,b")


def everything_shown(exc: BaseException) -> str:
    """Return all that a log would show of an error, its causes included."""
    return "".join(traceback.format_exception(exc))


def test_the_defaults_work() -> None:
    settings = load()

    assert settings.servers == ("nats://127.0.0.1:4222",)
    assert settings.names == Names("airflow")
    assert settings.inbox_prefix == "_INBOX_airflow"
    assert settings.password is None


def test_every_option_is_a_setting_and_nothing_else_is_read() -> None:
    section = Section()
    Settings.load(section)

    options = [option.name for option in OPTIONS]
    assert section.asked == [
        *((SECTION, option) for option in options),
        ("logging", "remote_base_log_folder"),
    ]
    assert sorted(f.name for f in fields(Settings)) == sorted([*options, "stores_logs"])


@pytest.mark.parametrize(
    ("folder", "is_ours"), [(None, False), ("", False), ("s3://nats", False), ("nats://", True)]
)
def test_whether_logs_are_stored_is_what_airflow_is_told(folder: str | None, is_ours: bool) -> None:
    assert load(remote_base_log_folder=folder).stores_logs is is_ours


TYPES: dict[str, tuple[type, ...]] = {
    "string": (str, tuple),
    "integer": (int,),
    "float": (float,),
    "boolean": (bool,),
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_default_is_of_its_type(option: Option) -> None:
    value = getattr(load(), option.name)

    is_made = option.name == "inbox_prefix"  # of the user
    if (option.default is None and not is_made) or option.default == "auto":
        assert value is None
    else:
        assert isinstance(value, int if option.form == "auto" else TYPES[option.type])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("servers", "nats://a:1, tls://b ,", ("nats://a:1", "tls://b")),
        ("servers", "nats-1", ("nats-1",)),
        ("servers", "nats://[::1]:4222", ("nats://[::1]:4222",)),
        ("servers", "ws://a,wss://b", ("ws://a", "wss://b")),
        ("tls_handshake_first", "True", True),
        ("tls_handshake_first", "on", True),
        ("tls_handshake_first", "F", False),
        ("connect_timeout_seconds", "0.5", 0.5),
        ("connect_timeout_seconds", "", 5.0),
        ("replicas", " 3\n", 3),
        ("storage", "memory", "memory"),
        ("jetstream_domain", "", None),
        ("subject_prefix", "airflow-prod_2", "airflow-prod_2"),
        ("inbox_prefix", "_INBOX.gpu", "_INBOX.gpu"),
        ("drain_seconds", "0", 0.0),
        ("max_stream_bytes", "1024", 1024),
        ("max_results_bytes", "1048576", 1048576),
        ("max_dead_letters_bytes", "16777216", 16777216),
    ],
)
def test_a_value_is_converted(name: str, text: str, expected: Any) -> None:
    assert getattr(load(**{name: text}), name) == expected


@pytest.mark.parametrize("name", PAIRS)
def test_the_newline_of_a_command_is_cut_off(name: str) -> None:
    """Airflow hands on what a `_cmd` printed, to the last byte."""
    settings = load(**{name: f"{SECRET}\n", **PAIRS[name]})

    assert getattr(settings, name) == SECRET


BAD = [
    ("servers", " , ", "name at least one server"),
    ("servers", "http://a", "nats://host:port"),
    ("servers", "nats://", "nats://host:port"),
    ("servers", "nats://a:port", "nats://host:port"),
    ("servers", "nats://a:99999", "nats://host:port"),
    ("servers", "nats://a:0", "nats://host:port"),
    ("servers", "nats://[::1", "nats://host:port"),
    ("servers", "nats://a,,b c://", "nats://host:port"),
    ("user", "u", "set user and password together"),
    ("credentials_file", "/nowhere/a.creds", "a file that this process can read"),
    ("tls_ca_file", "/nowhere/ca.pem", "a file that this process can read"),
    ("tls_certificate_file", "/nowhere/c.pem", "a file that this process can read"),
    ("tls_key_file", "/nowhere/k.pem", "a file that this process can read"),
    ("tls_handshake_first", "perhaps", "write a boolean, for example True"),
    ("inbox_prefix", "_INBOX.>", "tokens of letters"),
    ("inbox_prefix", "a..b", "tokens of letters"),
    ("inbox_prefix", "a b", "tokens of letters"),
    ("subject_prefix", "Airflow", "lower-case letters"),
    ("subject_prefix", "air.flow", "lower-case letters"),
    ("subject_prefix", "*", "lower-case letters"),
    ("subject_prefix", "a" * 101, "lower-case letters"),
    ("replicas", "2", "write 1, 3 or 5"),
    ("replicas", "three", "write an integer, for example 3"),
    ("replicas", "3.0", "write an integer"),
    ("storage", "disk", "write file or memory"),
    ("max_stream_bytes", "0", "write -1 or a size"),
    ("max_stream_bytes", "-2", "write -1 or a size"),
    ("max_stream_bytes", "10GB", "write an integer"),
    ("max_results_bytes", "1048575", "write at least 1048576"),
    ("max_dead_letters_bytes", "-1", "write at least 16777216"),
    ("result_retention_seconds", "0", "a number above 0"),
    ("dead_letter_retention_seconds", "-1", "a number above 0"),
    ("log_retention_seconds", "0", "a number above 0"),
    ("max_log_bucket_bytes", "-1", "a number above 0"),
    ("connect_timeout_seconds", "0", "a number above 0"),
    ("connect_timeout_seconds", "5s", "write a float, for example 10"),
    ("publish_timeout_seconds", "-0.1", "a number above 0"),
    ("publish_timeout_seconds", "inf", "write a float"),
    ("sweep_seconds", "nan", "write a float"),
    ("heartbeat_seconds", "0", "a number above 0"),
    ("worker_lost_seconds", "9", "at least twice heartbeat_seconds (5)"),
    ("worker_forgotten_seconds", "-1", "write 0 or more"),
    ("explain_after_seconds", "-1", "write 0 or more"),
    ("max_attempts", "0", "a number above 0"),
    ("priority_bands", "high", "numbers separated by commas, or none"),
    ("priority_bands", "10,10", "each greater than the one before"),
    ("priority_bands", "1,2,3,4,5,6,7,8,9,10", "at most 9 numbers"),
    ("queue_limits", "gpu", "queue=number pairs"),
    ("queue_limits", "gpu=x", "queue=number pairs"),
    ("queue_limits", "=4", "queue=number pairs"),
    ("queue_limits", "gpu=0", "numbers above 0"),
    ("worker_concurrency", "0", "a number above 0"),
    ("starts_at_once", "0", "a number above 0, or auto"),
    ("starts_at_once", "many", "a number above 0, or auto"),
    ("pool_slots_as_weight", "heavy", "write a boolean"),
    ("workloads_per_supervisor", "0", "a number above 0"),
    ("dag_zygotes", "maybe", "write off, auto or on"),
    ("preload_modules", "pandas,import os", "names of modules, separated by commas"),
    ("preload_modules", "pandas,", "names of modules, separated by commas"),
    ("preload_modules", ",".join(f"m{n}" for n in range(51)), "name at most 50 modules"),
    ("memory_high_percent", "101", "a number from 0 to 100"),
    ("memory_high_percent", "-1", "a number from 0 to 100"),
    ("memory_pressure_percent", "100.5", "a number from 0 to 100"),
    ("ack_wait_seconds", "0.9", "at least 1"),
    ("start_timeout_seconds", "0.5", "at least 1"),
    ("drain_seconds", "-1", "0 or more"),
    ("kill_seconds", "-1", "0 or more"),
    ("health_port", "65536", "a port up to 65535, or 0 for none"),
    ("health_port", "-1", "a port up to 65535, or 0 for none"),
    ("health_port", "http", "write an integer, for example 8080"),
    ("health_address", "localhost", "an IP address of this machine"),
    ("health_address", "0.0.0.0:80", "an IP address of this machine"),
]


@pytest.mark.parametrize(("name", "text", "remedy"), BAD)
def test_a_bad_value_names_option_value_and_remedy(name: str, text: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: text})

    message = str(caught.value)
    assert message.startswith(f"[nats_executor] {name} = ")
    assert remedy in message
    assert text.strip(" ,").split(",")[0] in message


@pytest.mark.parametrize(
    ("text", "bands"), [("", (10, 100)), ("50", (50,)), (" 1, 2 ", (1, 2)), ("none", ())]
)
def test_priority_bands(text: str, bands: tuple[int, ...]) -> None:
    settings = load(priority_bands=text)

    assert settings.priority_bands == bands
    assert [lane.band for lane in settings.lanes("a")] == list(range(len(bands), -1, -1))


def test_limits_of_queues() -> None:
    settings = load(queue_limits="gpu=4, a=b=10")

    assert [settings.limit(queue) for queue in ("gpu", "a=b", "a")] == [4, 10, None]
    assert settings.lanes("gpu") == [Lane("gpu")]
    assert settings.lane("gpu", 1000) == settings.lane("gpu", None) == Lane("gpu")
    assert settings.lane("a", 1000) == settings.lane("a", None) == Lane("a", 2)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_checked_option_has_a_bad_value(option: Option) -> None:
    """A new option needs a decision here whether it can be wrong."""
    unchecked = {"password", "token", "nkey_seed", "jetstream_domain"}

    assert (option.name in {name for name, _, _ in BAD}) != (option.name in unchecked)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"user": "u", "password": SECRET, "token": SECRET}, "token"),
        ({"user": "u", "password": SECRET, "nkey_seed": SECRET}, "nkey_seed"),
        ({"token": SECRET, "nkey_seed": SECRET}, "nkey_seed"),
        ({"token": SECRET, "credentials_file": "/dev/null"}, "credentials_file"),
    ],
)
def test_two_ways_to_log_in_are_refused(values: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match="choose one way to log in") as caught:
        load(**values)

    assert str(caught.value).startswith(f"[nats_executor] {name} = ")
    assert SECRET not in everything_shown(caught.value)


def test_a_password_without_a_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="set user and password together") as caught:
        load(password=SECRET)

    assert SECRET not in everything_shown(caught.value)


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    certificate = tmp_path / "client.pem"
    certificate.touch()

    with pytest.raises(ConfigError, match="tls_certificate_file and tls_key_file together"):
        load(tls_certificate_file=str(certificate))


@pytest.mark.parametrize("name", PAIRS)
def test_a_secret_never_shows(name: str) -> None:
    settings = load(**{name: SECRET, **PAIRS[name]})

    shown = f"{settings!r} {settings} {settings.shown(name)}"
    assert SECRET not in shown
    assert f"{name}='***'" in shown


def test_what_is_no_secret_shows() -> None:
    assert "replicas=1" in repr(load())
    assert "password=None" in repr(load())


@pytest.mark.parametrize(
    "address",
    [
        f"nats://u:{SECRET}@nats-1:4222",
        f"nats://{SECRET}@nats-1:4222",
        f"u:{SECRET}@nats-1:4222",
        f"NATS://u:{SECRET}@nats-1:4222",
        f"nats://u:{SECRET}@x@nats-1:4222",
    ],
)
def test_a_password_in_an_address_never_shows(address: str) -> None:
    """It should be in an option of its own; a user who puts it here is still not exposed."""
    shown = repr(load(servers=address))

    assert SECRET not in shown
    assert "nats-1:4222" in shown


@pytest.mark.parametrize(
    "address",
    [
        f"http://u:{SECRET}@a",
        f"nats://u:{SECRET}/x@a",
        f"nats://u:{SECRET},x@a",
        f"nats://u:{SECRET}@a:port",
    ],
)
def test_a_password_in_a_refused_address_never_shows(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(servers=address)

    assert SECRET not in everything_shown(caught.value)


@given(st.sampled_from(OPTIONS), st.text(string.printable, max_size=30))
def test_any_text_is_accepted_or_refused_by_name(option: Option, text: str) -> None:
    try:
        settings = load(**{option.name: text})
    except ConfigError as exc:
        assert str(exc).startswith("[nats_executor] ")  # noqa: PT017 - both outcomes are right
    else:
        assert f"{option.name}=" in repr(settings)


def test_a_team_gets_a_prefix_of_its_own() -> None:
    prefixes = [Settings.load(Section(), team=team).subject_prefix for team in ("a", "A", "a.b")]

    assert prefixes[0] == "airflow-a"
    assert len({*prefixes, "airflow"}) == 4


def test_a_teams_own_prefix_stays() -> None:
    assert Settings.load(Section(subject_prefix="red"), team="a").subject_prefix == "red"


@given(st.text(max_size=200))
def test_any_team_and_user_have_valid_names(name: str) -> None:
    user = name if name.strip() else "u"
    settings = Settings.load(Section(user=user, password="p"), team=name or None)

    assert settings.names.tasks_stream


def test_each_user_has_an_inbox_of_its_own() -> None:
    """A shared one lets a user read the answers, and so the task tokens, of another."""
    users = ["worker_gpu", "worker.gpu", "Worker_gpu"]

    assert len({load(user=user, password="p").inbox_prefix for user in users}) == len(users)


def test_settings_cannot_change() -> None:
    with pytest.raises(AttributeError):
        load().replicas = 3  # type: ignore[misc]


def test_tests_can_make_settings() -> None:
    assert settings_for("nats://a:1", replicas=3).replicas == 3


@pytest.mark.parametrize(
    ("name", "text"), [("heartbeat_seconds", "5.0"), ("worker_lost_seconds", "15.0")]
)
def test_an_option_is_shown_as_its_own_value(name: str, text: str) -> None:
    """Before and after `servers`, whose value is shown otherwise."""
    assert load().shown(name) == text
