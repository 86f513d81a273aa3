"""Takes the tokens out of a workload before it is kept for people to look at. Pure."""

from __future__ import annotations

import re

from nats_executor.errors import DecodeError
from nats_executor.wire.bounds import packed, unpacked
from nats_executor.wire.sizes import WORKLOAD_BYTES

__all__ = ["without_tokens"]

# Three or more parts with dots between them, from the start of the first one. The lookbehind and
# the possessive counts keep the time in proportion to the size: anyone may have written the text.
DOTTED = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++){2,}+")
# How the encoded header of a JSON web token begins: `{"`.
TOKEN_START = b"eyJ"


def without_tokens(body: bytes) -> bytes:
    """Return a workload without its token, and any other message without what looks like one.

    What cannot be read keeps its length: each byte of a token becomes an `x`.
    """
    try:
        values = unpacked(body, WORKLOAD_BYTES)
    except DecodeError:
        values = None
    inner = values.get("body") if isinstance(values, dict) else None
    if isinstance(values, dict) and isinstance(inner, dict) and inner.get("token"):
        body = packed(values | {"body": inner | {"token": ""}})
    return DOTTED.sub(hidden, body)


def hidden(found: re.Match[bytes]) -> bytes:
    text = found[0]
    start = text.find(TOKEN_START)
    return text if start < 0 else text[:start] + b"x" * (len(text) - start)
