"""An event that is one piece of plain text and nothing else, as nearly all are: decoded by narrow types."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from unbroken.core.payload import UNREADABLE

KIND = "response.output_text.delta"

_Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class PlainOutputText(msgspec.Struct, gc=False):
    """A piece of a message's text."""

    type: Literal["response.output_text.delta"]
    delta: str
    item_id: str = ""
    output_index: _Index | None = None
    content_index: _Index = 0
    error: None = None
    object: None = None


_decode = msgspec.json.Decoder(PlainOutputText).decode


def plain_piece(data: bytes) -> PlainOutputText | None:
    """Decode a piece of text and whose it is; ``None`` for data of any other shape, or without text."""
    try:
        piece = _decode(data)
    except UNREADABLE:
        return None
    return piece if piece.delta else None
