"""A response of five numbered events, and turns that ask for it."""

from __future__ import annotations

import json
from typing import Any

from core.playbook import Check, Playbook, answers, brings, done, speaks
from unbroken.core.actions import Action, Drop, Fail
from unbroken.core.http import Request
from unbroken.core.sse import encode
from unbroken.errors import StreamCut

URL = "https://api.example.com/v1/responses"
HEADERS = ((b"Authorization", b"Bearer sk-1"), (b"Content-Type", b"application/json"), (b"Idempotency-Key", b"i-1"))


def numbered(number: int, kind: str, **fields: Any) -> bytes:
    return encode(json.dumps({"type": kind, "sequence_number": number, **fields}), event=kind)


RESPONSE = {"id": "resp_1", "status": "in_progress"}
CREATED = numbered(0, "response.created", response=RESPONSE)
ITEM = numbered(1, "response.output_item.added", item={"type": "message", "content": []})
PRELUDE = CREATED + ITEM
HEL = numbered(2, "response.output_text.delta", delta="Hel")
LO = numbered(3, "response.output_text.delta", delta="lo")
END = numbered(4, "response.completed", response={"id": "resp_1", "status": "completed"})
ANSWER = PRELUDE + HEL + LO + END


def asked(headers: tuple[tuple[bytes, bytes], ...] = HEADERS, **body: Any) -> Request:
    document = {"model": "m", "input": "Hi", "stream": True, "background": True, **body}
    return Request("POST", URL, headers, json.dumps(document).encode())


def turn(request: Request | None = None, **policy: Any) -> Playbook:
    return Playbook(request=request or asked(), **policy)


def spoken(request: Request | None = None, **policy: Any) -> Playbook:
    """A turn whose first text was handed on."""
    return turn(request, **policy) >> answers() >> brings(PRELUDE + HEL) << speaks(PRELUDE + HEL)


def fails_after_output(words: str = "", kind: Any = StreamCut) -> list[Check]:
    """The exchange is dropped, and the error tells that output was handed on."""

    def check(action: Action, play: Playbook) -> None:
        assert isinstance(action, Fail), action
        assert type(action.error) is kind
        assert words in str(action.error)
        assert action.error.phase == "output"
        assert kind is not StreamCut or action.error.retryable

    return [*done(Drop()), check]
