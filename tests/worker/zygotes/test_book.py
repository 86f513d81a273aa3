"""Which Dag files have a zygote, as a table: what comes, when, and what becomes of it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from nats_worker.processes.zygote_book import (
    IDLE_SECONDS,
    LARGEST_SHARE,
    MEETING_SECONDS,
    MOST_FILES,
    MOST_SERVED,
    MOST_ZYGOTES,
    OLDEST_SECONDS,
    PARDONED,
    RETRY_SECONDS,
    SETTLE_SECONDS,
    TEXTS,
    WORTHWHILE,
    Book,
    DagFile,
    Reason,
    Step,
    dag_file_of,
)

LOCAL = DagFile("dags", None, "a.py")
VERSIONED = DagFile("dags", "v1", "a.py")
OTHER = DagFile("dags", None, "b.py")
BODY = {
    "type": "ExecuteTask",
    "dag_rel_path": "a.py",
    "bundle_info": {"name": "dags", "version": None},
}


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({}, LOCAL),
        ({"bundle_info": {"name": "dags", "version": "v1"}}, VERSIONED),
        ({"bundle_info": {"name": "dags", "version": None, "version_data": None}}, LOCAL),
        ({"bundle_info": {"name": "dags", "version": None, "version_data": {"a": 1}}}, None),
        ({"bundle_info": {"name": "dags"}}, None),
        ({"bundle_info": {"name": "dags", "version": 1}}, None),
        ({"bundle_info": {"name": "d" * 4096, "version": None}}, DagFile("d" * 4096, None, "a.py")),
        ({"bundle_info": {"name": "d" * 4097, "version": None}}, None),
        ({"bundle_info": {"name": "dags", "version": "v" * 4097}}, None),
        ({"dag_rel_path": "a" * 4094 + ".py"}, None),
        ({"dag_rel_path": "a.zip"}, None),
        ({"dag_rel_path": None}, None),
        ({"type": "ExecuteCallback"}, None),
    ],
)
def test_the_dag_file_of_a_workload(changes: dict[str, Any], file: DagFile | None) -> None:
    assert dag_file_of(BODY | changes, None) == file


def test_each_team_has_its_own() -> None:
    assert dag_file_of(BODY, "ghosts") == DagFile("dags", None, "a.py", "ghosts")


def test_a_file_in_a_log_line() -> None:
    assert str(LOCAL) == "'a.py' of bundle 'dags'"
    assert str(VERSIONED) == "'a.py' of bundle 'dags' v1"


def met(*moments: float, file: DagFile = LOCAL, book: Book | None = None) -> list[Step]:
    book = book or Book()
    return [book.meet(file, moment) for moment in moments]


@pytest.mark.parametrize(
    ("moments", "steps"),
    [
        ((0.0,), [Step.PLAIN]),
        ((0.0, MEETING_SECONDS), [Step.PLAIN, Step.BUILD]),
        ((0.0, MEETING_SECONDS + 1), [Step.PLAIN, Step.PLAIN]),
        ((0.0, 1.0, 2.0), [Step.PLAIN, Step.BUILD, Step.PLAIN]),
    ],
)
def test_the_second_task_has_one_built(moments: tuple[float, ...], steps: list[Step]) -> None:
    assert met(*moments) == steps


def test_one_is_built_at_a_time() -> None:
    book = Book()
    met(0.0, 1.0, book=book)

    assert met(0.0, 1.0, file=OTHER, book=book) == [Step.PLAIN, Step.PLAIN]
    book.built(LOCAL, 1, 2.0)
    assert met(3.0, file=OTHER, book=book) == [Step.BUILD]


def ready(*files: DagFile, size: int = 1, at: float = 2.0) -> Book:
    book = Book()
    for file in files:
        met(0.0, 1.0, file=file, book=book)
        book.built(file, size, at)
    return book


def test_one_that_is_ready_gets_the_tasks() -> None:
    book = ready(LOCAL)

    assert met(3.0, 1e6, book=book) == [Step.HAND_OVER, Step.HAND_OVER]
    assert book.entries[LOCAL].served == 2
    assert book.entries[LOCAL].used_at == 1e6


@pytest.mark.parametrize(
    ("file", "reason", "seconds"),
    [
        (LOCAL, Reason.THREAD, RETRY_SECONDS),
        (VERSIONED, Reason.THREAD, inf),
        (LOCAL, Reason.CHANGED, SETTLE_SECONDS),
        (VERSIONED, Reason.CHANGED, SETTLE_SECONDS),
        (VERSIONED, Reason.MEMORY, RETRY_SECONDS),
    ],
)
def test_a_refusal_holds(file: DagFile, reason: Reason, seconds: float) -> None:
    book = Book()
    met(0.0, 1.0, file=file, book=book)
    book.refuse(file, reason, 10.0)

    assert book.entries[file].refused_until == 10.0 + seconds
    late = min(10.0 + seconds, 1e9)
    assert met(late - 1.0, file=file, book=book) == [Step.PLAIN]
    if seconds < inf:
        assert met(late, file=file, book=book) == [Step.BUILD]


@pytest.mark.parametrize(
    ("served", "steps"),
    [(WORTHWHILE, [Step.BUILD]), (WORTHWHILE - 1, [Step.PLAIN])],
)
def test_one_that_is_stale_is_built_again_if_it_was_worth_it(
    served: int, steps: list[Step]
) -> None:
    book = ready(LOCAL)
    met(*[3.0] * served, book=book)

    book.stale(LOCAL, 4.0)

    assert met(5.0, book=book) == steps
    assert met(4.0 + RETRY_SECONDS, book=Book()) == [Step.PLAIN]


def test_one_that_is_gone_is_built_again() -> None:
    book = ready(LOCAL)
    book.gone(LOCAL)

    assert met(3.0, book=book) == [Step.BUILD]
    assert book.entries[LOCAL].size == 0


@pytest.mark.parametrize(
    ("now", "served", "goes"),
    [
        (2.0 + IDLE_SECONDS - 1, 0, False),
        (2.0 + IDLE_SECONDS, 0, True),
        (3.0, MOST_SERVED - 1, False),
        (3.0, MOST_SERVED, True),
    ],
)
def test_one_goes_that_is_idle_or_has_served(now: float, served: int, *, goes: bool) -> None:
    book = ready(LOCAL)
    met(*[2.0] * served, book=book)

    assert book.surplus(now, limit=0, is_tight=False) == ([LOCAL] if goes else [])


@pytest.mark.parametrize(("now", "goes"), [(2.0 + OLDEST_SECONDS, True), (OLDEST_SECONDS, False)])
def test_one_goes_that_is_old(now: float, *, goes: bool) -> None:
    book = ready(LOCAL)
    met(now, book=book)

    assert book.surplus(now, limit=0, is_tight=False) == ([LOCAL] if goes else [])


def files(number: int) -> list[DagFile]:
    return [DagFile("dags", None, f"{n}.py") for n in range(number)]


def test_those_go_first_that_were_used_least_recently() -> None:
    several = files(MOST_ZYGOTES + 2)
    book = ready(*several)
    for moment, file in enumerate(reversed(several), start=3):
        book.meet(file, float(moment))

    assert book.surplus(20.0, limit=0, is_tight=False) == several[:-3:-1]


@pytest.mark.parametrize(
    ("limit", "number"), [(int(30 / LARGEST_SHARE), 0), (119, 1), (40, 2), (1, 3)]
)
def test_all_together_have_a_share_of_the_memory(limit: int, number: int) -> None:
    book = ready(*files(3), size=10)

    assert len(book.surplus(3.0, limit=limit, is_tight=False)) == number


def test_all_go_where_memory_is_tight() -> None:
    book = ready(*files(3))

    assert book.surplus(3.0, limit=0, is_tight=True) == files(3)
    assert Book().surplus(3.0, limit=0, is_tight=True) == []


def test_a_book_knows_so_many_files_at_most() -> None:
    book = ready(LOCAL)
    met(0.0, 1.0, file=OTHER, book=book)
    for file in files(MOST_FILES + 5):
        book.meet(file, 2.0)

    assert len(book.entries) == MOST_FILES
    assert {LOCAL, OTHER} <= book.entries.keys()
    assert files(1)[0] not in book.entries


def test_each_reason_is_told_in_words() -> None:
    assert TEXTS.keys() == set(Reason)
    assert set(PARDONED) == {Reason.CLOCK}
