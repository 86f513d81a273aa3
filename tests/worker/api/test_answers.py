"""Says who has answered a request; shows an error's text without its secrets."""

from __future__ import annotations

from typing import Any

import pytest

from nats_worker.api.answers import Answer, without_login

REASON = {"reason": "not_found"}
PASSES, FOREIGN, ELSEWHERE = "may_pass", "is_foreign", "is_decided_elsewhere"


def api(status: int, detail: Any = "no") -> Answer:
    """An error in the form of the Execution API's."""
    return Answer("/run", status, is_error_body=True, detail=detail)


@pytest.mark.parametrize(
    ("answer", "meanings"),
    [
        (Answer("/run"), {PASSES}),
        (Answer("/run", 0), {PASSES}),
        (Answer("/run", 499), {FOREIGN}),
        (Answer("/run", 500), {PASSES}),
        (Answer("/run", 502), {PASSES}),
        (Answer("/run", 302), {FOREIGN}),
        (Answer("/run", 401), {FOREIGN}),
        (Answer("/run", 404), {FOREIGN}),
        (api(401), set()),
        (api(403, REASON), set()),
        (api(404, REASON), {ELSEWHERE}),
        (api(404, "Not Found"), {FOREIGN}),
        (api(404, "a text with a reason"), {FOREIGN}),
        (api(404, {"message": "gone"}), {FOREIGN}),
        (api(405, REASON), {FOREIGN}),
        (api(406), set()),
        (api(408, REASON), set()),
        (api(409, REASON), {ELSEWHERE}),
        (api(410, REASON), {ELSEWHERE}),
        (api(411, REASON), set()),
        (api(499), set()),
        (api(500), {PASSES}),
    ],
)
def test_who_has_answered(answer: Answer, meanings: set[str]) -> None:
    assert {one for one in (PASSES, FOREIGN, ELSEWHERE) if getattr(answer, one)} == meanings


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
