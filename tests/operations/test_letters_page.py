"""A page of dead letters: how far one look goes, over gaps and past what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from nats_executor.fleet.letters import Wanted
from nats_executor.operations import letters
from nats_executor.operations.letters import letters_page
from nats_executor.topology.setup import apply
from nats_executor.wire.names import Names
from tests.support.fake_broker import FakeBroker
from tests.support.fixtures import settings_for

pytestmark = pytest.mark.anyio

NAMES = Names()


class Shelf(FakeBroker):
    """A stream of dead letters that notes how often it is asked, and for how many."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def page(self, stream: str, *, most: int, **rest: Any) -> Any:
        self.asked.append(most)
        return await super().page(stream, most=most, **rest)


async def shelf_with(*queues: str) -> Shelf:
    """Bury a letter for each queue named, in their order; '' is one that was purged since."""
    shelf = Shelf()
    await apply(shelf, settings_for("nats://127.0.0.1:4222"), ["a"])
    for number, queue in enumerate(queues):
        subject = NAMES.dead_letter(queue or "gone", f"d{number}")
        await shelf.publish(subject, b"", headers={"Airflow-Reason": "why"})
    await shelf.purge(NAMES.dead_letters_stream, NAMES.dead_letters("gone"))
    return shelf


async def read(shelf: Shelf, most: int, queue: str | None = None) -> list[list[int]]:
    """Read all pages; an empty one counts."""
    pages: list[list[int]] = []
    before = None
    while True:
        page = await letters_page(shelf, NAMES, Wanted(queue), before=before, most=most)
        pages.append([letter.sequence for letter in page.letters])
        if page.before is None:
            return pages
        before = page.before


async def test_pages_follow_each_other_without_a_gap() -> None:
    shelf = await shelf_with(*"aaaaaaa")

    assert await read(shelf, 3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert await read(shelf, 7) == [[7, 6, 5, 4, 3, 2, 1]]
    assert await read(shelf, 8) == [[7, 6, 5, 4, 3, 2, 1]]


async def test_no_letters() -> None:
    assert await read(await shelf_with(), 3) == [[]]


async def test_a_page_of_all_letters_reads_little_more_than_it_shows() -> None:
    shelf = await shelf_with(*["a"] * 100)

    await letters_page(shelf, NAMES, Wanted(), before=None, most=10)

    assert shelf.asked == [11]


async def test_a_filter_looks_at_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is further back is on the next page, which goes on from there."""
    monkeypatch.setattr(letters, "LOOKED_AT", 20)
    monkeypatch.setattr(letters, "NEXT_WINDOW", 5)
    shelf = await shelf_with("b", *["a"] * 70)

    pages = await read(shelf, 2, "b")

    assert [page for page in pages if page] == [[1]]
    assert 3 <= len(pages) <= 5


async def test_what_was_purged_costs_few_requests() -> None:
    shelf = await shelf_with("a", *[""] * 5000, "a")

    assert await read(shelf, 2) == [[5002, 1]]
    assert len(shelf.asked) < 10


async def test_many_letters_behind_a_gap_are_not_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gap makes the next window large; there may be anything in it."""
    monkeypatch.setattr(letters, "LOOKED_AT", 20)
    monkeypatch.setattr(letters, "NEXT_WINDOW", 5)
    shelf = await shelf_with(*["b"] * 300, *[""] * 300, "a")

    page = await letters_page(shelf, NAMES, Wanted("a"), before=None, most=2)

    assert [letter.sequence for letter in page.letters] == [601]
    assert page.before
    assert page.before > 250
    pages = await read(shelf, 100)
    assert [number for found in pages for number in found] == [601, *range(300, 0, -1)]
