"""What becomes of each thing that a team with Celery has."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml

from nats_executor.migration.command_lines import PartStart
from nats_executor.migration.dag_uses import DagUse
from nats_executor.migration.translating import (
    Deployed,
    GivenFile,
    check_for_celery,
    class_of,
    is_decided,
    listed,
    names_in,
    start_row,
)

NATS = "nats_executor.NatsExecutor"
BOTH = f"CeleryExecutor,{NATS}"


def deployed(executors: str = "CeleryExecutor", **more: Any) -> Deployed:
    return Deployed(**({"options": {}, "default_queue": "default"} | more), executors=executors)


def found(about: Deployed, theirs: str) -> list[dict[str, Any]]:
    return [row for row in check_for_celery(about) if row["theirs"] == theirs]


def a_file(text: str, name: str = "w.service") -> GivenFile:
    is_yaml = name.endswith(".yaml")
    return GivenFile(name, text, list(yaml.safe_load_all(text)) if is_yaml else [])


# The list of executors


@pytest.mark.parametrize(
    ("executors", "names"),
    [
        ("CeleryExecutor", ["CeleryExecutor"]),
        (BOTH, ["CeleryExecutor", "NatsExecutor"]),
        ("c:CeleryExecutor, n:nats_executor.NatsExecutor", ["CeleryExecutor", "NatsExecutor"]),
        ("LocalExecutor;a=CeleryExecutor", ["LocalExecutor", "CeleryExecutor"]),
        ("", []),
    ],
)
def test_executors_are_told_by_their_class(executors: str, names: list[str]) -> None:
    assert names_in(executors) == names


def test_a_path_ends_in_the_class() -> None:
    assert class_of("x:a.b.C") == "C"


@pytest.mark.parametrize(
    ("executors", "change", "ours"),
    [
        ("CeleryExecutor", "set", BOTH),
        ("a.b.CeleryExecutor", "set", f"a.b.CeleryExecutor,{NATS}"),
        ("LocalExecutor;a=CeleryExecutor", "set", f"LocalExecutor;a=CeleryExecutor,{NATS}"),
        (BOTH, "same", BOTH),
        (NATS, "same", NATS),
        ("CeleryKubernetesExecutor", "decide", ""),
    ],
)
def test_ours_goes_behind_celery(executors: str, change: str, ours: str) -> None:
    [row] = found(deployed(executors), "[core] executor")

    assert (row["change"], row["ours"], row["value"]) == (change, ours, executors)


# Options


@pytest.mark.parametrize(
    ("place", "value", "change", "ours", "shown"),
    [
        (
            ("celery", "worker_concurrency"), "8", "set",
            "[nats_executor] worker_concurrency = 8", "8",
        ),
        (("celery", "broker_url"), "redis://:pw@h/0", "set", "[nats_executor] servers", "hidden"),
        (("celery", "worker_autoscale"), "16,4", "decide", "[nats_executor] worker_concurrency",
         "16,4"),
        (("celery", "worker_prefetch_multiplier"), "4", "drop", "", "4"),
        (("celery", "of_tomorrow"), "pw", "decide", "", "hidden"),
        (("celery_broker_transport_options", "x"), "pw", "drop", "", "hidden"),
        (("celery_of_tomorrow", "x"), "pw", "decide", "", "hidden"),
        (("core", "parallelism"), "64", "same", "[core] parallelism", "64"),
        (("celery", "pool"), "gevent", "decide", "", "gevent"),
    ],
)  # fmt: skip
def test_an_option_has_its_counterpart(
    place: tuple[str, str], value: str, change: str, ours: str, shown: str
) -> None:
    [row] = found(deployed(options={place: value}), f"[{place[0]}] {place[1]}")

    assert (row["change"], row["ours"], row["value"]) == (change, ours, shown)
    assert row["note"]
    assert row["where"] == "Airflow's configuration"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("celery", "pool"), " Prefork "),
        (("celery", "ssl_active"), "False"),
        (("logging", "remote_logging"), "True"),
        (("smtp", "smtp_host"), "h"),
    ],
)
def test_what_needs_nothing_has_no_row(place: tuple[str, str], value: str) -> None:
    assert found(deployed(options={place: value}), f"[{place[0]}] {place[1]}") == []


def test_options_come_in_the_order_of_the_page() -> None:
    options = {("zcelery", "a"): "1", ("celery", "z"): "1", ("core", "parallelism"): "3",
               ("celery", "worker_umask"): "7", ("celery", "broker_url"): "x"}  # fmt: skip

    rows = check_for_celery(deployed(options=options))[1:]

    assert [row["theirs"] for row in rows] == [
        "[celery] broker_url", "[celery] worker_umask", "[core] parallelism", "[celery] z",
    ]  # fmt: skip


def test_options_behind_those_without_a_row_have_theirs() -> None:
    options = {("alpha", "x"): "1", ("celery", "flower_port"): "5555",
               ("celery", "pool"): "gevent", ("celery", "z"): "1"}  # fmt: skip

    rows = check_for_celery(deployed(options=options))[1:]

    assert [row["theirs"] for row in rows] == ["[celery] pool", "[celery] z"]


def test_a_long_value_is_cut_and_shown_without_control_characters() -> None:
    options = {("celery", "pool"): "\x1b" + "x" * 999, ("celery", "worker_concurrency"): "9" * 999}

    [_, slots, pool] = check_for_celery(deployed(options=options))

    assert slots["value"] == "9" * 200
    assert slots["ours"] == f"[nats_executor] worker_concurrency = {'9' * 200}"
    assert len(pool["value"]) == 200
    assert "\x1b" not in str(pool)


def test_no_secret_is_in_a_row_whatever_the_option() -> None:
    secret = {
        ("celery", "broker_url"),
        ("celery", "result_backend"),
        ("celery", "result_backend_sqlalchemy_engine_options"),
        ("celery", "flower_basic_auth"),
        ("celery", "extra_celery_config"),
        ("celery_broker_transport_options", "sentinel_kwargs"),
        ("celery_result_backend_transport_options", "sentinel_kwargs"),
        ("celery", "of_tomorrow"),
    }

    rows = check_for_celery(deployed(options=dict.fromkeys(secret, "s3cret")))

    assert len(rows) == 1 + len(secret)
    assert "s3cret" not in str(rows)


# Dags


def dag(name: str = "d", **more: Any) -> DagUse:
    return DagUse(name, **more)


def test_queues_are_set_up_with_one_command() -> None:
    dags = [
        dag(queues=Counter({"gpu": 1, "default": 2})),
        dag(queues=Counter({"gpu": 2, "a,b": 1})),
    ]

    [row] = found(deployed(dags=dags), "queue=")

    assert row["value"] == "a,b (1), default (2), gpu (3)"
    assert row["ours"] == """airflow nats setup -q '"a,b",default,gpu'"""
    assert row["change"] == "set"


@pytest.mark.parametrize(
    ("flags", "unserved"),
    [
        ("-q gpu", ["default"]),
        ("-q gpu,default", []),
        ("", ["gpu"]),
        ('-q "gpu', ["default", "gpu"]),
    ],
)
def test_a_queue_that_no_given_worker_serves_is_told(flags: str, unserved: list[str]) -> None:
    about = deployed(
        dags=[dag(queues=Counter({"gpu": 1, "default": 2}))],
        files=[a_file(f"airflow celery worker {flags}")],
    )

    rows = found(about, "queue=")

    assert [row["value"] for row in rows[1:]] == unserved
    assert {row["change"] for row in rows[1:]} <= {"decide"}


def test_flower_serves_no_queue() -> None:
    dags = [dag(queues=Counter({"default": 2}))]
    alone = deployed(dags=dags, files=[a_file("airflow celery flower")])
    beside = deployed(
        dags=dags, files=[a_file("airflow celery worker -q gpu\nairflow celery flower")]
    )

    assert len(found(alone, "queue=")) == 1
    assert [row["value"] for row in found(beside, "queue=")[1:]] == ["default"]


def test_a_queue_that_nats_cannot_have_is_told() -> None:
    [row] = found(deployed(dags=[dag(queues=Counter({"a\0b": 1}))]), "queue=")

    assert row["change"] == "decide"
    assert "\0" not in row["value"]


def test_dags_without_tasks_have_no_rows() -> None:
    assert {row["theirs"] for row in check_for_celery(deployed(dags=[dag()]))} == {
        "[core] executor"
    }


def test_dags_that_were_not_read_are_counted() -> None:
    [row] = found(deployed(unread=3), "Dags that were not read")

    assert (row["value"], row["change"]) == (3, "decide")
    assert found(deployed(unread=0), "Dags that were not read") == []


def test_pools_stay() -> None:
    [row] = found(deployed(dags=[dag(pools=Counter({"scarce": 2}))]), "pool=")

    assert (row["value"], row["change"]) == ("scarce (2)", "same")


@pytest.mark.parametrize(
    ("executor", "change", "ours"),
    [
        ("CeleryExecutor", "decide", f'executor="{NATS}"'),
        ("a.b.CeleryExecutor", "decide", f'executor="{NATS}"'),
        ("NatsExecutor", "same", 'executor="NatsExecutor"'),
        ("KubernetesExecutor", "same", 'executor="KubernetesExecutor"'),
    ],
)
def test_tasks_that_name_celery_have_to_be_changed(executor: str, change: str, ours: str) -> None:
    dags = [dag("d1", executors=Counter({executor: 2})), dag("d2")]

    [row] = found(deployed(dags=dags), "executor=")

    assert row["value"] == f"{executor}: 2 in d1"
    assert (row["change"], row["ours"]) == (change, ours)


def test_configurations_and_callbacks_name_their_dags() -> None:
    dags = [dag("d1", with_config=1), dag("d2", with_callbacks=2), dag("d3")]

    [configured] = found(deployed(dags=dags), "executor_config=")
    [calling] = found(deployed(dags=dags), "callbacks")

    assert (configured["value"], configured["change"]) == ("d1", "same")
    assert (calling["value"], calling["change"]) == ("d2", "same")


@pytest.mark.parametrize(
    ("count", "text"), [(1, "d0"), (10, "d9"), (11, "d9 and 1 more"), (13, "d9 and 3 more")]
)
def test_long_lists_are_cut(count: int, text: str) -> None:
    assert listed([f"d{number}" for number in range(count)]).endswith(text)


# Task instances


@pytest.mark.parametrize(
    ("executors", "unfinished", "rows"),
    [
        (BOTH, {"": 3, "CeleryExecutor": 2, NATS: 1}, [("Celery", 5, "same"), ("Nats", 1, "same")]),
        (f"{NATS},CeleryExecutor", {"": 3}, [("Celery", 0, "same"), ("Nats", 3, "same")]),
        (NATS, {"": 3, "CeleryExecutor": 2}, [("Celery", 2, "decide")]),
        (NATS, {"": 3}, []),
        ("CeleryExecutor", {"": 3, "NatsExecutor": 1}, [("Nats", 1, "decide")]),
        ("CeleryExecutor", {"": 3}, []),
        ("", {"": 3}, []),
    ],
)
def test_what_an_executor_still_has_is_counted(
    executors: str, unfinished: dict[str, int], rows: list[tuple[str, int, str]]
) -> None:
    told = [
        (row["theirs"].rpartition(" ")[2].removesuffix("Executor"), row["value"], row["change"])
        for row in check_for_celery(deployed(executors, unfinished=unfinished))
        if row["where"] == "Airflow's database"
    ]

    assert told == rows


# Files


@pytest.mark.parametrize(
    ("words", "ours", "change"),
    [
        ("-q a,b -c 4 -H w1", "-q a,b -c 4 -H w1", "set"),
        ("--queues a --concurrency=4", "-q a -c 4", "set"),
        ("-H celery@w1 -D --pid /p", "-H w1 --pid /p -D", "set"),
        ("-c 2 --autoscale 16,4", "-c 16", "decide"),
        ("-a ${SCALE}", "-c ${SCALE}", "decide"),
        ("-a 4,16", "-c 16", "decide"),
        ("-q 'a b'", "-q 'a b'", "set"),
        ("-q $QUEUES", "-q $QUEUES", "set"),
        ("-s --without-mingle --without-gossip -v", "-v", "set"),
        ("-u 022", "", "decide"),
        ("-q 1,2", "-q 1,2", "set"),
        ("-q a%b", "-q a%b", "set"),
        ("--pid /run/%n", "--pid /run/%n", "set"),
        ("-H %h -q a", "-q a", "decide"),
        ("-q a --pool solo", "-q a", "decide"),
        ("-t team --stdout /o --stderr /e -l /l", "-t team --stdout /o --stderr /e -l /l", "set"),
    ],
)
def test_a_worker_starts_with_the_same_flags(words: str, ours: str, change: str) -> None:
    about = deployed(files=[a_file(f"airflow celery worker {words}")])

    [row] = [row for row in check_for_celery(about) if row["where"] == "w.service"]

    assert row["ours"] == f"airflow nats worker {ours}".rstrip()
    assert row["change"] == change
    assert bool(row["note"]) is (change == "decide" or words.startswith("-s"))


def test_words_that_are_not_known_are_not_shown() -> None:
    row = start_row("f", PartStart("worker", ("--password", "s3cret", "-q", "a")))

    assert "s3cret" not in str(row)
    assert row["change"] == "decide"


def test_flower_is_dropped_and_its_login_not_shown() -> None:
    row = start_row("f", PartStart("flower", ("-A", "u:s3cret")))

    assert (row["change"], row["ours"]) == ("drop", "airflow nats top")
    assert "s3cret" not in str(row)


def test_variables_of_a_file_are_options() -> None:
    about = deployed(files=[a_file("Environment=AIRFLOW__CELERY__BROKER_URL=redis://:s3cret@h\n")])

    [row] = found(about, "[celery] broker_url")

    assert (row["where"], row["value"]) == ("w.service", "hidden")


def test_variables_of_a_manifest_are_options() -> None:
    text = """
    env:
      - {name: AIRFLOW__CELERY__POOL, value: gevent}
      - {name: AIRFLOW__CELERY__SSL_KEY, valueFrom: {secretKeyRef: {name: x, key: y}}}
    """
    file = GivenFile("w.yaml", text, [yaml.safe_load(text)])

    assert {
        row["theirs"]: row["value"] for row in check_for_celery(deployed(files=[file]))[1:]
    } == {
        "[celery] pool": "gevent",
        "[celery] ssl_key": "hidden",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:s3cret@bucket/x", "s3://hidden@bucket/x"),
        ("s3://key:a/s3cret@b@bucket", "s3://hidden@bucket"),
        ("s3://bucket/a b@c", "s3://bucket/a b@c"),
    ],
)
def test_no_login_of_an_address_is_shown(text: str, shown: str) -> None:
    place = ("logging", "remote_base_log_folder")
    words = f"airflow celery worker --pid '{text}'"
    rows = check_for_celery(deployed(options={place: text}, files=[a_file(words)]))

    assert [row["value"] for row in rows[1:]] == [shown, shown]
    assert "s3cret" not in str(rows)


def test_values_of_the_official_chart_are_translated() -> None:
    text = """
executor: CeleryExecutor
data: {brokerUrl: "redis://:s3cret@h"}
workers: {replicas: 3, keda: {enabled: true}, args: [airflow, celery, worker, -q, a]}
flower: {enabled: true, username: s3cret}
config: {celery: {worker_concurrency: 8}}
"""
    rows = check_for_celery(deployed(files=[a_file(text, "values.yaml")]))

    told = {row["theirs"]: (row["value"], row["change"]) for row in rows[1:]}
    assert told == {
        "airflow celery worker -q": ("a", "set"),
        "executor": ("CeleryExecutor", "set"),
        "data.brokerUrl": ("hidden", "set"),
        "workers.replicas": (3, "set"),
        "workers.keda.enabled": (True, "set"),
        "workers.args": ("hidden", "set"),
        "flower.enabled": (True, "drop"),
        "flower.username": ("hidden", "drop"),
        "[celery] worker_concurrency": ("8", "set"),
    }
    assert "s3cret" not in str(rows)


def test_a_compose_file_has_no_values() -> None:
    text = "services: {w: {command: celery worker -q a}}\nexecutor: x"

    rows = check_for_celery(deployed(files=[a_file(text, "compose.yaml")]))[1:]

    assert [row["theirs"] for row in rows] == ["airflow celery worker -q"]


def test_a_file_without_celery_says_so() -> None:
    [_, row] = check_for_celery(deployed(files=[a_file("echo hello")]))

    assert (row["where"], row["theirs"], row["change"]) == ("w.service", "file", "same")


@pytest.mark.parametrize(
    ("changes", "is_so"), [([], True), (["same", "set", "drop"], True), (["same", "decide"], False)]
)
def test_one_open_row_is_enough(changes: list[str], is_so: bool) -> None:
    assert is_decided([{"change": change} for change in changes]) is is_so
