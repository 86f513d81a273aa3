"""Each limit of an option from both sides, and which options are secret."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.errors import ConfigError
from nats_executor.options import OPTIONS
from nats_executor.settings import Settings, without_userinfo
from tests.support.fixtures import Options, settings_for

URL = "nats://127.0.0.1:4222"
LOGIN = [
    "user",
    "password",
    "token",
    "nkey_seed",
    "credentials_file",
    "tls_certificate_file",
    "tls_key_file",
]


def is_taken(**options: Any) -> bool:
    try:
        settings_for(URL, **options)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("option", "taken", "refused"),
    [
        ("replicas", ["1", "3", "5"], ["0", "2", "4", "6", "-1"]),
        ("max_stream_bytes", ["-1", "1000000000"], ["0", "-2"]),
        ("queue_limits", ["a=1", "a=2", "a=1,b=3"], ["a=0", "a=-1", "a=1,b=0"]),
        ("ack_wait_seconds", ["1", "1.5"], ["0.9", "0"]),
        ("worker_forgotten_seconds", ["0", "0.5"], ["-0.1", "-1"]),
        ("explain_after_seconds", ["0", "0.5"], ["-0.1", "-1"]),
        ("start_timeout_seconds", ["1", "1.5"], ["0.9", "0"]),
        ("drain_seconds", ["0", "0.5"], ["-0.1", "-1"]),
        ("kill_seconds", ["0", "0.5"], ["-0.1", "-1"]),
        ("memory_high_percent", ["0", "100"], ["-1", "101"]),
        ("memory_pressure_percent", ["0", "100"], ["-1", "101"]),
        ("health_port", ["0", "1", "65535"], ["-1", "65536"]),
        (
            "priority_bands",
            ["none", "NONE", "5", "1,2", "1,2,3,4,5,6,7,8,9"],
            ["2,1", "1,1", "1,1,2", "1,3,2", "zero", "a", "1,2,3,4,5,6,7,8,9,10"],
        ),
        ("max_attempts", ["1", "2"], ["0", "-1"]),
        ("worker_concurrency", ["1"], ["0", "-1"]),
        ("starts_at_once", ["auto", "AUTO", "1"], ["0", "-1", "many", "1.5"]),
        (
            "preload_modules",
            ["", "a", "a.b!", "a, _b1.b_2!", "größe", "a,a", ",".join(f"m{n}" for n in range(50))],
            [
                "!",
                "a!!",
                "a..b",
                ".a",
                "a.",
                "1a",
                "-a",
                "a b",
                ",".join(f"m{n}" for n in range(51)),
            ],
        ),
        ("sweep_seconds", ["0.5", "1"], ["0", "-1"]),
    ],
)
def test_an_option_has_its_bounds(option: str, taken: list[str], refused: list[str]) -> None:
    assert [value for value in taken if not is_taken(**{option: value})] == []
    assert [value for value in refused if is_taken(**{option: value})] == []


def test_a_size_of_one_byte_is_one() -> None:
    """Whether anything fits is another question, which `LEAST` answers."""
    assert is_taken(max_stream_bytes="1")
    with pytest.raises(ConfigError, match="write -1 or a size"):
        settings_for(URL, max_stream_bytes="-5")


@pytest.mark.parametrize(("seconds", "is_fine"), [("20", True), ("20.5", True), ("19.9", False)])
def test_a_worker_is_lost_after_two_heartbeats_at_the_earliest(seconds: str, is_fine: bool) -> None:
    assert is_taken(heartbeat_seconds="10", worker_lost_seconds=seconds) is is_fine


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("nats://u:p@h:4222", "nats://h:4222"),
        ("NATS://u:p@h:4222", "NATS://h:4222"),
        ("u:p@h", "h"),
        ("nats://u:p\nq@h", "nats://h"),
        ("NATS://u:p\nq@h", "NATS://h"),
        ("nats://h:4222", "nats://h:4222"),
    ],
)
def test_a_password_is_cut_off_an_address(server: str, shown: str) -> None:
    assert without_userinfo(server) == shown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("storage", "a@b"),
        ("subject_prefix", "a@b"),
        ("health_address", "a@b"),
        ("storage", "tape"),
    ],
)
def test_what_is_no_secret_is_shown(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} = '{value}'"):
        settings_for(URL, **{option: value})


def test_a_refused_address_with_a_password_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_for("nats://u:secret@ h")

    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="'http://h'"):
        settings_for("http://h")


def test_key_and_certificate_go_together(tmp_path: Any) -> None:
    file = tmp_path / "file.pem"
    file.write_text("x")

    assert not is_taken(tls_key_file=str(file))
    assert not is_taken(tls_certificate_file=str(file))
    assert is_taken(tls_key_file=str(file), tls_certificate_file=str(file))


@pytest.mark.parametrize(("queue", "limit"), [("b", 3), ("a", None), ("c", None), ("d", 7)])
def test_a_limit_is_of_its_queue_alone(queue: str, limit: int | None) -> None:
    assert settings_for(URL, queue_limits="b=3,d=7").limit(queue) == limit


def test_no_task_may_find_what_is_a_part_of_the_login() -> None:
    assert [option.name for option in OPTIONS if option.is_login] == LOGIN


@pytest.mark.parametrize("prefix", ["a", "z"])
def test_a_team_keeps_a_prefix_of_its_own(prefix: str) -> None:
    options = Options({"servers": URL, "subject_prefix": prefix})

    assert Settings.load(options, team="t").subject_prefix == prefix
