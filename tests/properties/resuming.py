"""A turn whose response goes on at the server, in virtual time: cuts anywhere, and servers that resume as they like."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from properties.playing import JSON, STREAM, Played, Player, Step, sliced
from unbroken.core.dialects import recognise
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.turn import Turn
from unbroken.lab import Background, ScriptedAnswer
from unbroken.lab.dialect import Pieces
from unbroken.lab.interactions import INTERACTIONS
from unbroken.lab.responses import RESPONSES

Rest = Callable[[list[bytes], int], list[bytes]]
"""What a server sends of its events behind the one of this number."""


def goes_on(events: list[bytes], after: int) -> list[bytes]:
    return events[after + 1 :]


@dataclasses.dataclass
class Resumed(Played):
    """What came of a turn whose response may be taken up.

    Attributes:
        uncut: the bytes of the stream, if nothing goes wrong.
    """

    uncut: bytes = b""

    @property
    def resumes(self) -> int:
        return sum(request.method == "GET" for request in self.requests)


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that keeps responses.

    Attributes:
        url: where they are asked for.
        pieces: the stream of an answer.
        after: the number of the event behind which a request takes it up.
    """

    url: str
    pieces: Callable[[ScriptedAnswer], Pieces]
    after: Callable[[Request], int]


def body_of(pieces: Pieces) -> bytes:
    return b"".join([pieces.prelude, *pieces.reasoned, *pieces.told, pieces.finish])


def _after(request: Request) -> int:
    assert re.fullmatch(r"/v1/responses/resp_lab_1", request.path)
    query = parse_qs(request.parts.query)
    assert query["stream"] == ["true"]
    return int(query["starting_after"][0])


def _after_id(request: Request) -> int:
    assert re.fullmatch(r"/v1beta/interactions/v1_lab_1", request.path)
    query = parse_qs(request.parts.query)
    assert query["stream"] == ["true"]
    return int(query["last_event_id"][0].removeprefix("e_"))


OPENAI = Server("https://llm.example.com/v1/responses", lambda answer: RESPONSES.pieces(answer, 1), _after)


def google(background: Background) -> Server:
    """A server that keeps interactions, some of whose events have ids."""
    return Server(
        "https://llm.example.com/v1beta/interactions",
        lambda answer: background.named(INTERACTIONS.pieces(answer, 1)),
        _after_id,
    )


def play(
    answer: ScriptedAnswer,
    cuts: list[float | int | None],
    *,
    chunks: list[int] = [4096],  # noqa: B006 - never changed
    line_end: bytes = b"\n",
    rest: Rest = goes_on,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    server: Server = OPENAI,
    **more: Any,
) -> Resumed:
    """Run a turn: each response is cut at this part of its bytes, answered by this status, or not at all cut."""
    body = {"model": "lab", "input": "Hi", "stream": True, "background": True, **more}
    request = Request("POST", server.url, (), json.dumps(body).encode())
    call = recognise(request)
    assert call is not None
    turn = Turn(call, policy, now=0.0, random=lambda: 0.0, wall_clock=lambda: 0.0, request=request)
    uncut = body_of(server.pieces(answer)).replace(b"\n", line_end)
    events = [event + line_end * 2 for event in uncut.split(line_end * 2)[:-1]]

    def serve(asked: Request, number: int) -> Iterator[Step]:
        cut = cuts[number - 1] if number <= len(cuts) else None
        if isinstance(cut, int):
            yield Head(cut, JSON)
            yield b'{"error": {"message": "no"}}'
            return
        yield STREAM
        told = b"".join(events if asked.method == "POST" else rest(events, server.after(asked)))
        yield from sliced(told if cut is None else told[: int(cut * len(told))], chunks)
        if cut is not None:
            yield Failure.RESET

    played = Resumed(request, turn.report, uncut=uncut)
    Player(turn, request, serve, played=played).run()
    return played
