"""Responses that go on at the server after their stream was cut: kept, resumed, cancelled and deleted.

Sources: OpenAI docs, "Background mode"; API reference, "Get a model response", "Cancel a response", "Delete a model
response"; Gemini API reference, "interactions.get", "interactions.cancel", "interactions.delete".
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.continuing import cut_at
from unbroken.lab.dialect import Pieces, ServerDialect, draft_pieces
from unbroken.lab.fault import Fault
from unbroken.lab.interactions import INTERACTIONS
from unbroken.lab.record import RecordedRequest
from unbroken.lab.responses import RESPONSES
from unbroken.lab.script import Draft, whole

_PATH = re.compile(r".*/(?P<kind>responses|interactions)/(?P<id>[^/]+)(?P<action>/cancel)?")
_REFUSALS = {
    "background": "Background mode is not supported with this model.",
    "store": "Background mode requires store=true.",
    "stored": "Store must be set to false.",
}


@dataclass(frozen=True, slots=True)
class Background:
    """How a server treats responses that are asked for with ``background``, and requests to resume them.

    Without faults of its own a server keeps each response, and sends the events behind ``starting_after``.

    Args:
        refuses: what is answered by 400: every ``background``; ``store``: one with ``store: false``, as OpenAI does;
            ``stored``: one without ``store: false``, as the server behind Codex does.
        forgets: whether requests to resume are answered by 404.
        skips: numbers of events that a resumed stream leaves out.
        repeats: numbers of events that a resumed stream sends twice.
        rewinds: how many events too early a resumed stream begins.
        first_skips: numbers of events that the first stream leaves out.
        ids: which events of an interaction have one.
        preface: whether a resumed stream of an interaction begins with its first two events again.
    """

    refuses: Literal["", "background", "store", "stored"] = ""
    forgets: bool = False
    skips: frozenset[int] = frozenset()
    repeats: frozenset[int] = frozenset()
    rewinds: int = 0
    first_skips: frozenset[int] = frozenset()
    ids: Literal["deltas", "all", "some", "none"] = "deltas"
    preface: bool = False

    def refusal(self, call: Mapping[str, Any]) -> bytes:
        """Return the body of the 400 to a call, ``b""`` if it is accepted."""
        if call.get("background") is not True or not self.refuses:
            return b""
        is_stored = call.get("store") is not False
        if (self.refuses == "store" and is_stored) or (self.refuses == "stored" and not is_stored):
            return b""
        field = "store" if self.refuses == "stored" else self.refuses
        members = {"message": _REFUSALS[self.refuses], "type": "invalid_request_error", "param": field}
        return RESPONSES.refusal(400, members)

    def named(self, pieces: Pieces) -> Pieces:
        """Return the stream of an interaction with the ids of its events."""

        def name(number: int, event: bytes) -> bytes:
            is_delta = event.startswith(b"event: step.delta\n")
            has_id = {"deltas": is_delta, "all": True, "some": is_delta and number % 3 == 0, "none": False}[self.ids]
            return event.replace(b', "event_type"', b', "event_id": "e_%d", "event_type"' % number) if has_id else event

        return _edited(pieces, name)

    def first(self, pieces: Pieces) -> Pieces:
        """Return the stream with which a response begins."""
        return _edited(pieces, lambda number, event: b"" if number in self.first_skips else event)

    def rest(self, pieces: Pieces, after: int) -> Pieces:
        """Return the stream that is taken up behind an event."""

        def copies(number: int, event: bytes) -> bytes:
            if self.preface and number < 2:
                return event
            if number in self.skips or number <= after - self.rewinds:
                return b""
            return event * 2 if number in self.repeats else event

        return _edited(pieces, copies)


class KeptFormat(NamedTuple):
    """How responses of one dialect are asked for again.

    Attributes:
        dialect: the dialect.
        name: what stands before the number of the request in a response's id.
        parameter: of the query, with the event behind which a stream is taken up.
        mark: what stands before the number of that event.
        deleted: what is answered when a response was deleted, besides its id.
    """

    dialect: ServerDialect
    name: str
    parameter: str
    mark: str
    deleted: Mapping[str, Any]


_FORMATS = {
    "responses": KeptFormat(RESPONSES, "resp_lab_", "starting_after", "", {"object": "response", "deleted": True}),
    "interactions": KeptFormat(INTERACTIONS, "v1_lab_", "last_event_id", "e_", {}),
}


class KeptResponses:
    """The responses that a server keeps.

    Args:
        background: how it treats them.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._pieces: dict[str, Pieces] = {}
        self._states: dict[str, dict[str, Any]] = {}

    def begins(self, dialect: ServerDialect, request: RecordedRequest, call: Mapping[str, Any]) -> bool:
        """Return whether a call is for a response that is kept."""
        is_known = any(dialect is one.dialect for one in _FORMATS.values())
        return is_known and call.get("background") is True and dialect.streams(request, call)

    def begin(
        self,
        dialect: ServerDialect,
        call: Mapping[str, Any],
        answer: ScriptedAnswer,
        number: int,
        fault: Fault | None,
    ) -> Draft:
        """Return the draft of a response that is kept, or why it is refused."""
        if refusal := self._background.refusal(call):
            return whole(400, refusal)
        count = 1
        if fault and fault.at == "after_characters":
            answer, count = cut_at(answer, fault.offset)
        pieces = dialect.pieces(answer, number)
        pieces = self._background.named(pieces) if dialect is INTERACTIONS else pieces
        response = next(f"{one.name}{number}" for one in _FORMATS.values() if one.dialect is dialect)
        self._pieces[response] = pieces
        self._states[response] = json.loads(dialect.whole(answer, number))
        return draft_pieces(dialect, self._background.first(pieces), number, answer, answer.comments, count)

    def answer(self, request: RecordedRequest) -> Draft | None:
        """Return the draft of the answer to a request about a kept response; ``None`` for any other request."""
        parts = urlsplit(request.target)
        found = _PATH.fullmatch(parts.path)
        purpose = purpose_of(request)
        if not found or purpose not in ("resume", "retrieve", "cancel", "delete"):
            return None
        response, kept = found["id"], _FORMATS[found["kind"]]
        if response not in self._pieces or (self._background.forgets and purpose == "resume"):
            return whole(404, kept.dialect.refusal(404, {"message": f"Response with id '{response}' not found."}))
        match purpose:
            case "resume":
                return self._resumed(request, kept, response, parse_qs(parts.query))
            case "cancel":
                self._states[response]["status"] = "cancelled"
            case "delete":
                del self._pieces[response], self._states[response]
                return whole(200, json.dumps({"id": response, **kept.deleted} if kept.deleted else {}).encode())
        return whole(200, json.dumps(self._states[response]).encode())

    def _resumed(
        self, request: RecordedRequest, kept: KeptFormat, response: str, query: Mapping[str, list[str]]
    ) -> Draft:
        after = int(query.get(kept.parameter, [f"{kept.mark}-1"])[0].removeprefix(kept.mark))
        pieces = self._background.rest(self._pieces[response], after)
        return draft_pieces(kept.dialect, pieces, request.number)


def purpose_of(request: RecordedRequest) -> str:
    """Return what a request is for: ``generation``, ``resume``, ``retrieve``, ``cancel``, ``delete`` or ``other``."""
    parts = urlsplit(request.target)
    found = _PATH.fullmatch(parts.path)
    if request.method == "POST":
        return "cancel" if found and found["action"] else "generation"
    if not found or found["action"]:
        return "other"
    if request.method == "DELETE":
        return "delete"
    return "resume" if parse_qs(parts.query).get("stream") == ["true"] else "retrieve"


def _edited(pieces: Pieces, edit: Callable[[int, bytes], bytes]) -> Pieces:
    """Return the stream with another form of each event, which is given with its number in the stream."""
    numbers = itertools.count()

    def edited(data: bytes) -> bytes:
        return b"".join(edit(next(numbers), block + b"\n\n") for block in data.split(b"\n\n")[:-1])

    return replace(
        pieces,
        prelude=edited(pieces.prelude),
        reasoned=[edited(piece) for piece in pieces.reasoned],
        told=[edited(piece) for piece in pieces.told],
        finish=edited(pieces.finish),
    )
