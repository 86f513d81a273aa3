"""What an examination has found, each finding with its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nats_executor.broker.port import ServerOffer
from nats_executor.fleet.presences import Record
from nats_executor.operations.diagnoses import (
    ApiLook,
    BrokerLook,
    FileLook,
    TimedAnswer,
    api_findings,
    broker_findings,
    clock_findings,
    file_findings,
    is_fine,
    scheduler_findings,
    version_findings,
)
from nats_executor.operations.schedulers import AskedExecutor
from nats_executor.wire.messages import Presence
from nats_executor.wire.scheduler_answers import ExecutorState

HERE = {
    "airflow-nats-executor": "2.0", "apache-airflow": "3.3.2", "nats-py": "2.16",
    "python": "3.11.7",
}  # fmt: skip
STATE = ExecutorState(
    job="7", sender="s", host="host-1", version="2.0", airflow_version="3.3.2",
    python_version="3.11.2", connected_since=1.0, waiting=1, running=2, parallelism=32, tracked=3,
    at=4.0,
)  # fmt: skip
DAY = 86400.0
NAMED = {"[api_auth] jwt_issuer": "", "[execution_api] jwt_audience": "urn:x"}
LOOK = ApiLook("http://api:8080/execution/", seconds=0.0123, is_api=True, clock=0.4)
UNLIKE = "[api_auth] jwt_secret must be the same there and here, and so must "

Found = tuple[str, str, str]


def told(rows: list[dict[str, Any]]) -> list[Found]:
    return [(row["check"], row["status"], row["details"]) for row in rows]


def record(name: str, ahead: float, at: float = 1000.0) -> Record:
    facts: dict[str, Any] = {
        "worker": f"{name}.1", "name": name, "host": "h", "pid": 7, "queues": ["q"],
        "concurrency": 4, "running": 1, "draining": False, "started_at": 0.0, "version": "2.0",
    }  # fmt: skip
    return Record(Presence(**facts, at=at + ahead), "q", at)


def answer(**changes: Any) -> TimedAnswer:
    return TimedAnswer(AskedExecutor("7", replace(STATE, **changes)))


def test_workers_of_another_release_are_named() -> None:
    assert told(version_findings(HERE, {"b": "1.0", "a": "2.0", "\x1b[2J": "3"})) == [
        (
            "versions", "ok",
            "airflow-nats-executor 2.0, apache-airflow 3.3.2, nats-py 2.16, python 3.11.7",
        ),
        (
            "worker \N{REPLACEMENT CHARACTER}[2J", "other version",
            "release 3, 2.0 here; update it, or this machine",
        ),
        ("worker b", "other version", "release 1.0, 2.0 here; update it, or this machine"),
    ]  # fmt: skip


FIGURES = "1 waiting to be sent, 2 of 32 slots used, 3 sent and not over"
SCHEDULERS: list[tuple[list[TimedAnswer] | None, list[Found]]] = [
    (None, [("schedulers", "unknown", "no database")]),
    ([], [("schedulers", "none", "no scheduler is alive; run: airflow scheduler")]),
    ([answer()], [("scheduler 7", "ok", f"on host-1: {FIGURES}")]),
    (
        [answer(parallelism=0)],
        [("scheduler 7", "ok", f"on host-1: {FIGURES.replace('32', 'no limit')}")],
    ),
    (
        [TimedAnswer(AskedExecutor("7", None, "it did not answer within 2 s"))],
        [("scheduler 7", "silent", "it did not answer within 2 s; look into its log")],
    ),
    (
        [answer(version="1.0", airflow_version="3.3.1", python_version="3.12.7")],
        [
            (
                "scheduler 7", "other version",
                "airflow-nats-executor 1.0, 2.0 here; use the same everywhere",
            ),
            (
                "scheduler 7", "other version",
                "apache-airflow 3.3.1, 3.3.2 here; use the same everywhere",
            ),
            ("scheduler 7", "other version", "python 3.12.7, 3.11.7 here; use the same everywhere"),
        ],
    ),
    (
        [answer(trouble="no leader", refused=["q is odd"])],
        [
            ("scheduler 7", "trouble", "it cannot send workloads: no leader"),
            ("scheduler 7", "refused", "q is odd"),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "rows"), SCHEDULERS)
def test_each_scheduler_is_told_of(answers: list[TimedAnswer] | None, rows: list[Found]) -> None:
    assert told(scheduler_findings(answers, HERE, "no database")) == rows


OFFERS: list[tuple[ServerOffer, list[tuple[str, str]]]] = [
    (ServerOffer(327_679), [("limits", "low")]),
    (ServerOffer(327_680), [("limits", "ok")]),
    (ServerOffer(8_388_607), [("limits", "ok")]),
    (ServerOffer(8_388_608), [("limits", "ok")]),
    (
        ServerOffer(8_388_608, 1000.0 + 14 * DAY),
        [("limits", "ok"), ("the server's certificate", "ok")],
    ),
    (
        ServerOffer(8_388_608, 999.0 + 14 * DAY),
        [("limits", "ok"), ("the server's certificate", "expires soon")],
    ),
    (ServerOffer(8_388_608, 999.0), [("limits", "ok"), ("the server's certificate", "expired")]),
]


@pytest.mark.parametrize(("offer", "statuses"), OFFERS)
def test_a_servers_limits_and_certificate(
    offer: ServerOffer, statuses: list[tuple[str, str]]
) -> None:
    first, *rows = told(broker_findings(BrokerLook(0.0015, 0.0, offer), now=1000.0))

    assert first == ("broker answer", "ok", "within 1.5 ms")
    assert [row[:2] for row in rows] == statuses
    if offer.max_payload < 8_388_608:
        assert "8388608" in rows[0][2]


FILES: list[tuple[FileLook, list[Found]]] = [
    (FileLook("tls_key_file", "/k", 0o600, is_secret=True), []),
    (FileLook("tls_key_file", "/k", 0o400, is_secret=True), []),
    (
        FileLook("tls_key_file", "/k", 0o640, is_secret=True),
        [
            (
                "[nats_executor] tls_key_file", "readable by others",
                "mode 0640: others may read it; run: chmod 600 /k",
            )
        ],
    ),
    (FileLook("tls_ca_file", "/c", 0o644, is_secret=False, ends=1000.0 + 20 * DAY),
     [("[nats_executor] tls_ca_file", "ok", "valid for 20 days")]),
    (
        FileLook("tls_certificate_file", "/c", 0o644, is_secret=False, ends=1000.0 + 3 * DAY),
        [
            (
                "[nats_executor] tls_certificate_file", "expires soon",
                "in 3.0 days; renew it on this machine",
            )
        ],
    ),
    (
        FileLook("credentials_file", "/x", None, is_secret=True),
        [
            (
                "[nats_executor] credentials_file", "unreadable",
                "cannot look at '/x'; name a file that this process can read",
            )
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("look", "rows"), FILES)
def test_files_of_secrets_and_certificates(look: FileLook, rows: list[Found]) -> None:
    assert told(file_findings([look], now=1000.0)) == rows


def test_clocks_are_compared_with_that_of_nats() -> None:
    ahead = TimedAnswer(AskedExecutor("7", STATE), clock=3.0)

    assert told(clock_findings(None, [], [])) == [
        ("clocks", "unknown", "NATS has no stream yet that tells its time")
    ]
    assert told(clock_findings(2.0, [record("w", 5.0), record("v", -1.0)], [ahead])) == [
        ("clocks", "ok", "4 within 5 s of that of NATS, 5.0 s at most")
    ]
    assert told(clock_findings(-6.0, [record("w", -7.5), record("old", 0.0)], [ahead])) == [
        ("clock of scheduler 7", "skewed", "9.0 s ahead of that of NATS; set both by NTP"),
        ("clock of this machine", "skewed", "6.0 s ahead of that of NATS; set both by NTP"),
        ("clock of worker w", "skewed", "7.5 s behind that of NATS; set both by NTP"),
    ]


def test_a_record_without_a_time_tells_nothing_about_a_clock() -> None:
    [row] = clock_findings(0.0, [record("w", -1000.0)], [])

    assert row["details"].startswith("1 within")


ANSWERS = ("API server", "ok", "http://api:8080/execution/ answers within 12.3 ms")
API: list[tuple[ApiLook, list[Found]]] = [
    (
        replace(LOOK, error="ConnectError: refused"),
        [
            (
                "API server", "unreachable",
                ("http://api:8080/execution/: ConnectError: refused; start it, or set "
                "[core] execution_api_server_url as seen here"),
            )
        ],
    ),
    (
        replace(LOOK, is_api=False),
        [
            (
                "API server", "wrong address",
                ("what answers at http://api:8080/execution/ is not Airflow's Execution API; set "
                "[core] execution_api_server_url"),
            )
        ],
    ),
    (
        replace(LOOK, token_error="ValueError"),
        [
            ANSWERS,
            (
                "API token", "missing",
                ("none can be made here: ValueError; set [api_auth] jwt_secret to the same text "
                "for API servers and schedulers. A worker needs none"),
            ),
        ],
    ),
    (
        replace(LOOK, token_status=403, token_detail="Token type 'workload' not allowed"),
        [ANSWERS, ("API token", "ok", "the API server accepts a token made here")],
    ),
    (
        replace(LOOK, token_status=404, token_detail={"reason": "not_found"}),
        [ANSWERS, ("API token", "ok", "the API server accepts a token made here")],
    ),
    (
        replace(LOOK, token_status=404, token_detail="Not Found"),
        [ANSWERS, ("API token", "unclear", "the API server answers 404 to it; look into its log")],
    ),
    (
        replace(LOOK, token_status=403, token_detail="Invalid auth token", clock=10.0),
        [
            ANSWERS,
            (
                "API token", "refused",
                ("the API server refuses a token made here (403), and the clocks agree: "
                f"{UNLIKE}[api_auth] jwt_issuer = '', [execution_api] jwt_audience = 'urn:x'"),
            ),
        ],
    ),
    (
        replace(LOOK, token_status=401, token_detail="Invalid auth token", clock=-11.0),
        [
            ANSWERS,
            (
                "API token", "refused",
                ("the API server refuses a token made here (401): its clock is 11 s behind; set "
                "both clocks by NTP"),
            ),
        ],
    ),
    (
        replace(LOOK, token_status=403, token_detail={"reason": "x"}, clock=None),
        [
            ANSWERS,
            (
                "API token", "refused",
                ("the API server refuses a token made here (403), and the clocks agree: "
                f"{UNLIKE}[api_auth] jwt_issuer = '', [execution_api] jwt_audience = 'urn:x'"),
            ),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("look", "rows"), API)
def test_the_api_server_and_its_word_on_a_token(look: ApiLook, rows: list[Found]) -> None:
    assert told(api_findings(look, leeway=10.0, named=NAMED)) == rows


@pytest.mark.parametrize(
    ("status", "fine"), [("ok", True), ("unknown", True), ("skewed", False), ("missing", False)]
)
def test_what_is_not_known_needs_no_person(status: str, *, fine: bool) -> None:
    assert is_fine({"status": status}) is fine
