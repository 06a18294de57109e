"""How much a turn is worth that outlives its client: bytes, and the tokens that were produced for them."""

from __future__ import annotations

import contextlib

import msgspec

from unbroken.core.dialects import find_dialect
from unbroken.core.events import TypedEvent, UsageReport
from unbroken.core.sse import Parser
from unbroken.errors import UnbrokenError

TAIL = 32 * 1024
"""How many bytes at the end of a body the provider's token counts are looked for in."""

BYTES_OF_TOKEN = 100
"""How many bytes of a stream a token takes, about.

Recorded streams (``tests/corpora``) have 50 to 110, with several tokens in an event; a chat completion of OpenAI's own
has about 300, with one.
"""

_MOST = 1_000_000_000
"""No answer has more tokens, whatever is reported."""


class Worth(msgspec.Struct, frozen=True):
    """How much a turn is worth.

    Attributes:
        bytes: of its body.
        tokens: output tokens.
        is_reported: whether the provider has counted them; otherwise they are estimated from the bytes.
    """

    bytes: int
    tokens: int
    is_reported: bool


def worth_of(size: int, dialect: str = "", tail: bytes = b"") -> Worth:
    """Return what a turn is worth.

    Args:
        size: how many bytes its body has.
        dialect: name of the dialect of a whole answer; ``""`` for another body, whose counts are not final.
        tail: the end of that answer.
    """
    tokens = _reported(dialect, tail) if dialect else None
    if tokens is None:
        return Worth(size, -(-size // BYTES_OF_TOKEN), is_reported=False)
    return Worth(size, tokens, is_reported=True)


def _reported(dialect: str, tail: bytes) -> int | None:
    """Return the output tokens that the provider reports, ``None`` if it reports none."""
    try:
        decoder = find_dialect(dialect).decoder()
    except UnbrokenError:  # a store may say anything
        return None
    found: list[TypedEvent] = list(decoder.decode_whole(tail)) if tail.startswith(b"{") else []
    parser = Parser()
    for event in (*parser.feed(tail), *parser.end()):
        with contextlib.suppress(UnbrokenError):  # the tail may begin in the middle of one
            found += decoder.decode(event)
    counts = [said.usage.output_tokens for said in found if isinstance(said, UsageReport)]
    return next((count for count in reversed(counts) if count is not None and 0 <= count <= _MOST), None)
