"""The formats of errors: the part of a dialect that a fault needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

MESSAGE = "The lab broke this on purpose."


class Speech(Protocol):
    """The format of a dialect's errors.

    Attributes:
        malformed: an event whose data is not JSON.
    """

    malformed: bytes

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:
        """Return the body of an error response; `members` of the error replace the defaults."""

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """Return an error in the middle of a stream."""


class OpenAISpeech:
    """The format of OpenAI's errors."""

    malformed = b'data: {"id": broken\n\n'

    def refusal(self, status: int, members: Mapping[str, Any]) -> bytes:  # noqa: ARG002 - the body does not contain it
        """See :meth:`Speech.refusal`."""
        return json.dumps({"error": openai_error(members)}).encode()

    def error_event(self, members: Mapping[str, Any]) -> bytes:
        """See :meth:`Speech.error_event`."""
        return sse({"error": openai_error(members)})


def openai_error(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"message": MESSAGE, "type": "server_error", "param": None, "code": None, **members}


def sse(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """Encode a server-sent event."""
    field = f"event: {name}\n" if name else ""
    return f"{field}data: {json.dumps(data)}\n\n".encode()


OPENAI = OpenAISpeech()
