"""Unpacks msgpack from anyone within bounds of size, count and depth. Pure.

A byte of a message can become a list of 56 bytes, and a value that is nested deeper than Python's
stack ends the process that shows or writes it. So the size is checked before decoding, the items of
a large message are counted during it, and no more than `DEEPEST` levels are passed on.
"""

from __future__ import annotations

from typing import Any

import msgpack

from nats_executor.errors import DecodeError

__all__ = ["packed", "unpacked"]

# Airflow's own workloads have six levels; what its users may add goes through JSON.
DEEPEST = 100
# Of all lists and maps of one message together.
MOST_ITEMS = 200_000
# Messages up to here cannot become large, whatever is in them or is promised in them.
SMALL_BYTES = 4096
# All bytes but those that begin a map or a list. A message with few of those is neither deep nor
# full, which takes a microsecond to find out. Text outside of ASCII has some of them as well.
OTHER = bytes({*range(256)} - {*range(0x80, 0xA0)} - {*range(0xDC, 0xE0)})
NESTING = frozenset({dict, list})
# Errors that msgpack raises for bytes that it cannot or may not read.
UNPACK_ERRORS = (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException)


def unpacked(body: bytes, most_bytes: int) -> Any:
    """Return what a message holds.

    Raises:
        DecodeError: it is over a bound, or not msgpack.
    """
    if len(body) > most_bytes:
        raise DecodeError(f"more than {most_bytes} bytes")
    try:
        value = unpack_small(body) if len(body) <= SMALL_BYTES else unpack_large(body)
    except UNPACK_ERRORS as exc:
        text = ": ".join(filter(None, ("not a msgpack message", type(exc).__name__, str(exc))))
        raise DecodeError(text) from exc
    if may_be_deep(body) and is_deep(value):
        raise DecodeError(f"nested deeper than {DEEPEST} levels")
    return value


def unpack_small(body: bytes) -> Any:
    return msgpack.unpackb(body, raw=False, strict_map_key=True)


def unpack_large(body: bytes) -> Any:
    """Count as it is decoded, once it is certain that what headers promise is there."""
    look = msgpack.Unpacker(max_buffer_size=len(body))
    look.feed(body)
    look.skip()
    left = MOST_ITEMS

    def count(container: Any) -> Any:
        nonlocal left
        left -= len(container) + 1
        if left < 0:
            raise DecodeError(f"more than {MOST_ITEMS} items")
        return container

    return msgpack.unpackb(
        body,
        raw=False,
        strict_map_key=True,
        list_hook=count,
        object_hook=count,
        max_array_len=MOST_ITEMS,
        max_map_len=MOST_ITEMS,
    )


def is_deep(value: Any) -> bool:
    """Whether a value has more than `DEEPEST` levels of lists and maps; never recurses."""
    level = [value] if type(value) in NESTING else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in NESTING
        ]
        if not level:
            return False
    return True


def packed(values: dict[str, Any]) -> bytes:
    """Return a message as `unpacked` will take it; raises `ValueError` for what is too deep."""
    body: bytes = msgpack.packb(values)
    if may_be_deep(body) and is_deep(values):
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return body


def may_be_deep(body: bytes) -> bool:
    """Whether a message may have more than `DEEPEST` levels, by the bytes that begin one."""
    return len(body.translate(None, OTHER)) > DEEPEST
