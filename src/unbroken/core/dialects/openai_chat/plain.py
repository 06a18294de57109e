"""A chunk that is one piece of plain text and nothing else, as nearly all are: decoded by narrow types.

Whatever has another shape is refused, and read in full: see ``chunk``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from unbroken.core.payload import UNREADABLE


class PlainDelta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A delta with text alone."""

    content: str
    role: str | None = None


class PlainChoice(msgspec.Struct, gc=False):
    """A choice that goes on."""

    delta: PlainDelta
    index: int = 0
    message: None = None
    finish_reason: None = None
    error: None = None


class PlainChunk(msgspec.Struct, gc=False):
    """A chunk with one choice, without token counts."""

    choices: tuple[PlainChoice]
    object: Literal["chat.completion.chunk"] | None = None
    usage: None = None
    error: None = None
    x_groq: None = None


_decode = msgspec.json.Decoder(PlainChunk).decode


def plain_choice(data: bytes) -> PlainChoice | None:
    """Decode a piece of text and whose it is; ``None`` for data of any other shape, or without text."""
    try:
        choice = _decode(data).choices[0]
    except UNREADABLE:
        return None
    return choice if choice.delta.content else None
