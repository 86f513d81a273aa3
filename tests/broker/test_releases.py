"""A release of nats-server is safe, or the one to run instead is named, as a table."""

from __future__ import annotations

import pytest

from nats_executor.broker.releases import (
    RECOMMENDED,
    consumers_by_default,
    danger,
    release,
    weakness,
)

UNSAFE = ("2.10.29", "2.11.0", "2.11.11", "2.11.17", "2.12.0", "2.12.4", "2.12.4-RC.6", "v2.12.1")
WEAK = ("2.12.5", "2.12.8", "2.12.15", "2.14.0", "2.14.3", "v2.14.3-RC.1")
SOUND = (RECOMMENDED, "2.14.6", "2.15.0", "2.15.1", "2.16.0-RC.1", "2.15.0-dev", "3.0.0")
NO_VERSIONS = ("", "nightly", "2.11", "2.11.x", "2.11.11x", "a2.11.11")


@pytest.mark.parametrize("version", UNSAFE)
def test_what_is_said_of_an_unsafe_release_names_it_the_danger_and_the_remedy(version: str) -> None:
    text = danger(version)

    assert text == (
        f"nats-server {version} lets the login of any worker delete tasks of other queues; run "
        "2.14.4 or later (2.12.5 is the first that does not)"
    )
    assert weakness(version) == ""


@pytest.mark.parametrize("version", WEAK)
def test_of_a_safe_release_that_is_not_the_recommended_one_is_said_what_it_lacks(
    version: str,
) -> None:
    assert danger(version) == ""
    assert weakness(version) == (
        f"nats-server {version} works, but may lose a message when a subject reaches its "
        "limit while other messages are being removed; 2.14.4 or later is recommended"
    )


@pytest.mark.parametrize("version", SOUND)
def test_nothing_is_said_of_a_sound_one(version: str) -> None:
    assert danger(version) == ""
    assert weakness(version) == ""


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_nothing_is_said_of_what_is_no_version(version: str) -> None:
    """A server says what it likes here; a guess would be worse than silence."""
    assert release(version) is None
    assert danger(version) == ""
    assert weakness(version) == ""


def test_what_is_recommended_is_sound() -> None:
    assert release(RECOMMENDED) == (2, 14, 4)
    assert danger(RECOMMENDED) == ""
    assert weakness(RECOMMENDED) == ""


@pytest.mark.parametrize(
    ("version", "number"),
    [("2.14.6", -1), ("2.15.0", 1000), ("2.16.0-RC.1", 1000), ("", -1), ("devel", -1)],
)
def test_how_many_consumers_a_stream_may_have_where_nothing_is_set(
    version: str, number: int
) -> None:
    assert consumers_by_default(version) == number
