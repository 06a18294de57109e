"""An event that is one piece of plain text and nothing else, as nearly all are: decoded by narrow types."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from unbroken.core.payload import UNREADABLE

KIND = "step.delta"

_Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class PlainStepText(msgspec.Struct, gc=False):
    """A piece of text."""

    type: Literal["text"]
    text: str
    annotations: None = None


class PlainStepDelta(msgspec.Struct, gc=False):
    """A piece of a step."""

    event_type: Literal["step.delta"]
    delta: PlainStepText
    index: _Index = 0
    metadata: None = None
    error: None = None


_decode = msgspec.json.Decoder(PlainStepDelta).decode


def plain_delta(data: bytes) -> PlainStepDelta | None:
    """Decode a piece of text; ``None`` for data of any other shape, or without text."""
    try:
        event = _decode(data)
    except UNREADABLE:
        return None
    return event if event.delta.text else None
