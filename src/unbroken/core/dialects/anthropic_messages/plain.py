"""An event that is one piece of plain text and nothing else, as nearly all are: decoded by narrow types."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from unbroken.core.payload import UNREADABLE

KIND = "content_block_delta"


class PlainTextDelta(msgspec.Struct, gc=False):
    """A delta with text."""

    type: Literal["text_delta"]
    text: str


class PlainBlockDelta(msgspec.Struct, gc=False):
    """The piece of a content block."""

    type: Literal["content_block_delta"]
    delta: PlainTextDelta
    index: Annotated[int, msgspec.Meta(ge=0)] = 0


_decode = msgspec.json.Decoder(PlainBlockDelta).decode


def plain_delta(data: bytes) -> PlainBlockDelta | None:
    """Decode a piece of text and whose it is; ``None`` for data of any other shape, or without text."""
    try:
        piece = _decode(data)
    except UNREADABLE:
        return None
    return piece if piece.delta.text else None
