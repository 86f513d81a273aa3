"""What a task instance waits for, concluded from plain data: each cause, and its sentence."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from nats_executor.operations.facts import (
    Ahead,
    InHand,
    Instance,
    Pause,
    QueueWorker,
    Sender,
    Situation,
    facts_row,
)
from nats_executor.operations.reasons import Cause, conclude

NOW = 10_000.0
QUEUED = Instance(
    dag="etl", run="r", task="t", map_index=None, try_number=1, state="queued", queue="gpu",
    dispatch_id="d1", queued_at=NOW - 90, sender_job=7,
)  # fmt: skip
BUSY = QueueWorker("w1", "running", 4, 4)
FREE = QueueWorker("w2", "running", 1, 4)
WAITING = Situation(instance=QUEUED, now=NOW, is_in_stream=True, pending=5, servers=(BUSY,))
MISSING = Situation(instance=QUEUED, now=NOW)
NEXT = Ahead(0, 0)


def row(state: str, **more: Any) -> Situation:
    return replace(MISSING, instance=replace(QUEUED, state=state, **more))


def waits(*servers: QueueWorker, **more: Any) -> Situation:
    return replace(WAITING, servers=servers, **more)


def heavy(weight: int, **more: Any) -> Situation:
    changes: dict[str, Any] = {"servers": (BUSY, FREE), "weighs": True, "ahead": NEXT}
    return replace(WAITING, instance=replace(QUEUED, weight=weight), **(changes | more))


def in_hand(phase: str = "", since: float | None = None, **more: Any) -> Situation:
    return replace(WAITING, holdings=(InHand("w1", phase, since),), **more)


def sent_by(**facts: Any) -> Situation:
    return replace(MISSING, sender=Sender(**facts))


DRAINED = QueueWorker("w3", "draining", 2, 4, why="drained by ann (upgrade)")
PAUSED = QueueWorker("w4", "paused", 0, 4, why="memory at 95 %")
GONE = QueueWorker("w5", "lost", 0, 4, age=300.0)

CASES = {
    # Airflow's row says it
    "none": (row(""), Cause.NOT_QUEUED, "Airflow has not queued it: its state is none."),
    "scheduled": (
        row("scheduled"), Cause.NOT_QUEUED, "Airflow has not queued it: its state is scheduled.",
    ),
    "deferred": (
        row("deferred"), Cause.NOT_QUEUED, "Airflow has not queued it: its state is deferred.",
    ),
    "other executor": (
        row("queued", is_ours=False, executor="LocalExecutor"), Cause.OTHER_EXECUTOR,
        "It is queued and belongs to another executor, LocalExecutor.",
    ),
    "the default executor is another one": (
        row("", is_ours=False), Cause.OTHER_EXECUTOR,
        "It is not queued and belongs to another executor, the default one.",
    ),
    "runs": (row("running", started_at=NOW - 130, worker="host"), Cause.RUNS,
             "It runs for 2 min on host."),
    "runs, and no more is known": (row("restarting"), Cause.RUNS, "It runs."),
    "over": (row("success", ended_at=NOW - 7500), Cause.OVER,
             "It is over since 2.1 h, with the state success."),
    "failed": (row("failed", remark="worker w1 lost"), Cause.OVER,
               "It is over, with the state failed: worker w1 lost."),
    "success has no remark": (row("success", remark="worker w1 gave it back"), Cause.OVER,
                              "It is over, with the state success."),
    "too large": (
        row("failed", remark="too large for NATS: 2 MB"), Cause.TOO_LARGE,
        "It was never sent: too large for NATS: 2 MB.",
    ),
    "too large, to be tried again": (
        row("up_for_retry", remark="too large for NATS: 2 MB"), Cause.TOO_LARGE,
        "It was never sent: too large for NATS: 2 MB.",
    ),
    "too large before, and mended": (
        row("success", remark="too large for NATS: 2 MB"), Cause.OVER,
        "It is over, with the state success.",
    ),
    "not wanted": (
        replace(row("success"), is_in_stream=True), Cause.UNWANTED,
        ("Airflow no longer wants it: its state is success, and its message still is in queue "
        "'gpu'; the executor takes it out when it looks the next time."),
    ),
    "cleared": (
        replace(row(""), is_in_stream=True, band=1), Cause.UNWANTED,
        ("Airflow no longer wants it: its state is none, and its message still is in priority "
        "band 1 of queue 'gpu'; the executor takes it out when it looks the next time."),
    ),
    "dead letter": (replace(row("failed"), letter="bad bytes"), Cause.DEAD_LETTER,
                    "It became a dead letter: bad bytes."),
    "dead letter without a reason": (
        replace(MISSING, letter=""), Cause.DEAD_LETTER,
        "It became a dead letter: no reason is known.",
    ),
    # NATS does not have it
    "executor full": (
        sent_by(taken=32, slots=32), Cause.EXECUTOR_FULL,
        "It is still in the scheduler: 32 of the executor's 32 slots are taken.",
    ),
    "executor more than full": (
        sent_by(taken=2, slots=1), Cause.EXECUTOR_FULL,
        "It is still in the scheduler: 2 of the executor's 1 slot are taken.",
    ),
    "executor not full": (
        sent_by(taken=31, slots=32, answers=True), Cause.IN_SCHEDULER,
        "It is still in the scheduler, which sends it with its next heartbeat.",
    ),
    "executor without a limit": (
        sent_by(taken=31, answers=True), Cause.IN_SCHEDULER,
        "It is still in the scheduler, which sends it with its next heartbeat.",
    ),
    "executor does not answer": (
        MISSING, Cause.IN_SCHEDULER,
        "NATS does not have it: the scheduler is about to send it, or to send it again.",
    ),
    "cannot be sent": (
        sent_by(trouble="stream is full", trouble_seconds=150.0, taken=9, slots=9),
        Cause.NOT_SENT,
        "It is still in the scheduler, which cannot send it to NATS for 2 min: stream is full.",
    ),
    "scheduler lost": (
        sent_by(silent=119.4, is_lost=True, taken=9, slots=9), Cause.SCHEDULER_LOST,
        "Its scheduler (job 7) has been silent for 119 s; another scheduler takes it over.",
    ),
    "scheduler never had a heartbeat": (
        sent_by(is_lost=True), Cause.SCHEDULER_LOST,
        "Its scheduler (job 7) has been silent for 0 s; another scheduler takes it over.",
    ),
    "scheduler answers all the same": (
        sent_by(silent=119.4, is_lost=True, answers=True, knows=True), Cause.LOST,
        "NATS has lost its message; the executor sends it again when it looks the next time.",
    ),
    "lost, and the executor is full": (
        sent_by(answers=True, knows=True, taken=9, slots=9), Cause.LOST,
        "NATS has lost its message; the executor sends it again when it looks the next time.",
    ),
    "reported": (
        replace(sent_by(answers=True, knows=True, taken=9, slots=9), is_reported=True),
        Cause.OVER,
        ("A worker has reported on it, and NATS has its message no more; the scheduler will have "
        "read that in a moment."),
    ),
    # NATS has it, and no worker
    "token": (
        replace(WAITING, sender=Sender(state="expired")), Cause.RENEWAL,
        ("Its token died while it waited; the executor renews it, and it keeps its place in the "
            "queue."),
    ),
    "paused": (
        replace(WAITING, pause=Pause("until noon", "ann", "upgrade")), Cause.QUEUE_PAUSED,
        "Queue 'gpu' is paused by ann until noon (upgrade); 5 wait in it.",
    ),
    "paused by another client": (
        waits(pause=Pause("until it is resumed")), Cause.QUEUE_PAUSED,
        "Queue 'gpu' is paused until it is resumed; 5 wait in it.",
    ),
    "no worker": (waits(), Cause.NO_WORKER, "No worker serves queue 'gpu', in which 5 wait."),
    "band unserved": (
        waits(FREE, GONE, band=1), Cause.BAND_UNSERVED,
        ("No worker takes what is in priority band 1 of queue 'gpu': the workers of the queue pull "
        "from fewer bands."),
    ),
    "the only worker of the band is lost": (
        waits(FREE, replace(GONE, bands=2), band=1), Cause.BAND_UNSERVED,
        ("No worker takes what is in priority band 1 of queue 'gpu': the workers of the queue pull "
        "from fewer bands."),
    ),
    "the band is served": (
        waits(FREE, replace(FREE, bands=2), band=1, ahead=NEXT), Cause.TURN,
        "It is next in queue 'gpu'; a worker takes it in a moment.",
    ),
    "workers paused": (
        waits(PAUSED, DRAINED, GONE), Cause.WORKERS_PAUSED,
        ("No worker of queue 'gpu' takes anything: 1 paused and 1 draining and 1 lost "
        "(w4: memory at 95 %, w3: drained by ann (upgrade), w5: silent for 5 min)."),
    ),
    "workers draining": (
        waits(replace(DRAINED, why=""), GONE), Cause.WORKERS_DRAINING,
        ("No worker of queue 'gpu' takes anything: 1 draining and 1 lost (w3: 2 running, w5: "
        "silent for 5 min)."),
    ),
    "workers lost": (
        waits(*(replace(GONE, name=f"g{number}") for number in range(5))), Cause.WORKERS_LOST,
        ("No worker of queue 'gpu' takes anything: 5 lost (g0: silent for 5 min, g1: silent for "
        "5 min, g2: silent for 5 min and 2 more)."),
    ),
    "all are lost, those of the band first": (
        waits(GONE, replace(GONE, name="g", bands=2), band=1), Cause.WORKERS_LOST,
        "No worker of queue 'gpu' takes anything: 1 lost (g: silent for 5 min).",
    ),
    "all are lost, none was of the band": (
        waits(GONE, band=1), Cause.WORKERS_LOST,
        "No worker of queue 'gpu' takes anything: 1 lost (w5: silent for 5 min).",
    ),
    "limit": (
        waits(FREE, in_flight=2, limit=2, runs=("etl.a on w1", "etl.b on w2")), Cause.LIMIT,
        "Queue 'gpu' has reached its limit: 2 of 2 are with workers: etl.a on w1, etl.b on w2.",
    ),
    "more than the limit, which was lowered": (
        waits(FREE, in_flight=3, limit=2), Cause.LIMIT,
        "Queue 'gpu' has reached its limit: 3 of 2 are with workers.",
    ),
    "below the limit": (
        waits(FREE, in_flight=1, limit=2, ahead=NEXT), Cause.TURN,
        "It is next in queue 'gpu'; a worker takes it in a moment.",
    ),
    "too heavy": (
        heavy(5), Cause.WEIGHT,
        "It asks for 5 slots (pool_slots), and the largest worker of queue 'gpu' has 4.",
    ),
    "as heavy as a worker": (
        heavy(4), Cause.TURN, "It is next in queue 'gpu'; a worker takes it in a moment.",
    ),
    "weight does not count": (
        heavy(5, weighs=False), Cause.TURN,
        "It is next in queue 'gpu'; a worker takes it in a moment.",
    ),
    "workers full": (
        waits(BUSY, ahead=NEXT, started=10), Cause.WORKERS_FULL,
        ("It is next in queue 'gpu', and all 4 slots of 1 worker are taken; 2.0 a minute have "
        "started, so it starts in about 30 s."),
    ),
    "workers full for long": (
        waits(BUSY, replace(FREE, taken=5), ahead=NEXT, started=0), Cause.WORKERS_FULL,
        ("It is next in queue 'gpu', and all 8 slots of 2 workers are taken; none of the queue has "
        "started in the last 5 min."),
    ),
    "turn": (
        waits(BUSY, started=5, ahead=Ahead(4, 4, (("a", 2), ("b", 1), ("c", 1), ("d", 1)))),
        Cause.TURN,
        ("It waits its turn in queue 'gpu': 4 tasks are ahead of it (2 of a, 1 of b, 1 of c), all "
        "4 slots of 1 worker are taken; 1.0 a minute have started, so it starts in about 5 min."),
    ),
    "one is ahead": (
        waits(FREE, ahead=Ahead(1, 1)), Cause.TURN,
        "It waits its turn in queue 'gpu': 1 task is ahead of it, 3 slots are free.",
    ),
    "a bound": (
        waits(FREE, ahead=Ahead(0, 3)), Cause.TURN,
        "It waits its turn in queue 'gpu': 0 to 3 tasks are ahead of it, 3 slots are free.",
    ),
    "no position": (waits(FREE), Cause.TURN,
                    "It waits its turn in queue 'gpu': 5 wait, 3 of 4 slots are free."),
    "no position and no slot": (
        waits(BUSY), Cause.TURN,
        "It waits its turn in queue 'gpu': 5 wait, all 4 slots of 1 worker are taken.",
    ),
    # A worker has it
    "claimed": (in_hand(), Cause.CLAIMED, "Worker w1 has it and has not started it yet."),
    "claimed, with a phase": (
        in_hand("claimed", 12.0), Cause.CLAIMED,
        "Worker w1 has it and has claimed it, and has not started it for 12 s.",
    ),
    "starting": (
        in_hand("starting", 119.0), Cause.CLAIMED,
        ("Worker w1 has it and waits for its process, or for Airflow's API server, to start for "
        "119 s."),
    ),
    "a phase of a newer release": (in_hand("dreaming"), Cause.CLAIMED,
                                   "Worker w1 has it and has not started it yet."),
    "kept": (
        heavy(4, holdings=(InHand("w1", "waiting", 60.0),)), Cause.CLAIMED,
        "Worker w1 keeps it for 60 s until 4 of its 4 slots are free.",
    ),
    "kept, heavier than another worker": (
        heavy(4, servers=(replace(FREE, slots=1), replace(BUSY, name="w9")),
              holdings=(InHand("w2", "waiting"),)),
        Cause.CLAIMED,
        "Worker w2 keeps it until 4 of its 1 slot are free.",
    ),
    "kept by a worker without a record": (
        heavy(4, holdings=(InHand("x", "waiting"),)),
        Cause.CLAIMED,
        "Worker x keeps it until 4 of its 0 slots are free.",
    ),
    "kept by a worker that seems lost": (
        heavy(1, servers=(replace(GONE, name="w1"),), holdings=(InHand("w1", "waiting"),)),
        Cause.WEIGHT,
        (
            "It asks for 1 slot (pool_slots), and the largest worker of queue 'gpu' has 0; worker "
            "w1 keeps it until it runs nothing else."
        ),
    ),
    "token, and no worker": (
        waits(sender=Sender(state="expired")),
        Cause.NO_WORKER,
        "No worker serves queue 'gpu', in which 5 wait.",
    ),
    "given back, and waits again": (
        waits(FREE, ahead=NEXT, sender=Sender(state="released")),
        Cause.TURN,
        "It is next in queue 'gpu'; a worker takes it in a moment.",
    ),
    "two may be ahead": (
        waits(FREE, ahead=Ahead(2, 2)),
        Cause.TURN,
        "It waits its turn in queue 'gpu': 2 tasks are ahead of it, 3 slots are free.",
    ),
    "a state of a newer release": (
        waits(replace(FREE, state="sleeping")),
        Cause.WORKERS_LOST,
        "No worker of queue 'gpu' takes anything:  (w2: 1 running).",
    ),
    "kept, too heavy": (
        heavy(5, holdings=(InHand("w1", "waiting", 60.0),)), Cause.WEIGHT,
        ("It asks for 5 slots (pool_slots), and the largest worker of queue 'gpu' has 4; worker w1 "
        "keeps it for 60 s until it runs nothing else."),
    ),
    "renewing": (
        in_hand("renewing"), Cause.RENEWAL,
        ("Its token died while it waited, found out by worker w1; the executor renews it, and it "
            "keeps its place in the queue."),
    ),
    "runs there": (in_hand("running", 3.0), Cause.RUNS,
                   "It runs on worker w1 for 3 s; Airflow will show that soon."),
    "ends there": (in_hand("ending"), Cause.OVER,
                   "It has ended on worker w1; Airflow will show that soon."),
}  # fmt: skip


@pytest.mark.parametrize(("situation", "cause", "sentence"), CASES.values(), ids=CASES)
def test_a_situation_has_this_cause(situation: Situation, cause: Cause, sentence: str) -> None:
    reason = conclude(situation)

    assert (reason.cause, reason.sentence) == (cause, sentence)


def test_every_cause_is_in_the_table() -> None:
    assert {cause for _, cause, _ in CASES.values()} == set(Cause)


CALM = {
    Cause.NOT_QUEUED, Cause.RUNS, Cause.OVER, Cause.OTHER_EXECUTOR, Cause.EXECUTOR_FULL,
    Cause.IN_SCHEDULER, Cause.SCHEDULER_LOST, Cause.TURN, Cause.WORKERS_FULL, Cause.LIMIT,
    Cause.CLAIMED, Cause.RENEWAL, Cause.LOST, Cause.UNWANTED,
}  # fmt: skip


@pytest.mark.parametrize("cause", Cause)
def test_what_goes_on_by_itself_needs_no_person(cause: Cause) -> None:
    assert cause.needs_person is (cause not in CALM)


@pytest.mark.parametrize("cause", Cause)
def test_a_turn_is_what_only_time_ends(cause: Cause) -> None:
    assert cause.is_turn is (cause in {Cause.TURN, Cause.WORKERS_FULL, Cause.LIMIT})


REMEDIES = {
    "dead letter": (
        replace(MISSING, letter="x", letter_sequence=0),
        "mend that, then run: airflow nats dead-letters retry 0",
    ),
    "paused": (
        replace(WAITING, pause=Pause("until noon"), instance=replace(QUEUED, queue="a b")),
        "to resume it: airflow nats queues resume 'a b'",
    ),
    "no worker": (waits(), "start one: airflow nats worker -q gpu"),
    "band": (
        waits(FREE, band=1),
        "start its workers with the scheduler's [nats_executor] priority_bands",
    ),
    "draining": (
        waits(GONE, DRAINED, replace(DRAINED, name="w9")),
        "airflow nats workers undrain w3, or start another worker of the queue",
    ),
    "paused workers": (
        waits(DRAINED, PAUSED),
        "free what worker w4 lacks; it goes on by itself then",
    ),
    "lost": (
        waits(GONE),
        "see what became of worker w5, or start another one: airflow nats worker -q gpu",
    ),
    "turn, all full": (
        waits(BUSY, ahead=Ahead(1, 1)), "wait, or start another worker of the queue",
    ),
    "turn": (waits(FREE, ahead=Ahead(1, 1)), ""),
    "in the scheduler": (MISSING, "if that lasts, read the scheduler's log"),
    "in a scheduler that answers": (sent_by(answers=True), ""),
}  # fmt: skip


@pytest.mark.parametrize(("situation", "remedy"), REMEDIES.values(), ids=REMEDIES)
def test_a_reason_says_what_to_do(situation: Situation, remedy: str) -> None:
    assert conclude(situation).remedy == remedy


@pytest.mark.parametrize("name", [name for name, (_, cause, _) in CASES.items()
                                  if cause.needs_person])  # fmt: skip
def test_what_needs_a_person_has_a_remedy(name: str) -> None:
    assert conclude(CASES[name][0]).remedy


def test_text_from_anyone_is_made_presentable() -> None:
    bad = "\x1b[2J"
    for situation in (
        replace(MISSING, letter=bad), waits(pause=Pause("until noon", bad, bad)),
        waits(replace(PAUSED, name=bad, why=bad)), replace(in_hand(), holdings=(InHand(bad),)),
        row("failed", remark=bad), row("failed", remark=f"too large for NATS{bad}"),
        row("running", worker=bad), sent_by(trouble=bad),
        waits(BUSY, ahead=Ahead(1, 1, ((bad, 1),))),
        row("queued", is_ours=False, executor=bad), waits(FREE, in_flight=1, limit=1, runs=(bad,)),
        waits(replace(DRAINED, name=bad)),
    ):  # fmt: skip
        reason = conclude(situation)
        assert (reason.sentence + reason.remedy).isprintable()


def test_of_two_workers_the_first_is_named() -> None:
    """The other one has a second delivery of it, and finds that out."""
    two = replace(WAITING, holdings=(InHand("w1"), InHand("w2")))

    assert conclude(two).sentence.startswith("Worker w1 has it ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "0 s"), (0.0, "0 s"), (119.9, "120 s"), (120.0, "2 min"), (7199.0, "120 min"),
        (7200.0, "2.0 h"), (36_000_000.0, "10000.0 h"), (6000.0, "100 min"),
    ],
)  # fmt: skip
def test_a_time_is_written_in_the_largest_unit_that_it_has_two_of(
    seconds: float, words: str
) -> None:
    assert conclude(row("running", started_at=NOW - seconds)).sentence == f"It runs for {words}."


def test_an_undelivered_task_that_has_a_report_is_not_lost() -> None:
    assert conclude(replace(MISSING, is_reported=True)).cause is Cause.OVER


def test_the_evidence_has_it_all_in_one_flat_row() -> None:
    situation = replace(
        waits(BUSY, FREE, DRAINED, PAUSED, GONE), ahead=Ahead(1, 2, (("a", 2),)), started=127,
        pause=Pause("until noon", "ann", "why"), in_flight=3, limit=8, is_reported=True,
        holdings=(InHand("w1", "", None), InHand("w2", "claimed", 3.5)), letter_sequence=9,
        sender=Sender(taken=3, slots=32, trouble="full", returned_for="no memory"),
        instance=replace(QUEUED, remark="said", map_index=2, weight=3),
    )  # fmt: skip

    assert facts_row(situation) == {
        "dag": "etl", "run": "r", "task": "t", "map_index": 2, "try": 1, "state": "queued",
        "queue": "gpu", "band": 0, "priority": 1, "slots_wanted": 3, "dispatch_id": "d1",
        "waits_seconds": 90, "in_nats": True, "reported": True, "pending": 5, "in_flight": 3,
        "limit": 8, "ahead_least": 1, "ahead_most": 2, "ahead_by_dag": ["a=2"],
        "started_per_minute": 25.4, "paused_until": "until noon", "paused_by": "ann",
        "paused_for": "why",
        "workers": ["w1 (running)", "w2 (running)", "w3 (draining)", "w4 (paused)", "w5 (lost)"],
        "workers_running": 2, "workers_paused": 1, "workers_draining": 1, "workers_lost": 1,
        "slots_free": 3, "slots": 8, "held_by": ["w1", "w2"], "held_seconds": 3.5,
        "phase": "claimed", "scheduler_job": 7, "executor_slots_taken": 3, "executor_slots": 32,
        "scheduler_trouble": "full", "given_back_for": "no memory", "dead_letter": 9,
        "remark": "said",
    }  # fmt: skip


def test_what_is_not_known_is_none() -> None:
    found = facts_row(row("", dispatch_id="", queued_at=None))

    unknown = {name for name, value in found.items() if value is None}
    assert unknown == {
        "map_index", "state", "dispatch_id", "waits_seconds", "limit", "ahead_least", "ahead_most",
        "started_per_minute", "paused_until", "paused_by", "paused_for", "held_seconds", "phase",
        "executor_slots", "scheduler_trouble", "given_back_for", "dead_letter", "remark",
    }  # fmt: skip
    assert found["ahead_by_dag"] == []


@pytest.mark.parametrize(
    ("server", "free"),
    [(BUSY, 0), (FREE, 3), (replace(BUSY, taken=9), 0), (PAUSED, 0), (replace(FREE, taken=3), 1)],
)
def test_slots_are_free_where_a_worker_takes_something(server: QueueWorker, free: int) -> None:
    assert server.free == free


def test_a_clock_that_is_behind_makes_no_negative_wait() -> None:
    assert row("queued", queued_at=NOW + 5).waits == 0.0


def test_what_is_not_said_of_a_situation_is_this() -> None:
    """Nothing is in NATS, nothing is ahead, and one slot is asked for."""
    place: dict[str, Any] = {"dag": "d", "run": "r", "task": "t", "map_index": None}
    instance = Instance(**place, try_number=1, state="", queue="q")

    assert asdict(Situation(instance=instance, now=NOW)) == {
        "instance": {
            "dag": "d", "run": "r", "task": "t", "map_index": None, "try_number": 1, "state": "",
            "queue": "q", "executor": "", "is_ours": True, "dispatch_id": "", "priority": 1,
            "weight": 1, "queued_at": None, "started_at": None, "ended_at": None, "worker": "",
            "sender_job": None, "remark": "",
        },
        "now": NOW, "band": 0, "is_in_stream": False, "is_reported": False, "letter": None,
        "letter_sequence": None, "pending": 0, "before": 0, "in_flight": 0, "limit": None,
        "pause": None,
        "servers": (), "holdings": (), "ahead": None, "started": None, "weighs": False, "runs": (),
        "sender": {
            "taken": 0, "slots": 0, "silent": None, "is_lost": False, "answers": False,
            "knows": False, "trouble": "", "trouble_seconds": 0.0, "state": "", "worker": "",
            "returned_for": "",
        },
    }  # fmt: skip
    assert asdict(QueueWorker("w", "running", 0, 1)) == {
        "name": "w", "state": "running", "taken": 0, "slots": 1, "bands": 1, "why": "", "age": 0.0,
    }  # fmt: skip
