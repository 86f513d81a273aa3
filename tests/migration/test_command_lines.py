"""What is found in unit files, scripts, compose files and manifests."""

from __future__ import annotations

import pytest
import yaml

from nats_executor.migration.command_lines import (
    PartStart,
    flags_in,
    starts_in_text,
    starts_in_tree,
    variables_in,
    variables_in_tree,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ExecStart=/bin/airflow celery worker -q a,b -c 4", ("-q", "a,b", "-c", "4")),
        ("airflow celery worker \\\n    -q a \\\n  -c 4\nnext", ("-q", "a", "-c", "4")),
        ("exec airflow celery worker -q 'a b' && echo done", ("-q", "a b")),
        ("airflow celery worker -c 4; echo", ("-c", "4")),
        ("airflow celery worker -c 4 ; echo", ("-c", "4")),
        ("airflow celery worker -c 4 # four", ("-c", "4")),
        ("airflow celery worker -q 'a", ("-q", "'a")),
        ("airflow celery worker", ()),
    ],
)
def test_the_words_of_a_worker_are_found(text: str, words: tuple[str, ...]) -> None:
    assert starts_in_text(text) == [PartStart("worker", words)]


@pytest.mark.parametrize(
    "text",
    ["# airflow celery worker -q a", "; airflow celery worker", "airflow nats worker", "celery"],
)
def test_what_starts_nothing_of_celery_is_left_out(text: str) -> None:
    assert starts_in_text(text) == []


def test_every_start_of_a_file_is_found() -> None:
    found = starts_in_text("airflow celery worker -q a\nairflow celery flower -p 1\n")

    assert found == [PartStart("worker", ("-q", "a")), PartStart("flower", ("-p", "1"))]


@pytest.mark.parametrize(
    "text",
    [
        "services: {w: {command: celery worker -q a}}",
        "services: {w: {command: [celery, worker, -q, a]}}",
        "args: [bash, -c, 'exec airflow celery worker -q a']",
        "- {command: [airflow, celery, worker, -q, a]}",
    ],
)
def test_commands_in_yaml_are_texts_or_lists(text: str) -> None:
    assert list(starts_in_tree(yaml.safe_load(text))) == [PartStart("worker", ("-q", "a"))]


@pytest.mark.parametrize("text", ["celery: [worker]", "- celery\n- beat", "a: 1", "- celery"])
def test_other_lists_start_nothing(text: str) -> None:
    assert list(starts_in_tree(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    ("words", "flags", "unknown"),
    [
        (("-q", "a", "--concurrency", "4"), {"-q": "a", "-c": "4"}, []),
        (("--queues=a=b", "-c4"), {"-q": "a=b", "-c": "4"}, []),
        (("-D", "--autoscale", "9,3"), {"-D": "", "-a": "9,3"}, []),
        (("--without-mingle", "-q", "a"), {"--without-mingle": "", "-q": "a"}, []),
        (("--skip-serve-logs", "-q", "a"), {"-s": "", "-q": "a"}, []),
        (("--pool", "solo", "-q"), {"-q": ""}, ["--pool", "solo"]),
        ((), {}, []),
    ],
)
def test_flags_are_found_in_every_form(
    words: tuple[str, ...], flags: dict[str, str], unknown: list[str]
) -> None:
    assert flags_in(words) == (flags, unknown)


@pytest.mark.parametrize(
    "text",
    [
        "Environment=AIRFLOW__CELERY__POOL=solo",
        'Environment="AIRFLOW__CELERY__POOL=solo"',
        "AIRFLOW__CELERY__POOL: 'solo'",
        'AIRFLOW__CELERY__POOL: "solo"',
        "export AIRFLOW__CELERY__POOL=solo",
        "- AIRFLOW__CELERY__POOL=solo",
    ],
)
def test_variables_are_options(text: str) -> None:
    assert variables_in(text) == {("celery", "pool"): "solo"}


def test_sections_with_underscores_are_options_too() -> None:
    text = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT=60\n# AIRFLOW__A__B=1"

    found = {("celery_broker_transport_options", "visibility_timeout"): "60"}
    assert variables_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("env: [{name: AIRFLOW__CELERY__POOL, value: gevent}]", {("celery", "pool"): "gevent"}),
        ("a: [b: [{name: AIRFLOW__A_B__C_D, value: 8}]]", {("a_b", "c_d"): "8"}),
        ("- {name: AIRFLOW__A__B, value: ''}", {("a", "b"): ""}),
        ("- {name: AIRFLOW__A__B, valueFrom: {secretKeyRef: {name: x}}}", {("a", "b"): None}),
        ("- {name: XAIRFLOW__A__B, value: c}", {}),
        ("- {name: AIRFLOW__A, value: c}", {}),
        ("- {value: c}", {}),
    ],
)
def test_variables_of_kubernetes_are_lists(
    text: str, found: dict[tuple[str, str], str | None]
) -> None:
    assert dict(variables_in_tree(yaml.safe_load(text))) == found
