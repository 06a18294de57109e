"""Resuming a response that runs in the background.

Sources: OpenAI docs, "Background mode" (``starting_after``, cancelling); API reference, "Get a model response" (its
query parameters) and "Delete a model response"; openai-python's ``responses.retrieve`` (how lists are written in a
query); Perplexity's "Background mode", whose server is a compatible one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from unbroken.core.dialects.common.background import BACKGROUND
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.openai_responses.errors import error_of_event, event_kind
from unbroken.core.dialects.openai_responses.rule import PROGRESS
from unbroken.core.http import Request
from unbroken.core.payload import UNREADABLE, RequestBody, count, is_done, mapping, request_body, text
from unbroken.core.resumption.format import Bookmark, Resumption
from unbroken.core.resumption.requests import about
from unbroken.core.sse import Event

MAX_ID = 1024
"""Characters of an id that are kept: a longer one is no id, and the server will not know it."""


class _Response(msgspec.Struct):
    id: str = ""


class _Numbered(msgspec.Struct):
    """The fields of an event that say where it stands."""

    type: str = ""
    sequence_number: int = -1
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class ResponsesBookmark(Bookmark):
    """A bookmark of a response in which each event has the number behind that of the one before."""

    def __init__(self) -> None:
        self._number: int | None = None

    def read(self, event: Event) -> bool:
        """See :meth:`unbroken.core.resumption.format.Bookmark.read`."""
        if self.problem or event.is_keepalive or is_done(event.data):
            return False
        place = _place(event)
        number = place.number
        self.response = self.response or place.response[:MAX_ID]
        if place.is_error or (number is None and place.kind in PROGRESS):
            return False
        if number is None:
            self.problem = "an event has no number"
        elif self._number is not None and number != self._number + 1:
            self.problem = f"event {self._number:,} is followed by event {number:,}"
        if self.problem:
            return False
        self._number, self.position = number, str(number)
        return True


class _Place(NamedTuple):
    """Where an event stands.

    Attributes:
        kind: its kind.
        number: its number, ``None`` without one.
        response: its response's id, ``""`` if it does not tell.
        is_error: whether it is an error: servers number those as they like.
    """

    kind: str
    number: int | None
    response: str
    is_error: bool = False


def _place(event: Event) -> _Place:
    try:
        fields = msgspec.json.decode(event.data, type=_Numbered)
    except UNREADABLE:
        return _place_in(mapping(parsed(event.data, event.type)), event)
    if not fields.type or bytes(fields.error) != b"null" or fields.type in ("error", "response.error"):
        return _place_in(mapping(parsed(event.data, event.type)), event)
    return _Place(fields.type, count(fields.sequence_number), fields.response.id if fields.response else "")


def _place_in(answer: Mapping[str, Any], event: Event) -> _Place:
    kind, response = event_kind(answer, event), mapping(answer.get("response"))
    is_error = error_of_event(kind, answer) is not None
    return _Place(kind, count(answer.get("sequence_number")), text(response.get("id")), is_error)


def resume(request: Request, response: str, position: str) -> Request:
    """Return the request for the events behind a position, with the same contents in them as were asked for."""
    body = request_body(request.body) or RequestBody({})
    query = [("stream", "true"), ("starting_after", position)]
    included = body.get("include")
    query += [("include[]", name) for name in (included if isinstance(included, list) else ()) if text(name)]
    obfuscation = mapping(body.get("stream_options")).get("include_obfuscation")
    if isinstance(obfuscation, bool):
        query.append(("include_obfuscation", "true" if obfuscation else "false"))
    return about(request, response, "GET", query=query).with_headers(accept="text/event-stream")


RESUMPTION = Resumption(bookmark=ResponsesBookmark, resume=resume, background=BACKGROUND)
