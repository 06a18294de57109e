"""Making a call one whose response goes on at the server, although the caller did not ask for that."""

from __future__ import annotations

import msgspec

from unbroken.core.actions import Parting
from unbroken.core.dialect import Call
from unbroken.core.http import Request
from unbroken.core.payload import UNREADABLE, RequestBody, request_body
from unbroken.core.resumption.format import BackgroundFormat
from unbroken.core.resumption.refused import RefusedBackgrounds

REFUSALS = frozenset({400, 422})
"""Statuses by which servers refuse a field of a request."""


class BackgroundRequest:
    """The fields that make the response of a call go on at the server, where they can be added.

    Args:
        request: the caller's request.
        call: the call that it makes.
        fmt: how the dialect asks for it.
        refused: the servers that have refused such fields.

    Attributes:
        request: the request with the fields; ``None`` where they are not added.
        why_not: why they are not added, ``""`` if they are.
    """

    def __init__(self, request: Request, call: Call, fmt: BackgroundFormat, refused: RefusedBackgrounds) -> None:
        self.request: Request | None = None
        self._format = fmt
        self._refused = refused
        self._original = request
        body = request_body(request.body) or RequestBody({})
        self._storage = fmt.storage(body)
        self._is_dropped = False
        self._is_private = fmt.is_private(body)
        self.why_not = self._obstacle(request, call, body)
        if not self.why_not:
            fields = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
            self.request = request.with_body(msgspec.json.encode({**fields, **fmt.fields}))

    def partings(self, response: str, *, has_ended: bool) -> list[Parting]:
        """Return what is to be asked of the server when the turn is over.

        Args:
            response: the response's id.
            has_ended: whether the response has ended; otherwise the server goes on generating it, and bills it.
        """
        partings = [] if has_ended else [Parting("cancel", self._format.cancel(self._original, response))]
        if self._is_private:
            partings.append(Parting("delete", self._format.delete(self._original, response)))
        return partings

    def is_refused_by(self, status: int, body: bytes) -> bool:
        """Return whether an error refuses what was added."""
        return self.may_be_refused_by(status) and self._format.refusal(body)

    def may_be_refused_by(self, status: int) -> bool:
        """Return whether an error of this status may refuse what was added."""
        return self.request is not None and status in REFUSALS

    def drop(self, status: int) -> None:
        """Ask as the caller wrote it from now on, as an error of this status refuses what was added."""
        self.request, self.why_not, self._is_dropped = None, f"the server refuses it (HTTP {status})", True

    def answered(self, status: int) -> None:
        """Remember a refusal for later turns if the call as the caller wrote it is accepted: else it was another."""
        if self._is_dropped and status < 300:
            self._refused.add(self._original.url, self._storage)

    def _obstacle(self, request: Request, call: Call, body: RequestBody) -> str:
        if call.generation.acts:
            return "the call acts on the world"
        if any(name in body for name in self._format.fields):
            return "the caller's request says otherwise"
        if self._refused.has(self._original.url, self._storage):
            return "the server has refused it before"
        if request.is_signed:
            return "the request is signed"
        return "" if _is_strict(request.body) else "the request is not strict JSON"


def _is_strict(document: bytes) -> bool:
    try:
        msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return False
    return True
