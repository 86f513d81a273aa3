"""A worker takes workloads by what became of its starts and what its self-tests found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_worker.processes.exit_report import Ending, ExitReport
from nats_worker.processes.fitness import Fitness, Takes

NOTHING, ONE, ALL = Takes
# What happens to a worker, each with a letter: a start, a failed one, a doubt, a self-test that
# passes, and one that does not.
NOTES: dict[str, Any] = {
    "s": Fitness.note_start,
    "f": lambda fitness: fitness.note_failure("KeyError: 'uid'"),
    "d": Fitness.note_doubt,
    "p": lambda fitness: fitness.note_test([]),
    "n": lambda fitness: fitness.note_test(["the disk is full", "no user"]),
}
LAST = "failed on this worker; the last one: KeyError: 'uid'"
FOUND = "the disk is full; no user"


def after(notes: str) -> Fitness:
    fitness = Fitness()
    for note in notes:
        NOTES[note](fitness)
    return fitness


@pytest.mark.parametrize(
    ("notes", "takes", "test_in", "reason"),
    [
        # Before the first self-test, and after it.
        ("", NOTHING, 0, ""),
        ("d", NOTHING, 0, ""),
        ("p", ALL, None, ""),
        ("n", NOTHING, 1, FOUND),
        ("nn", NOTHING, 1.25, FOUND),
        ("nnn", NOTHING, 1.5625, FOUND),
        ("n" * 50, NOTHING, 30, FOUND),
        # Nothing has failed here, so the first workloads may be many.
        ("nnp", ALL, None, ""),
        ("nnpdn", NOTHING, 1, FOUND),
        # One that does not start makes it doubtful, and the next ones come one at a time.
        ("pf", NOTHING, 0, ""),
        ("pfp", ONE, None, ""),
        ("pfpf", NOTHING, 0, ""),
        ("pfpfp", ONE, None, ""),
        ("pfpfpf", NOTHING, 5, f"3 starts in a row {LAST}"),
        ("pfps", ALL, None, ""),
        ("pfpfps", ALL, None, ""),
        ("pfpspfpf", NOTHING, 0, ""),
        # Of many at the same time the first one is enough; the others count.
        ("pffff", NOTHING, 0, ""),
        ("pffffp", ONE, None, ""),
        ("pffffpf", NOTHING, 5, f"5 starts in a row {LAST}"),
        ("pffsff", NOTHING, 0, ""),
        ("pffsffp", ONE, None, ""),
        ("pffsp", ALL, None, ""),
        # A doubt is looked into.
        ("pddd", NOTHING, 0, ""),
        ("pdp", ALL, None, ""),
        ("pdn", NOTHING, 1, FOUND),
        ("pds", NOTHING, 0, ""),
        ("pdsp", ALL, None, ""),
        ("pfpd", NOTHING, 0, ""),
        ("pfpdp", ONE, None, ""),
        # Trials, after self-tests that do not see what fails.
        ("pfpfpfp", ONE, None, ""),
        ("pfpfpfpf", NOTHING, 10, f"4 starts in a row {LAST}"),
        ("pfpfpfpfpf", NOTHING, 20, f"5 starts in a row {LAST}"),
        ("pf" * 53, NOTHING, 300, f"53 starts in a row {LAST}"),
        ("pfpfpfd", NOTHING, 5, f"3 starts in a row {LAST}"),
        ("pfpfpff", NOTHING, 5, f"3 starts in a row {LAST}"),
        # A self-test that sees it.
        ("pfn", NOTHING, 1, FOUND),
        ("pfnf", NOTHING, 1, FOUND),
        ("pfnd", NOTHING, 1, FOUND),
        ("pfnp", ONE, None, ""),
        ("pfnpf", NOTHING, 0, ""),
        ("pfpfpfn", NOTHING, 1, FOUND),
        ("npf", NOTHING, 0, ""),
        # One start, and all is forgotten.
        ("pfpfpfps", ALL, None, ""),
        ("pfpfpfs", ALL, None, ""),
        ("pfpfpfpfpspfpfpf", NOTHING, 5, f"3 starts in a row {LAST}"),
        # But for what a self-test has found: with a full disk, all starts are well.
        ("s", NOTHING, 0, ""),
        ("nnns", NOTHING, 1.5625, FOUND),
        ("pfns", NOTHING, 1, FOUND),
        ("pfnsp", ALL, None, ""),
    ],
)
def test_what_a_worker_takes(notes: str, takes: Takes, test_in: float | None, reason: str) -> None:
    fitness = after(notes)

    assert (fitness.takes, fitness.test_in, fitness.reason) == (takes, test_in, reason)


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("blame", ["", "no API server"])
def test_what_the_end_of_a_workload_says_about_its_worker(ending: Ending, blame: str) -> None:
    """Nothing, if the supervisor was killed or told to stop, or the workload cannot be read."""
    fitness = after("pfp")
    silent = {
        Ending.DIED, Ending.GIVEN_UP, Ending.HUNG, Ending.UNREACHABLE, Ending.UNREADABLE,
        Ending.WRONG_ADDRESS,
    }  # fmt: skip

    fitness.note_end(ExitReport(ending=ending, started=True), blame)

    if blame:
        assert (fitness.takes, fitness.test_in) == (NOTHING, 0)
        NOTES["p"](fitness)
        assert fitness.takes is ONE
    elif ending is Ending.RAISED:
        assert (fitness.takes, fitness.test_in) == (NOTHING, 0)
    else:
        assert fitness.takes is (ONE if ending in silent else ALL)


lives = st.text("".join(NOTES), max_size=60)


@given(lives)
def test_a_worker_that_takes_nothing_tries_again(notes: str) -> None:
    """At once if it has no reason to give yet, and within five minutes in any case."""
    fitness = after(notes)

    if fitness.takes is NOTHING:
        assert fitness.test_in is not None
        assert bool(fitness.test_in) == bool(fitness.reason)
        assert 0 <= fitness.test_in <= 300
    else:
        assert (fitness.reason, fitness.test_in) == ("", None)


@given(lives)
def test_after_a_failure_all_slots_need_a_start(notes: str) -> None:
    """From wherever it is; a self-test alone brings back one workload at a time."""
    fitness = after(notes + "f")
    assert fitness.takes is NOTHING
    NOTES["p"](fitness)
    assert fitness.takes is ONE
    NOTES["s"](fitness)

    assert fitness.takes is ALL


@given(lives)
def test_no_worker_takes_four_in_a_row_that_fail_without_a_pause(notes: str) -> None:
    fitness = after(notes)
    pauses: list[float | None] = []
    for _ in range(4):
        NOTES["p"](fitness)
        assert fitness.takes is not NOTHING
        NOTES["f"](fitness)
        pauses.append(fitness.test_in)

    assert any(pauses)


@given(lives, st.integers(1, 40))
def test_the_pauses_before_trials_grow_and_end_with_a_start(notes: str, times: int) -> None:
    start = notes + "ps" + "pf" * 3
    pauses = [after(start + "pf" * number).test_in or 0 for number in range(times)]

    assert pauses == sorted(pauses)
    assert pauses[:4] == [5, 10, 20, 40][:times]
    assert max(pauses) <= 300


@given(lives)
def test_each_change_is_told_once(notes: str) -> None:
    told: list[tuple[Any, ...]] = []
    fitness = Fitness()

    def state() -> tuple[Any, ...]:
        return fitness.takes, fitness.reason, fitness.test_in

    fitness.on_change = lambda: told.append(state())
    before = state()
    for note in notes:
        expected = len(told)
        NOTES[note](fitness)
        expected += before != (before := state())
        assert len(told) == expected


def test_a_worker_that_waits_finds_the_end_of_its_wait_within_a_quarter_of_it() -> None:
    fitness, waited = Fitness(), 0.0
    for _ in range(40):
        NOTES["n"](fitness)
        pause = fitness.test_in or 0
        assert pause <= 1 + waited / 4
        waited += pause
