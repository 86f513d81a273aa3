"""An error's text is shown without its secrets."""

from __future__ import annotations

import pytest

from nats_worker.api.answers import without_login


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("for url 'http://me:secret@api/execution/x'", "for url 'http://api/execution/x'"),
        ("http://a/, https://token@b:8080/", "http://a/, https://b:8080/"),
        ("http://api/mail@example.org", "http://api/mail@example.org"),
        ("no URL at all", "no URL at all"),
    ],
)
def test_no_login_of_a_url_is_shown(text: str, shown: str) -> None:
    assert without_login(text) == shown
