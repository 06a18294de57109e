"""How each dialect is asked, and how its own reader understands what comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.serving import Caller
from unbroken.core.dialect import Call, Dialect, Signal
from unbroken.core.dialects import recognise
from unbroken.core.events import Failed
from unbroken.core.http import Request
from unbroken.core.sse import Event, Parser

_MESSAGES = [{"role": "user", "content": "?"}]


@dataclass(frozen=True, eq=False)
class Asked:
    """A generation call of one dialect.

    Attributes:
        name: of the dialect.
        path: where a stream is asked for.
        fields: of the body, without what asks for a stream.
        whole_path: where an answer in one piece is asked for.
    """

    name: str
    path: str
    fields: dict[str, Any]
    whole_path: str = ""

    def __str__(self) -> str:
        return self.name

    def request(self, *, streaming: bool = True, **more: Any) -> tuple[str, dict[str, Any]]:
        """Path and body."""
        if self.whole_path:
            return (self.path if streaming else self.whole_path), {**self.fields, **more}
        return self.path, {**self.fields, "stream": streaming, **more}

    def begin(self, caller: Caller, *, streaming: bool = True, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send it."""
        path, body = self.request(streaming=streaming)
        caller.begin("POST", path, [("content-type", "application/json"), *headers], json.dumps(body).encode())

    def call(self, *, streaming: bool = True) -> Call:
        """As the core recognises it."""
        path, body = self.request(streaming=streaming)
        call = recognise(Request("POST", f"http://lab{path}", body=json.dumps(body).encode()))
        assert call is not None
        assert call.dialect.name == self.name
        return call

    @property
    def dialect(self) -> Dialect:
        return self.call().dialect

    def signals(self, body: bytes) -> list[Signal]:
        """What the events of a stream mean to the rule."""
        reader = self.dialect.reader(self.call().generation)
        return [reader.read(event) for event in events(body)]

    def errors(self, body: bytes) -> list[Failed]:
        """The errors in a stream, as a typed client sees them."""
        decoder = self.dialect.decoder()
        told = [typed for event in events(body) for typed in decoder.decode(event)]
        return [typed for typed in told if isinstance(typed, Failed)]


def events(body: bytes) -> list[Event]:
    """The events of a stream."""
    return list(Parser().feed(body))


CHAT = Asked("openai-chat", "/v1/chat/completions", {"model": "lab", "messages": _MESSAGES})
RESPONSES = Asked("openai-responses", "/v1/responses", {"model": "lab", "input": "?"})
COMPLETIONS = Asked("openai-completions", "/v1/completions", {"model": "lab", "prompt": "?"})
ANTHROPIC = Asked("anthropic-messages", "/v1/messages", {"model": "lab", "max_tokens": 9, "messages": _MESSAGES})
GEMINI = Asked(
    "gemini",
    "/v1beta/models/lab:streamGenerateContent?alt=sse",
    {"contents": [{"role": "user", "parts": [{"text": "?"}]}]},
    "/v1beta/models/lab:generateContent",
)
INTERACTIONS = Asked("interactions", "/v1beta/interactions", {"model": "lab", "input": "?"})
DIALECTS = (CHAT, RESPONSES, COMPLETIONS, ANTHROPIC, GEMINI, INTERACTIONS)
