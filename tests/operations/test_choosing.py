"""Which workers a command is about: names, patterns, a queue; and who of one name counts."""

from __future__ import annotations

import pytest

from nats_executor.errors import NotFound
from nats_executor.fleet.presences import Seen
from nats_executor.operations.choosing import Which, current, meant
from tests.support.fixtures import settings_for
from tests.support.presences import presence_of

NAMES = ["etl-1", "etl-2", "gpu", "[ab]", "a"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["gpu"], ["gpu"]),
        (["gpu", "gpu"], ["gpu"]),
        (["etl-*"], ["etl-1", "etl-2"]),
        (["gpu", "etl-?"], ["etl-1", "etl-2", "gpu"]),
        (["etl-[!1]"], ["etl-2"]),
        # A name that looks like a pattern is meant as a name.
        (["[ab]"], ["[ab]"]),
        (["[a]"], ["a"]),
    ],
)
def test_names_and_patterns(texts: list[str], found: list[str]) -> None:
    assert meant(Which(texts), NAMES) == found


@pytest.mark.parametrize(
    ("which", "names", "text"),
    [
        (Which([]), NAMES, "say which workers, by name, pattern or --queue; there are: "),
        (Which(["x"]), NAMES, "no worker is named 'x' or matches it; there are: [ab],a,etl-1,"),
        (Which(["a", "GPU"]), NAMES, "no worker is named 'GPU' or matches it; "),
        (Which(["x"]), [], "no worker is named 'x' or matches it; there are: none"),
        (Which(["x"], "q"), ["a"], "no worker of queue 'q' is named 'x' or matches it; there"),
        (Which([], "q"), [], "no worker serves queue 'q'"),
    ],
)
def test_what_is_not_there(which: Which, names: list[str], text: str) -> None:
    with pytest.raises(NotFound) as error:
        meant(which, names)
    assert str(error.value).startswith(text)


def test_a_queue_alone_means_all_of_its_workers() -> None:
    assert meant(Which([], "q"), ["b", "a"]) == ["a", "b"]


def test_the_living_hide_the_lost_of_their_name() -> None:
    settings = settings_for("nats://127.0.0.1:4222", worker_lost_seconds=10)
    young = Seen(presence_of("w", "a", worker="w.2"), 1.0)
    old = Seen(presence_of("w", "b", worker="w.1"), 11.0)
    other = Seen(presence_of("x", "b"), 11.0)

    assert current([old, young, other], settings) == {"w": [young], "x": [other]}
    assert current([old, young, other], settings, "b") == {"w": [old], "x": [other]}
