"""Any queue name becomes one valid NATS token, and never another queue's."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nats_executor.wire.names import (
    PLAIN_LOWER,
    Lane,
    Names,
    Place,
    SchedulerVerb,
    Verb,
    is_probe,
    probe_id,
    token,
)

# Lone surrogates included: what a file system or a bad decoder hands on.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=250)
# Texts that a careless mapping would confuse.
CLOSE_TEXT = st.text(st.sampled_from("aA.-_ *>/é\ud800\n\x00"), max_size=6)
TEXT = ANY_TEXT | CLOSE_TEXT | CLOSE_TEXT.map(token)
VALID = re.compile(r"[A-Za-z0-9_-]{1,64}")
ODD = [
    "",
    ".",
    "a.b",
    "a b",
    "*",
    ">",
    "a.>",
    "größe",
    "日本",
    "q" * 65,
    "q" * 200,
    "\ud800",
    "a\n",
]


@pytest.mark.parametrize("name", ["default", "gpu_2", "Team-A", "-", "q" * 64, "a--b"])
def test_a_plain_name_stays_readable(name: str) -> None:
    assert token(name) == name


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_marked(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,24}--[0-9a-f]{32}", token(name))


def test_an_odd_name_keeps_what_people_recognize() -> None:
    assert token("GPU nodes.eu-west").startswith("gpu-nodes-eu-west--")


def test_a_name_that_looks_marked_is_marked_again() -> None:
    """Or a queue that is named like the token of another one would get its workloads."""
    marked = token("a.b")

    assert token(marked) != marked


def test_odd_names_do_not_meet() -> None:
    assert len({token(name) for name in ODD}) == len(ODD)


@given(TEXT)
def test_a_token_is_valid(text: str) -> None:
    assert VALID.fullmatch(token(text))


@given(TEXT, TEXT)
@example("a.b", "a-b")
@example("a", "A")
@example("q" * 200, "q" * 201)
@example("é", "e\u0301")
def test_two_texts_never_share_a_token(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)


@given(TEXT, TEXT)
def test_two_texts_never_share_a_lower_case_token(one: str, other: str) -> None:
    """Stream names are in capitals, so the prefixes of teams must differ in more than case."""
    tokens = [token(text, plain=PLAIN_LOWER) for text in (one, other)]

    assert (tokens[0].upper() == tokens[1].upper()) == (one == other)


@given(TEXT, TEXT)
def test_a_subject_gives_back_queue_and_dispatch(queue: str, dispatch_id: str) -> None:
    names = Names("airflow-prod")
    place = Place(token(queue), token(dispatch_id))

    for subject in (
        names.task(queue, dispatch_id),
        names.result(queue, dispatch_id),
        names.dead_letter(queue, dispatch_id),
    ):
        assert Names.place(subject) == place
        assert len(subject) < 255


@given(TEXT, st.integers(0, 9))
def test_a_lane_owns_the_subjects_of_its_own_token(queue: str, band: int) -> None:
    names, lane = Names(), Lane(queue, band)

    assert names.tasks(lane) == f"airflow.tasks.{names.consumer(queue, band)}.*"
    assert names.task(queue, "x", band).startswith(names.tasks(lane)[:-1])


@given(TEXT, TEXT, st.integers(0, 9), st.integers(0, 9))
@example("a--b1", "a", 0, 1)
@example("a", "a", 0, 1)
def test_two_lanes_share_no_token(one: str, other: str, band: int, other_band: int) -> None:
    first, second = Lane(one, band), Lane(other, other_band)

    assert (first.token == second.token) == (first == second)


@given(TEXT, TEXT)
def test_teams_share_no_name(one: str, other: str) -> None:
    first, second = Names().for_team(one), Names().for_team(other)

    assert (first.tasks_stream == second.tasks_stream) == (one == other)
    assert (first.workers_bucket == second.workers_bucket) == (one == other)
    assert first.tasks_stream != Names().tasks_stream


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Names("a").tasks_stream, "A_TASKS"),
        (Names("a").results_stream, "A_RESULTS"),
        (Names("a").dead_letters_stream, "A_DEAD_LETTERS"),
        (Names("a").workers_bucket, "a_workers"),
        (Names("a").workers_stream, "KV_a_workers"),
        (Names("a").task("default", "id"), "a.tasks.default.id"),
        (Names("a").tasks(), "a.tasks.>"),
        (Names("a").tasks(Lane("default")), "a.tasks.default.*"),
        (Names("a").tasks(Lane("default", 2)), "a.tasks.default--b2.*"),
        (Names("a").consumer("default", 2), "default--b2"),
        (Names("a").result("default", "id"), "a.results.default.id"),
        (Names("a").results(), "a.results.>"),
        (Names("a").dead_letter("default", "id"), "a.dead.default.id"),
        (Names("a").dead_letters(), "a.dead.>"),
        (Names("a").control("w1", Verb.PING), "a.ctl.w1.ping"),
        (Names("a").peer("w1"), "a.peers.w1"),
        (Names("a").scheduler("7", SchedulerVerb.STATE), "a.schedulers.7.state"),
        (Names("a").task_anywhere("d1"), "a.tasks.*.d1"),
        (Names("a").task_anywhere("a.b"), f"a.tasks.*.{token('a.b')}"),
        (Names("a").scheduler("a.b", SchedulerVerb.STATE), f"a.schedulers.{token('a.b')}.state"),
        (Names("a").schedulers(SchedulerVerb.STATE), "a.schedulers.*.state"),
        (Names("a").schedulers(), "a.schedulers.*.*"),
        (Names("a").presence("q", "w1"), "$KV.a_workers.q.w1"),
        (Names("a").presences("q"), "$KV.a_workers.q.*"),
        (Names("a").presences(), "$KV.a_workers.>"),
        (Names("a").older_presence("w1"), "$KV.a_workers.w1"),
        (Names("a").older_presences(), "$KV.a_workers.*"),
        (Names("a").queue_hold("q"), "$KV.a_holds.queue.q"),
        (Names("a").queue_holds(), "$KV.a_holds.queue.*"),
        (Names("a").worker_hold("q", "w1"), "$KV.a_holds.worker.q.w1"),
        (Names("a").worker_holds("q"), "$KV.a_holds.worker.q.*"),
        (Names("a").worker_holds(), "$KV.a_holds.worker.>"),
        (Names("a").for_team("red").prefix, "a-red"),
    ],
)
def test_names_stay_as_they_are(found: str, expected: str) -> None:
    """A release that renames one loses what the one before has queued."""
    assert found == expected


def test_a_logs_subjects_hold_its_queue() -> None:
    names = Names()
    part = names.log_part("gpu", "dag_id=a/attempt=1.log", "f00d")

    assert part.startswith("$O.airflow_logs.C.gpu.dag_id-a-attempt-1-log--")
    assert names.log_chunk("gpu", "dag_id=a/attempt=1.log", "f00d", 7) == f"{part}.7"
    assert names.log_parts("gpu", "dag_id=a/attempt=1.log") == part.replace("f00d", "*")
    assert names.log_chunks("gpu") == "$O.airflow_logs.C.gpu.>"
    assert names.logs_stream == "OBJ_airflow_logs"


@given(TEXT, TEXT)
def test_logs_of_two_queues_or_paths_never_meet(one: str, other: str) -> None:
    names = Names()

    of_queues = {names.log_part(queue, "path", "f00d") for queue in (one, other)}
    of_paths = {names.log_part("queue", path, "f00d") for path in (one, other)}
    assert len(of_queues) == len(of_paths) == len({one, other})
    assert {subject.count(".") for subject in of_queues | of_paths} == {5}


@pytest.mark.parametrize(
    ("lane", "text"),
    [
        (Lane("a"), "queue 'a'"),
        (Lane("a", 0), "queue 'a'"),
        (Lane("a", 1), "priority band 1 of queue 'a'"),
    ],
)
def test_a_lane_is_named_with_its_band(lane: Lane, text: str) -> None:
    assert str(lane) == text


def test_a_probe_is_told_from_a_workload_of_airflow_by_its_id() -> None:
    assert is_probe(probe_id("1"))
    assert token(probe_id("1")) == probe_id("1")
    assert not is_probe(str(uuid.uuid4()))
