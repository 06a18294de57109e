"""A turn that is continued, or that begins again, in virtual time: a model with a fixed text, and cuts anywhere."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from unbroken.client.reading import TurnReader
from unbroken.core.actions import EndTurn, Fail, Give, GiveHead, Read, Restart, Send, Wait
from unbroken.core.continuation.format import Style
from unbroken.core.dialects import recognise
from unbroken.core.events import Text, ToolCallStart, TypedEvent
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.sse import Event, Parser
from unbroken.core.turn import Turn
from unbroken.errors import TurnError
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
class Played:
    """What came of a turn."""

    received: bytes
    error: TurnError | None
    bodies: list[dict[str, Any]]
    urls: list[str]
    report: Report
    dialect: ServerDialect
    first: Request
    reader: TurnReader
    typed_events: list[TypedEvent] = dataclasses.field(default_factory=list)
    headers: list[dict[bytes, bytes]] = dataclasses.field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        parser = Parser()
        return [*parser.feed(self.received), *parser.end()]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.events if event.data != b"[DONE]"]

    def typed(self, kind: type) -> list[Any]:
        decoder = next(call for call in [recognise(self.first)] if call).dialect.decoder()
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
) -> Played:
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
    played = Played(b"", None, [], [], turn.report, spoken, request, TurnReader(call, policy))
    now, rest, ends = 0.0, b"", True
    steps = 0
    while True:
        match turn.next():
            case Send(_, _, _, other):
                sent = other or request
                played.bodies.append(json.loads(sent.body))
                played.urls.append(sent.url)
                played.headers.append(dict(sent.headers))
                number = len(played.bodies)
                if server.refuses(played.bodies[-1]):
                    rest, ends = b'{"error": {"message": "no prefill"}}', True
                    turn.head(Head(400, ((b"content-type", b"application/json"),)), now)
                    continue
                told = body_of(spoken.pieces(server.answer(answer, played.bodies[-1]), number))
                cut = cuts[number - 1] if number <= len(cuts) else None
                rest, ends = (told, True) if cut is None else (told[: int(cut * len(told))], False)
                turn.head(Head(200, ((b"content-type", b"text/event-stream"),)), now)
            case Read():
                size = chunks[steps % len(chunks)]
                steps += 1
                if rest:
                    turn.data(rest[:size], now)
                    rest = rest[size:]
                elif ends:
                    turn.end(now)
                else:
                    turn.lost(Failure.RESET, "", now, sent=True)
            case Wait(seconds):
                now += seconds
            case Give(data):
                played.received += data
                played.typed_events += played.reader.feed(data, turn.phase)
            case Restart(attempt):
                played.received = b""
                turn.restarted(played.reader.restart(attempt))
            case GiveHead(head):
                assert not played.received
                assert head.status == 200
                played.reader.open(head, is_stream=turn.is_stream)
            case EndTurn():
                played.typed_events += played.reader.end(turn.phase)
                break
            case Fail(error):
                played.error = error
                break
            case _:
                pass
    played.report = turn.report
    return played
