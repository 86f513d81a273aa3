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
    "LettersPage",
    "find_letters",
    "letters_at",
    "letters_page",
    "newest_letter",
    "remove_letters",
]

# What one command deals with; whatever it finds stays in memory, without bodies.
MOST_LETTERS = 10_000
# Sequences of one look, and so the letters that are in memory beside those that were found.
SEQUENCES_AT_ONCE = 1000
# What one page looks at: letters, and requests where most of the sequences are purged.
LOOKED_AT = 2000
MOST_LOOKS = 40
# Sequences of the second look; after one that held little, the next is so many times larger.
NEXT_WINDOW = 500
GROWTH = 8
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


class LettersPage(NamedTuple):
    """A page of letters, the newest first.

    Attributes:
        before: where the next page goes on, None if there are no older letters. A page may be
            empty although there are, since a look is bounded.
        kept: all that there are, whatever is wanted.
        now: epoch seconds, the server's clock.
    """

    letters: list[Letter]
    before: int | None
    kept: int
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


async def letters_page(
    broker: Broker, names: Names, wanted: Wanted, *, before: int | None, most: int
) -> LettersPage:
    """Return the newest letters that are wanted, of those below a sequence.

    Raises:
        NotFound: there is no stream of dead letters.
    """
    info = await letters_stream(broker, names)
    end = info.last_sequence if before is None else min(info.last_sequence, before - 1)
    found: list[Letter] = []
    looked, window = 0, most + 1
    for _ in range(MOST_LOOKS):
        if end < info.first_sequence or looked >= LOOKED_AT:
            break
        start = max(info.first_sequence, end - window + 1)
        letters = await letters_between(broker, names, start, end, most=LOOKED_AT)
        if len(letters) > LOOKED_AT:
            window = LOOKED_AT
            continue
        for letter in reversed(letters):
            if wanted.takes(letter, info.time):
                if len(found) == most:
                    return LettersPage(found, found[-1].sequence, info.messages, info.time)
                found.append(letter)
        looked += len(letters)
        end = start - 1
        is_sparse = len(letters) * GROWTH < window
        window = max(NEXT_WINDOW, window * GROWTH if is_sparse else 0)
    older = end + 1 if end >= info.first_sequence else None
    return LettersPage(found, older, info.messages, info.time)


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


async def letters_between(
    broker: Broker, names: Names, start: int, end: int, most: int = MOST_LETTERS
) -> list[Letter]:
    """Return the letters of a window; the bodies of one page at a time are in memory.

    Args:
        most: does not read on once there are more of them.
    """
    found: list[Letter] = []
    while start <= end and len(found) <= most:
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
