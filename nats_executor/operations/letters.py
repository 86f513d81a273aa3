"""Finds dead letters, the newest first, and removes some of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from nats_executor.batches import batches
from nats_executor.errors import NotFound
from nats_executor.fleet.letters import Letter, Wanted, letter_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nats_executor.broker.port import Broker, StreamInfo
    from nats_executor.wire.names import Names

__all__ = [
    "MOST_LETTERS",
    "FoundLetters",
    "find_letters",
    "letters_at",
    "newest_letter",
    "remove_letters",
]

# What one command deals with; whatever it finds stays in memory, without bodies.
MOST_LETTERS = 10_000
# Sequences of one look, and so the letters that are in memory beside those that were found.
SEQUENCES_AT_ONCE = 1000
# Purges under way at once.
REMOVALS = 100


class FoundLetters(NamedTuple):
    """The newest letters of those that were wanted.

    Attributes:
        is_whole: False if there are more of them.
        now: epoch seconds, the server's clock.
    """

    letters: list[Letter]
    is_whole: bool
    now: float


async def find_letters(broker: Broker, names: Names, wanted: Wanted, limit: int) -> FoundLetters:
    """Return the newest letters that are wanted.

    Raises:
        NotFound: there is no stream of dead letters.
    """
    info = await letters_stream(broker, names)
    found: list[Letter] = []
    async for letter in newest_first(broker, names, info):
        if wanted.takes(letter, info.time):
            if len(found) == limit:
                return FoundLetters(found, is_whole=False, now=info.time)
            found.append(letter)
    return FoundLetters(found, is_whole=True, now=info.time)


async def newest_letter(broker: Broker, names: Names) -> Letter | None:
    """Return the newest letter of all, None if there is none."""
    found = await find_letters(broker, names, Wanted(), 1)
    return found.letters[0] if found.letters else None


async def letters_at(broker: Broker, names: Names, sequences: Sequence[int]) -> FoundLetters:
    """Return the letters with these sequences.

    Raises:
        NotFound: there is no stream of dead letters, or no such letter.
    """
    info = await letters_stream(broker, names)
    found = []
    for sequence in sequences:
        page = await broker.page(names.dead_letters_stream, start=sequence, most=1)
        if not page or page[0].sequence != sequence:
            raise NotFound(f"no dead letter has the sequence {sequence}")
        found.append(letter_of(page[0], names))
    return FoundLetters(found, is_whole=True, now=info.time)


async def letters_stream(broker: Broker, names: Names) -> StreamInfo:
    info = await broker.stream_info(names.dead_letters_stream)
    if info is None:
        stream = names.dead_letters_stream
        raise NotFound(f"stream {stream} does not exist; run: airflow nats setup")
    return info


async def newest_first(broker: Broker, names: Names, info: StreamInfo) -> AsyncIterator[Letter]:
    """Yield all letters, window by window: NATS reads forward only."""
    end = info.last_sequence
    while end >= info.first_sequence:
        start = max(info.first_sequence, end - SEQUENCES_AT_ONCE + 1)
        for letter in reversed(await letters_between(broker, names, start, end)):
            yield letter
        end = start - 1


async def letters_between(broker: Broker, names: Names, start: int, end: int) -> list[Letter]:
    """Return the letters of a window; the bodies of one page at a time are in memory."""
    found: list[Letter] = []
    while start <= end:
        page = await broker.page(names.dead_letters_stream, start=start, most=end - start + 1)
        found += [letter_of(message, names) for message in page if message.sequence <= end]
        start = page[-1].sequence + 1 if page else end + 1
    return found


async def remove_letters(broker: Broker, names: Names, letters: Sequence[Letter]) -> int:
    """Remove letters, and return how many of them there still were."""
    stream, removed = names.dead_letters_stream, 0
    for batch in batches([letter.subject for letter in letters], REMOVALS):
        counts = await asyncio.gather(*(broker.purge(stream, subject) for subject in batch))
        removed += sum(counts)
    return removed
