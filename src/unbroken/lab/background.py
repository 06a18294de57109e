"""Responses that go on at the server after their stream was cut: kept, resumed, cancelled and deleted.

Sources: OpenAI docs, "Background mode"; API reference, "Get a model response", "Cancel a response", "Delete a model
response".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.continuing import cut_at
from unbroken.lab.dialect import Pieces, draft_pieces
from unbroken.lab.fault import Fault
from unbroken.lab.record import RecordedRequest
from unbroken.lab.responses import RESPONSES
from unbroken.lab.script import Draft, whole

_NUMBER = re.compile(rb'"sequence_number": (\d+)')
_PATH = re.compile(r".*/responses/(?P<id>[^/]+)(?P<action>/cancel)?")
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
    """

    refuses: Literal["", "background", "store", "stored"] = ""
    forgets: bool = False
    skips: frozenset[int] = frozenset()
    repeats: frozenset[int] = frozenset()
    rewinds: int = 0
    first_skips: frozenset[int] = frozenset()

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

    def first(self, pieces: Pieces) -> Pieces:
        """Return the stream with which a response begins."""
        return _edited(pieces, lambda number: 0 if number in self.first_skips else 1)

    def rest(self, pieces: Pieces, after: int) -> Pieces:
        """Return the stream that is taken up behind an event."""

        def copies(number: int) -> int:
            if number in self.skips or number <= after - self.rewinds:
                return 0
            return 2 if number in self.repeats else 1

        return _edited(pieces, copies)


class KeptResponses:
    """The responses that a server keeps.

    Args:
        background: how it treats them.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._pieces: dict[str, Pieces] = {}
        self._states: dict[str, dict[str, Any]] = {}

    def begin(self, call: Mapping[str, Any], answer: ScriptedAnswer, number: int, fault: Fault | None) -> Draft:
        """Return the draft of a response that is kept, or why it is refused."""
        if refusal := self._background.refusal(call):
            return whole(400, refusal)
        count = 1
        if fault and fault.at == "after_characters":
            answer, count = cut_at(answer, fault.offset)
        pieces = RESPONSES.pieces(answer, number)
        response = f"resp_lab_{number}"
        self._pieces[response] = pieces
        self._states[response] = json.loads(RESPONSES.whole(answer, number))
        return draft_pieces(RESPONSES, self._background.first(pieces), number, answer, answer.comments, count)

    def answer(self, request: RecordedRequest) -> Draft | None:
        """Return the draft of the answer to a request about a kept response; ``None`` if it is none."""
        parts = urlsplit(request.target)
        found = _PATH.fullmatch(parts.path)
        purpose = purpose_of(request)
        if not found or purpose not in ("resume", "retrieve", "cancel", "delete"):
            return None
        response = found["id"]
        if response not in self._pieces or (self._background.forgets and purpose == "resume"):
            return whole(404, RESPONSES.refusal(404, {"message": f"Response with id '{response}' not found."}))
        match purpose:
            case "resume":
                return self._resumed(request, response, parse_qs(parts.query))
            case "cancel":
                self._states[response]["status"] = "cancelled"
            case "delete":
                del self._pieces[response], self._states[response]
                return whole(200, json.dumps({"id": response, "object": "response", "deleted": True}).encode())
        return whole(200, json.dumps(self._states[response]).encode())

    def _resumed(self, request: RecordedRequest, response: str, query: Mapping[str, list[str]]) -> Draft:
        after = int(query.get("starting_after", ["-1"])[0])
        pieces = self._background.rest(self._pieces[response], after)
        return draft_pieces(RESPONSES, pieces, request.number)


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


def _edited(pieces: Pieces, copies: Any) -> Pieces:
    """Return the stream with so many copies of each event, by its number."""

    def edited(data: bytes) -> bytes:
        return b"".join(event * copies(number) for number, event in _events(data))

    return replace(
        pieces,
        prelude=edited(pieces.prelude),
        reasoned=[edited(piece) for piece in pieces.reasoned],
        told=[edited(piece) for piece in pieces.told],
        finish=edited(pieces.finish),
    )


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the numbered events of a part of a stream."""
    for block in data.split(b"\n\n")[:-1]:
        found = _NUMBER.search(block)
        yield int(found[1]) if found else -1, block + b"\n\n"
