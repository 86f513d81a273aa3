"""A worker asks the API server that its options name, and a line names the option to blame."""

from __future__ import annotations

import pytest

CORE = "CORE__EXECUTION_API_SERVER_URL"
BASE = "API__BASE_URL"
ALL = "AIRFLOW__"
RED = "AIRFLOW__RED___"


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("team", "values", "url", "option"),
    [
        (None, {ALL + CORE: "http://a/x/"}, "http://a/x/", "[core] execution_api_server_url"),
        (None, {ALL + BASE: "http://a"}, "http://a/execution/", "[api] base_url"),
        (
            None,
            {ALL + CORE: "http://a/x/", ALL + BASE: "http://b"},
            "http://a/x/",
            "[core] execution_api_server_url",
        ),
        # A team's setting counts for no other team.
        (None, {RED + CORE: "http://r/"}, "http://localhost:8080/execution/", "not set"),
        ("blue", {RED + CORE: "http://r/"}, "http://localhost:8080/execution/", "not set"),
        (
            "red",
            {RED + CORE: "http://r/", ALL + CORE: "http://a/"},
            "http://r/",
            "[red=core] execution_api_server_url",
        ),
        (
            "red",
            {RED + BASE: "http://r", ALL + CORE: "http://a/"},
            "http://r/execution/",
            "[red=api] base_url",
        ),
        # Airflow itself would send these two to localhost.
        ("red", {ALL + CORE: "http://a/"}, "http://a/", "[core] execution_api_server_url"),
        ("red", {ALL + BASE: "http://a"}, "http://a/execution/", "[api] base_url"),
    ],
)
def test_the_teams_value_comes_first_then_that_for_all(
    monkeypatch: pytest.MonkeyPatch,
    team: str | None,
    values: dict[str, str],
    url: str,
    option: str,
) -> None:
    from nats_worker.api.address import api_address

    for name in (CORE, BASE):
        monkeypatch.delenv(ALL + name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    server = api_address(team)

    assert server.url == url
    assert option in server.option
    assert str(server) == f"the API server at {url} ({server.option})"
