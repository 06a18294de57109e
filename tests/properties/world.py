"""A world in which anything may go wrong, in virtual time: scripted servers, and a naive notion of what they said.

Nothing here uses the parser, the dialect or the attempt that it puts to the test. Each token of a stream knows what it
means, so :class:`Heard` can say, from the bytes that have come, what the rule demands.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator
from typing import TypeVar

from hypothesis import strategies as st

from unbroken.core.failures import Failure, Row
from unbroken.core.policy import Hold

T = TypeVar("T")

MAX_EVENT = 2500

LOSSES = [failure for failure in Failure if failure.row is Row.LOST and failure is not Failure.UNFINISHED]
BEFORE_SENDING = [*LOSSES, Failure.CONNECTION_REFUSED, Failure.PROXY_UNREACHABLE, Failure.NO_SUCH_HOST]


@dataclasses.dataclass(frozen=True)
class Token:
    """One block of a stream, and what it means."""

    data: bytes
    kind: str
    index: int = 0


def _chunk(**delta: object) -> bytes:
    return b"data: " + json.dumps({"choices": [delta]}).encode() + b"\n\n"


WORDS = st.text(max_size=8) | st.sampled_from(["data: [DONE]\n\n", '"finish_reason":"stop"', "[DONE]", '{"error":{}}'])
INDEX = st.integers(0, 1)
SILENT = st.sampled_from(
    [
        Token(b": keep-alive\n\n", "silent"),
        Token(b":\n: two\n\n", "silent"),
        Token(b"\n\n", "silent"),
        Token(b"event: note\n\n", "silent"),
        Token(b"data:\n\n", "silent"),
        Token(b'data: {"choices": [], "usage": {"total_tokens": 1}}\n\n', "silent"),
        Token(_chunk(index=0, delta={"role": "assistant", "content": ""}), "begin"),
        Token(_chunk(index=0, delta={}, finish_reason=None), "begin"),
    ]
)
OUTPUT = st.builds(
    lambda words, index: Token(
        _chunk(index=index, delta={"content": "x" + words}, finish_reason=None), "output", index
    ),
    WORDS,
    INDEX,
)
REASONING = st.builds(
    lambda words, index: Token(
        _chunk(index=index, delta={"reasoning_content": "x" + words}, finish_reason=None), "reasoning", index
    ),
    WORDS,
    INDEX,
)
STOP = st.builds(lambda index: Token(_chunk(index=index, delta={}, finish_reason="stop"), "stop", index), INDEX)
DONE = st.just(Token(b"data: [DONE]\n\n", "done"))
TROUBLE = st.sampled_from(
    [
        Token(b'data: {"error": {"type": "server_error"}}\n\n', "transient"),
        Token(b'event: error\ndata: {"error": {"type": "invalid_request_error"}}\n\n', "permanent"),
        Token(b"data: {broken\n\n", "broken"),
        Token(b"data: " + b"y" * 3000 + b"\n\n", "broken"),  # over every cap
    ]
)

_SENSIBLE = st.tuples(
    st.lists(SILENT, max_size=3),
    st.lists(REASONING, max_size=2) | st.just([]),
    st.lists(OUTPUT | SILENT, max_size=3),
    st.lists(TROUBLE, max_size=1) | st.just([]),
    st.lists(STOP, max_size=2),
    st.lists(SILENT, max_size=1),
    st.lists(DONE, max_size=1),
).map(lambda parts: [token for part in parts for token in part])
_ANYTHING = st.lists(st.one_of(SILENT, REASONING, OUTPUT, STOP, DONE, TROUBLE), max_size=7)

PIECES = st.lists(st.integers(1, 400), max_size=8) | st.integers(1, 9).map(lambda size: [size] * 400)
SECONDS = st.sampled_from([0.0, 0.0, 0.1, 3.0, 6.0, 29.0, 31.0, 250.0])


@dataclasses.dataclass(frozen=True)
class Script:
    """What one server does.

    Attributes:
        before: how it fails before the request is sent, if it does.
        status, headers: of its response; status 0 is a failure instead of one.
        content_type: ``""`` for what was asked for.
        tokens: the body, where it is a stream.
        document: the body, where it is none.
        loss: how the body ends; ``None`` is a clean end.
        waits: seconds before the headers and between the pieces.
    """

    before: Failure | None
    status: int
    headers: dict[str, str]
    content_type: str
    tokens: list[Token]
    document: bytes
    loss: Failure | None
    line_end: bytes
    compressed: bool
    pieces: list[int]
    waits: list[float]

    def body(self, *, streaming: bool) -> bytes:
        """What a caller may see, in the end."""
        return b"".join(map(self.written, self.tokens)) if streaming else self.document

    def written(self, token: Token) -> bytes:
        return token.data.replace(b"\n", self.line_end)

    def wire_pieces(self, *, streaming: bool) -> Iterator[bytes]:
        """What comes over the wire."""
        body = self.body(streaming=streaming)
        body = gzip.compress(body) if self.compressed else body
        for size in [*self.pieces, len(body)]:
            if body:
                yield body[:size]
            body = body[size:]

    def pause(self, step: int) -> float:
        return self.waits[step % len(self.waits)]


def rarely(surprise: st.SearchStrategy[T], usual: T) -> st.SearchStrategy[T]:
    """Mostly the usual."""
    return st.integers(0, 7).flatmap(lambda dice: surprise if dice == 5 else st.just(usual))


def scripts() -> st.SearchStrategy[Script]:
    headers = st.sampled_from([{}, {}, {"retry-after": "2"}, {"retry-after": "61"}, {"x-should-retry": "true"}])
    documents = st.sampled_from(
        [b'{"choices": [{"message": {"content": "Hi"}}]}', b'{"error": {"code": "insufficient_quota"}}', b'{"choi', b""]
    )
    return st.builds(
        Script,
        before=rarely(st.sampled_from(BEFORE_SENDING), None),
        status=rarely(st.sampled_from([0, 0, 204, 307, 400, 429, 503, 529]), 200),
        headers=headers,
        content_type=rarely(st.sampled_from(["application/json", "text/event-stream", "text/html"]), ""),
        tokens=_SENSIBLE | _ANYTHING,
        document=documents,
        loss=st.sampled_from([None, None, *LOSSES]),
        line_end=st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]),
        compressed=rarely(st.just(True), False),
        pieces=PIECES,
        waits=st.lists(SECONDS, min_size=1, max_size=4),
    )


class Heard:
    """What the rule makes of the beginning of a stream, where this much of an attempt is held.

    Attributes:
        whole: how many bytes are whole tokens.
        may_speak, must_speak: whether something in it may, or must, be shown.
        settled: it has said how it ended.
        is_proven_by_end: a clean end proves that it is whole: its finish came before any output, and none followed.
        too_early: where a terminator begins that came before that, or ``None``.
    """

    def __init__(self, script: Script, received: int, choices: int, hold: Hold = "prelude") -> None:
        self.whole = 0
        self._hold = hold
        self._produced = False
        self.may_speak = self.must_speak = self.settled = False
        self.is_proven_by_end = False
        self.too_early: int | None = None
        self._trouble = self._over = self._taken_back = self._had_ended = False
        self._choices = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        for token in script.tokens:
            end = self.whole + len(script.written(token))
            if script.line_end == b"\r\n" and received == end - 1:
                end = received  # CR ends a line, whether LF follows or not
            if token.kind == "done" and not self._said_how_it_ended:
                self.too_early = self.whole
            if end > received or self.too_early is not None:
                is_too_large = received - self.whole > MAX_EVENT  # which is known before it is whole
                self.may_speak |= is_too_large and self._produced and hold == "reasoning"
                return  # nothing counts after a terminator
            self.whole = end
            if not self._over:
                self._hear(token)

    @property
    def _said_how_it_ended(self) -> bool:
        return self.settled or self.is_proven_by_end or self._had_ended or self._all_finished()

    def _hear(self, token: Token) -> None:
        if token.kind in ("begin", "reasoning", "output", "stop"):
            self._seen.add(token.index)
        if token.kind in ("reasoning", "output"):
            self._take_back(token.index)
        if token.kind == "stop":
            self._finished.add(token.index)
            self._finish()
        self._trouble |= token.kind in ("broken", "transient")
        self._over |= token.kind in ("done", "transient", "permanent")
        self.settled |= self._over
        may_be_anything = token.kind == "broken" and self._produced
        self._produced |= token.kind in ("reasoning", "output")
        self.may_speak |= (
            self.settled
            or {
                "prelude": self._produced,
                "reasoning": token.kind == "output" or may_be_anything,
                "answer": False,
            }[self._hold]
        )
        self.must_speak |= self.may_speak and not self._trouble

    def _finish(self) -> None:
        if len(self._finished) < self._choices or self._taken_back:
            return
        if self._produced or self.may_speak:
            self.settled = self.settled or not self.is_proven_by_end
        else:
            self.is_proven_by_end = True

    def _take_back(self, index: int) -> None:
        if index in self._finished:
            self._had_ended = self._had_ended or self.settled or self.is_proven_by_end
            self._taken_back, self.settled, self.is_proven_by_end = True, False, False

    def _all_finished(self) -> bool:
        """Some servers ignore how many choices were asked for: those up to the highest that has begun must finish."""
        return bool(self._finished) and len(self._finished) > max(self._seen)
