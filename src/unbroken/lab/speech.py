"""How a dialect puts what went wrong, which is what a fault needs to know of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

MESSAGE = "The lab broke this on purpose."


class Speech(Protocol):
    """How errors are put.

    Attributes:
        malformed: an event whose data is not JSON.
    """

    malformed: bytes

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:
        """The body of an error response, with `members` of the error in place of the defaults."""

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """An error in the middle of a stream."""


class OpenAISpeech:
    """Errors as OpenAI puts them."""

    malformed = b'data: {"id": broken\n\n'

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - it says nothing of it
        """See :meth:`Speech.refusal`."""
        return json.dumps({"error": openai_error(members)}).encode()

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """See :meth:`Speech.error_event`."""
        return sse({"error": openai_error(members)})


def openai_error(members: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"message": MESSAGE, "type": "server_error", "param": None, "code": None, **members}


def sse(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    field = f"event: {name}\n" if name else ""
    return f"{field}data: {json.dumps(data)}\n\n".encode()


OPENAI = OpenAISpeech()
