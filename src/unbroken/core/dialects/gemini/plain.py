"""A response that is one piece of plain text and token counts, as nearly all are: decoded by narrow types."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from unbroken.core.payload import UNREADABLE

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class PlainPart(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A part with text alone."""

    text: str


class PlainContent(msgspec.Struct, gc=False):
    """The content of a candidate."""

    parts: tuple[PlainPart]


class PlainCandidate(msgspec.Struct, gc=False):
    """A candidate that goes on."""

    content: PlainContent
    index: _Count = 0
    finishReason: None = None  # noqa: N815 - Google's name


class TokenCounts(msgspec.Struct, gc=False, rename="camel"):
    """Google's token counts."""

    prompt_token_count: _Count | None = None
    tool_use_prompt_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None


class PlainResponse(msgspec.Struct, gc=False, rename={"usage": "usageMetadata", "prompt_feedback": "promptFeedback"}):
    """A response with one candidate."""

    candidates: tuple[PlainCandidate]
    usage: TokenCounts | None = None
    prompt_feedback: None = None
    error: None = None
    errors: None = None
    base_resp: None = None
    object: None = None
    success: None = None


_decode = msgspec.json.Decoder(PlainResponse).decode


def plain_response(data: bytes) -> PlainResponse | None:
    """Decode a piece of text, whose it is, and the counts; ``None`` for data of any other shape, or without text."""
    try:
        response = _decode(data)
    except UNREADABLE:
        return None
    return response if response.candidates[0].content.parts[0].text else None
