"""Subjects across domains, the readable part of a token, and names read back."""

from __future__ import annotations

import pytest

from nats_executor.wire.names import (
    Names,
    Place,
    SchedulerVerb,
    Verb,
    in_domain,
    token,
    without_domain,
)


@pytest.mark.parametrize(
    ("subject", "domain", "address"),
    [
        ("$KV.airflow_workers.a.w", "hub", "$JS.hub.API.$KV.airflow_workers.a.w"),
        ("$KV.airflow_workers.a.w", None, "$KV.airflow_workers.a.w"),
        ("$KV.airflow_workers.a.w", "", "$KV.airflow_workers.a.w"),
        ("airflow.tasks.a.d", "hub", "airflow.tasks.a.d"),
        ("airflow.tasks.a.d", None, "airflow.tasks.a.d"),
    ],
)
def test_only_key_value_subjects_have_an_address_in_another_domain(
    subject: str, domain: str | None, address: str
) -> None:
    assert in_domain(subject, domain) == address


@pytest.mark.parametrize(
    ("subject", "local"),
    [
        ("$JS.hub.API.$KV.airflow_workers.a.w", "$KV.airflow_workers.a.w"),
        ("$JS.hub.API.STREAM.INFO.S", "$JS.API.STREAM.INFO.S"),
        ("$JS.API.STREAM.INFO.S", "$JS.API.STREAM.INFO.S"),
        ("$JS.other.API.STREAM.INFO.S", "$JS.other.API.STREAM.INFO.S"),
        ("$KV.airflow_workers.a.w", "$KV.airflow_workers.a.w"),
        ("airflow.tasks.a.d", "airflow.tasks.a.d"),
        ("$JS.hub.API.!", "$JS.API.!"),
        ("$JS.hub.API.~", "$JS.API.~"),
    ],
)
def test_a_subject_of_a_domain_has_its_own_name_there(subject: str, local: str) -> None:
    assert without_domain(subject, "hub") == local


def test_the_readable_part_of_a_token_has_24_characters() -> None:
    assert token("x" * 200).partition("--")[0] == "x" * 24
    assert token("ab" * 11 + "." + "c" * 9).partition("--")[0] == "ab" * 11 + "-c"


def test_a_queue_has_its_lowest_bands_consumer_unless_another_is_named() -> None:
    assert Names().consumer("a") == "a"
    assert Names().consumer("a", 1) == "a--b1"


@pytest.mark.parametrize("subject", ["airflow.tasks.a.d", "a.b.c.tasks.a.d", "a.d"])
def test_the_last_two_tokens_are_the_place(subject: str) -> None:
    assert Names().place(subject) == Place("a", "d")


def test_an_object_is_named_by_its_chunks() -> None:
    chunk = Names().log_chunk("a", "path", "part", 7)

    assert chunk == "$O.airflow_logs.C.a.path.part.7"
    assert Names().log_object("a", "path", "part") == "a.path.part.*"


def test_questions_to_workers_and_to_schedulers() -> None:
    assert Names().controls() == "airflow.ctl.*.*"
    assert Names().controls(Verb.PING) == "airflow.ctl.*.ping"
    assert Names().schedulers() == "airflow.schedulers.*.*"
    assert Names().schedulers(SchedulerVerb.STATE) == "airflow.schedulers.*.state"
    assert Names().holds_stream == "KV_airflow_holds"
