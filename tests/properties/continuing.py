"""A turn that is continued, or that begins again, in virtual time: a model with a fixed text, and cuts anywhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from properties.playing import JSON, STREAM, Played, Player, Step, sliced
from unbroken.client.reading import TurnReader
from unbroken.core.continuation.format import Style
from unbroken.core.dialects import recognise
from unbroken.core.events import Text, ToolCallStart
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.sse import Event, Parser
from unbroken.core.turn import Turn
from unbroken.lab import Continuation, ScriptedAnswer
from unbroken.lab.anthropic import ANTHROPIC
from unbroken.lab.chat import CHAT
from unbroken.lab.completions import COMPLETIONS
from unbroken.lab.dialect import Pieces, ServerDialect

PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": PROMPT}]

Server = tuple[ServerDialect, str, dict[str, Any]]
"""A dialect of the lab's, the path of its calls, and the fields of one."""

OVER_CHAT: Server = (CHAT, "/v1/chat/completions", {"messages": MESSAGES})
SERVERS: dict[Style, Server] = {
    "prefix": OVER_CHAT,
    "continue_final_message": OVER_CHAT,
    "assistant": (ANTHROPIC, "/v1/messages", {"messages": MESSAGES}),
    "completion": (COMPLETIONS, "/v1/completions", {"prompt": PROMPT}),
}


@dataclasses.dataclass
class Continued(Played):
    """What came of a turn that may be continued, or begin again."""

    reader: TurnReader = dataclasses.field(kw_only=True)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.requests]

    @property
    def urls(self) -> list[str]:
        return [request.url for request in self.requests]

    @property
    def headers(self) -> list[dict[bytes, bytes]]:
        return [dict(request.headers) for request in self.requests]

    @property
    def events(self) -> list[Event]:
        parser = Parser()
        return [*parser.feed(self.received), *parser.end()]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.events if event.data != b"[DONE]"]

    def typed(self, kind: type) -> list[Any]:
        decoder = next(call for call in [recognise(self.request)] if call).dialect.decoder()
        return [one for event in self.events for one in decoder.decode(event) if isinstance(one, kind)]

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.typed(Text))

    @property
    def tool_calls(self) -> list[ToolCallStart]:
        return self.typed(ToolCallStart)


def body_of(pieces: Pieces) -> bytes:
    return b"".join([pieces.prelude, *pieces.reasoned, *pieces.told, pieces.finish, pieces.usage, pieces.done])


def play(
    answer: ScriptedAnswer,
    server: Continuation,
    cuts: list[float | None],
    *,
    style: Style | None = "assistant",
    chunks: list[int] = [4096],  # noqa: B006 - never changed
    host: str = "https://llm.example.com",
    dialect: Server | None = None,
    **more: Any,
) -> Continued:
    """Run a turn: the first responses are cut at these parts of their bytes."""
    spoken, path, fields = dialect or SERVERS[style or "assistant"]
    headers = more.pop("headers", ())
    limits = {name: more.pop(name) for name in ("replays", "after_output", "hold") if name in more}
    body = {"model": "lab", "stream": True, **fields, **more}
    request = Request("POST", host + path, headers, json.dumps(body).encode())
    call = recognise(request)
    assert call is not None
    policy = Policy(**({"after_output": "continue"} | limits))
    turn = Turn(
        call,
        policy,
        now=0.0,
        random=lambda: 0.0,
        wall_clock=lambda: 0.0,
        request=request,
        continuation=style,
        may_restart=True,
    )

    def serve(asked: Request, number: int) -> Iterator[Step]:
        fields = json.loads(asked.body)
        if server.refuses(fields):
            yield Head(400, JSON)
            yield b'{"error": {"message": "no prefill"}}'
            return
        yield STREAM
        told = body_of(spoken.pieces(server.answer(answer, fields), number))
        cut = cuts[number - 1] if number <= len(cuts) else None
        yield from sliced(told if cut is None else told[: int(cut * len(told))], chunks)
        if cut is not None:
            yield Failure.RESET

    reader = TurnReader(call, policy)
    played = Continued(request, turn.report, reader=reader)
    Player(turn, request, serve, reader=reader, played=played).run()
    assert played.head is None or played.head.status == 200
    return played
