from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from nats_executor.local.process import LocalError
from tests.bench import goals, whole, works
from tests.bench.needs import Unmeasured
from tests.bench.sample import Sample, Task
from tests.bench.sides import CELERY, EDGE, LOCAL, NATS, SIDES, with_zygotes

if TYPE_CHECKING:
    from tests.bench.sides import Side


def asking_for(*keys: str) -> tuple[Task, list[str]]:
    said: list[str] = []
    return Task(1, 1.0, Path("/nowhere"), said.append, frozenset(keys)), said


def sides_for(*keys: str) -> list[Side]:
    return works.sides_here(asking_for(*keys)[0], whole.WORKS)


def test_every_key_is_measured_of_every_contender_that_its_goals_name() -> None:
    for key in whole.KEYS:
        [work] = [work for work in whole.WORKS if key in work.table]
        named = {name for goal in goals.KEYS[key].goals for name in goal.of.split("/")}
        assert named <= {side.name for side in work.table[key]}, key


def test_its_keys_are_those_of_the_goals() -> None:
    assert {key.name for key in goals.KEYS.values() if key.module == "whole"} == whole.KEYS


def test_a_contender_that_is_not_installed_costs_no_other_its_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lack = {"celery": "no redis: install it"}
    monkeypatch.setattr(works, "missing", lambda name: lack.get(name, ""))
    task, said = asking_for("e2e_tasks_per_s_4_slots")
    assert works.sides_here(task, whole.WORKS) == [NATS, EDGE, LOCAL]
    assert said == ["without celery: no redis: install it"]


def test_only_contenders_that_are_asked_for_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(works, "missing", lambda _: "")
    assert sides_for("worker_idle_pss") == [NATS, CELERY, EDGE]
    assert sides_for("e2e_vs_local_4_slots") == [NATS, LOCAL]
    assert sides_for(*whole.KEYS) == list(SIDES)


def test_a_contender_that_fails_is_named_and_costs_no_other_its_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def __init__(self, _airflow: object, side: Side, *_: object, **__: object) -> None:
            self.side = side

        def __enter__(self) -> Self:
            if self.side is CELERY:
                raise LocalError("its worker has died")
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(works, "missing", lambda _: "")
    monkeypatch.setattr(works, "Session", Failing)
    work = works.Work(
        lambda session, _: iter([Sample("k", session.side.name, 1.0)]),
        4,
        {"k": frozenset({NATS, CELERY})},
    )
    task, _ = asking_for("k")
    airflow: Any = SimpleNamespace(task=task, require_alive=lambda: None)
    ways: Any = lambda _: nullcontext(airflow)  # noqa: E731 - what it returns is no real Airflow
    measured: list[Sample] = []
    with pytest.raises(Unmeasured) as raised:
        measured.extend(works.carried_out(task, [work], ways))
    assert measured == [Sample("k", "nats", 1.0)]
    assert raised.value.reasons == {"k": {"celery": "its worker has died"}}


def test_nothing_is_started_when_no_key_is_its_own() -> None:
    assert list(whole.measure(asking_for("dispatch_per_s_10k")[0])) == []


def test_the_local_executors_slots_are_its_parallelism() -> None:
    assert LOCAL.settings(4)["CORE__PARALLELISM"] == 4
    assert "CORE__PARALLELISM" not in CELERY.settings(4)


def test_contenders_with_other_settings_stand_behind_their_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(works, "missing", lambda _: "")
    chosen = with_zygotes({"dag_zygotes": "auto"})
    work = works.Work(whole.releases, 4, {"k": frozenset({*SIDES, *chosen})})
    here = works.sides_here(asking_for("k")[0], [work])
    assert [s.name for s in here] == ["nats", "nats-off", "nats-on", "celery", "edge", "local"]


def test_zygotes_have_every_choice_but_the_default_where_the_release_has_them() -> None:
    assert with_zygotes({"memory_high_percent": "90"}) == ()
    assert [side.name for side in with_zygotes({"dag_zygotes": "off"})] == [
        "nats-auto",
        "nats-on",
    ]
    off, on = with_zygotes({"dag_zygotes": "auto"})
    assert off.settings(4)["NATS_EXECUTOR__DAG_ZYGOTES"] == "off"
    assert on.settings(4)["CORE__EXECUTOR"] == NATS.executor


def test_ends_and_releases_are_joined_by_task_instance(tmp_path: Path) -> None:
    (tmp_path / "ended").write_text("a 1000000\nb 5000000\n")
    (tmp_path / "freed").write_text("other 1\nb 7500000\na 4000000\nnot-ended 9\n")
    session: Any = SimpleNamespace(airflow=SimpleNamespace(notes=tmp_path))
    assert sorted(whole.release_times(session)) == [2.5, 3.0]
