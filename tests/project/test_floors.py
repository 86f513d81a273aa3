"""The wings stand on floors: imports go down, in no circle, and a name means one thing."""

from __future__ import annotations

import pytest

from tests.tools.boundaries import Module, modules
from tests.tools.floors import (
    FLOORS,
    PUBLIC,
    STARTS_A_WORKER,
    circles,
    climbs,
    misses,
    room,
    surplus,
    twice,
)

MODULES = [module for module in modules() if module.package != "airflow_nats_executor"]
# Names that are the same thing in each of their modules. `leash` is run by path and isolated, so it
# imports nothing of ours.
KNOWN_TWICE = frozenset(
    [
        "PR_SET_CHILD_SUBREAPER",  # Linux's
        "PR_SET_PDEATHSIG",
        "RELIED_ON",  # private names, of one library each
        "main",  # of a program
    ]
)


def test_imports_only_go_down() -> None:
    assert climbs(MODULES) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert circles(MODULES) == []


def test_each_floor_is_in_use() -> None:
    assert {name for rooms in FLOORS for name in rooms} == {room(m.name) for m in MODULES}


def test_the_way_up_is_in_use() -> None:
    start, worker = STARTS_A_WORKER
    (module,) = (module for module in MODULES if module.name == start)
    assert f"from {worker} import" in module.source


def test_what_others_import_is_offered() -> None:
    assert misses(MODULES) == []


def test_what_is_offered_is_in_use() -> None:
    assert surplus(MODULES) == []
    assert {module.name for module in MODULES} >= PUBLIC


def test_a_name_has_one_meaning() -> None:
    """A generic word is taken; choose one that says what this one is."""
    found = twice(MODULES)
    assert {name: places for name, places in found.items() if name not in KNOWN_TWICE} == {}
    assert KNOWN_TWICE - found.keys() == set()  # take it out of the list


IN_BROKER = Module("nats_executor.broker.a", "from nats_executor.scheduler.b import c")
IN_SCHEDULER = Module("nats_executor.scheduler.b", "__all__ = []\nc = 1")
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nats_executor.{} import x"


@pytest.mark.parametrize(
    "broken",
    [
        [IN_BROKER, IN_SCHEDULER],
        [Module("nats_executor.fleet.a", "import nats_executor.topology.b"),
         Module("nats_executor.topology.b", "")],
        [Module("nats_executor.broker.a", TYPES.format("scheduler.b")), IN_SCHEDULER],
        [Module("nats_executor.cellar.a", "")],
        [Module("nats_executor.operations.orders", "from nats_worker import cli"),
         Module("nats_worker.cli", "")],
    ],
    ids=["up", "sideways", "up for types", "no floor", "another way to a worker"],
)  # fmt: skip
def test_a_climb_is_noticed(broken: list[Module]) -> None:
    assert climbs(broken) != []


@pytest.mark.parametrize("source", ["from nats_executor.{} import x", TYPES], ids=["run", "types"])
def test_a_circle_is_noticed(source: str) -> None:
    names = ("wire.a", "wire.b", "wire.c")
    following = (*names[1:], names[0])
    ring = [
        Module(f"nats_executor.{name}", source.format(other))
        for name, other in zip(names, following, strict=True)
    ]
    assert circles(ring) != []
    assert circles(ring[:2]) == []


@pytest.mark.parametrize(
    "source",
    [
        "from nats_executor.scheduler.b import c",
        "from nats_executor.scheduler import b\nb.c",
        "from nats_executor.scheduler import b as other\nother.c()",
        "import nats_executor.scheduler.b\nnats_executor.scheduler.b.c.d",
        TYPES.format("scheduler.b").replace("import x", "import c"),
    ],
)
def test_a_hidden_name_is_noticed(source: str) -> None:
    user = Module("nats_executor.cli.a", source)
    assert misses([user, IN_SCHEDULER]) == [
        "nats_executor.scheduler.b.c, which nats_executor.cli.a uses"
    ]
    offering = Module(IN_SCHEDULER.name, '__all__ = ["c"]\nc = 1')
    assert misses([user, offering]) == surplus([user, offering]) == []


def test_an_offer_that_no_other_module_takes_is_noticed() -> None:
    assert surplus([Module("nats_executor.text", '__all__ = ["c"]\nc = 1\nc')]) == [
        "nats_executor.text.c"
    ]


def test_a_name_of_two_meanings_is_noticed() -> None:
    assert twice([IN_SCHEDULER, Module("nats_executor.d", "def c(): ...")]) == {
        "c": ["nats_executor.d", "nats_executor.scheduler.b"]
    }


def test_a_function_that_is_called_as_another_module_is_noticed() -> None:
    namesake = Module("nats_executor.logs.c", "def c(): ...")
    assert twice([IN_SCHEDULER, Module(namesake.name, "")]) == {
        "c": ["nats_executor.logs.c", "nats_executor.scheduler.b"]
    }
    assert twice([namesake]) == {}
    assert (
        twice([Module("nats_executor.cli.commands", "def c(): ..."), Module(namesake.name, "")])
        == {}
    )
