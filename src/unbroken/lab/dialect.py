"""The interface of a dialect, and the draft of an answer, which is the same in every dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.continuing import cut_at
from unbroken.lab.fault import Point
from unbroken.lab.record import RecordedRequest
from unbroken.lab.script import Draft, EndBody, Mark, SendBody, SendHead, Silence, Step, silence
from unbroken.lab.speech import Speech

CREATED = 1_700_000_000  # fixed, so that the same request gives the same bytes
COMMENT = b": keep-alive\n\n"
AT_ONCE = ScriptedAnswer()
_DEFAULT_REASONING = ("Let me think.",)


@dataclass(frozen=True, slots=True)
class Pieces:
    """An answer as bytes, split at the points at which something can go wrong. Empty pieces are not sent.

    Attributes:
        prelude: the events before any output.
        reasoned: the reasoning, one piece per token.
        told: text and tool calls, one piece per token.
        finish: the event that says how the answer ended.
        usage: the usage that is sent after that.
        done: the terminator.
    """

    prelude: bytes
    reasoned: list[bytes]
    told: list[bytes]
    finish: bytes
    usage: bytes = b""
    done: bytes = b""


class ServerDialect(Speech, Protocol):
    """One wire format of generation calls, from the server's side.

    Attributes:
        heartbeat: the bytes that keep a silent stream alive; empty if the dialect has none.
        trace_header: the header with the request's id.
    """

    heartbeat: bytes
    trace_header: str

    def answers(self, path: str) -> bool:
        """Return whether a POST to this path is a generation call of this dialect."""

    def streams(self, request: RecordedRequest, call: Mapping[str, Any]) -> bool:
        """Return whether the request, whose body is `call`, asks for a stream."""

    def pieces(self, answer: ScriptedAnswer, number: int) -> Pieces:
        """Return the answer to request `number` as a stream."""

    def whole(self, answer: ScriptedAnswer, number: int) -> bytes:
        """Return the answer to request `number` as JSON."""


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """A part of an answer with its own start and end events, in the dialects that have such parts.

    Attributes:
        kind: a tool's opening is output; that of reasoning and text is not.
        opening: the events that announce it.
        deltas: its tokens.
        closing: the events that end it.
    """

    kind: str
    opening: bytes
    deltas: list[bytes]
    closing: bytes


def in_blocks(start: bytes, blocks: Iterable[AnswerBlock], finish: bytes, done: bytes = b"") -> Pieces:
    """Return an answer in blocks: the prelude announces the first; a closing is sent with the piece after it."""
    prelude, pending = start, b""
    reasoned: list[bytes] = []
    told: list[bytes] = []
    for number, block in enumerate(blocks):
        deltas = block.deltas
        if block.kind == "tool":
            deltas = [block.opening, *deltas]
        elif number == 0:
            prelude += block.opening
        else:
            pending += block.opening
        for delta in deltas:
            (reasoned if block.kind == "reasoning" else told).append(pending + delta)
            pending = b""
        pending += block.closing
    return Pieces(prelude, reasoned, told, pending + finish, done=done)


def draft_stream(
    dialect: ServerDialect, answer: ScriptedAnswer, number: int, at: Point | None, offset: int = 0
) -> Draft:
    """Return the answer as server-sent events, with every point marked.

    `at` is the point at which something goes wrong: if the answer would not reach it (no comments, no reasoning),
    comments or reasoning are added. `offset` is that of ``after_characters``.
    """
    count = 1
    if at == "after_characters":
        answer, count = cut_at(answer, offset)
    if at == "after_reasoning" and not answer.reasoning:
        answer = replace(answer, reasoning=_DEFAULT_REASONING)
    comments = max(answer.comments, 2) if at == "after_comments" else answer.comments
    return draft_pieces(dialect, dialect.pieces(answer, number), number, answer, comments, count)


def draft_pieces(
    dialect: ServerDialect,
    pieces: Pieces,
    number: int,
    pace: ScriptedAnswer = AT_ONCE,
    comments: int = 0,
    count: int = 1,
) -> Draft:
    """Return an answer as server-sent events, with every point marked.

    Args:
        dialect: its dialect.
        pieces: the answer.
        number: that of the request.
        pace: an answer that has its silences and its framing.
        comments: how many come before the prelude.
        count: after how many tokens ``after_characters`` is.
    """
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        dialect.trace_header: f"req_lab_{number}",
    }
    think = {pace.think_at: pace.think}
    return [
        Mark("before_headers"),
        *silence(think.get("before_headers")),
        SendHead(200, tuple(headers.items()), pace.framing),
        Mark("after_headers"),
        *_commented(think.get("after_headers", 0.0), comments, dialect.heartbeat),
        Mark("after_comments"),
        *_body(pieces.prelude),
        Mark("after_role"),
        *silence(think.get("after_role")),
        *_paced(pieces.reasoned, "after_reasoning", pace.gap),
        *(silence(pace.gap) if pieces.reasoned and pieces.told else ()),
        *_paced(pieces.told, "after_token", pace.gap, count),
        *_body(pieces.finish),
        Mark("after_finish"),
        *_body(pieces.usage),
        Mark("after_usage"),
        *_body(pieces.done),
        Mark("after_done"),
        EndBody(),
    ]


def _body(data: bytes) -> list[SendBody]:
    return [SendBody(data)] if data else []


def _commented(seconds: float, comments: int, heartbeat: bytes) -> list[Silence | SendBody]:
    """Return a silence with comments spread evenly over it, the last at its end."""
    if not comments or not heartbeat:
        return [*silence(seconds)]
    return [*silence(seconds / comments), SendBody(heartbeat)] * comments


def _paced(events: list[bytes], point: Point, gap: float, count: int | None = None) -> list[Step | Mark]:
    """Return the events with gaps between them; the mark is after the first, ``after_characters`` after so many."""
    marks = [(1, Mark(point)), *([] if count is None else [(count, Mark("after_characters"))])]
    steps: list[Step | Mark] = []
    for number, event in enumerate(events):
        steps += [mark for place, mark in marks if place == number]
        steps += [*(silence(gap) if number else ()), SendBody(event)]
    return [*steps, *(mark for place, mark in marks if place >= len(events))]
