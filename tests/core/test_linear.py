"""Cost grows with the bytes, not with their square: one large event in small pieces, before and after the first output.

CPU time of one thread, compared with itself at another size: what is linear costs 8 times as much for 8 times the size,
what is quadratic 64 times.
"""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from unbroken.core.attempt import Attempt, Mode
from unbroken.core.decoding import SLICE
from unbroken.core.dialect import Call, Dialect, Generation
from unbroken.core.dialects import DIALECTS
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.policy import Hold, Policy
from unbroken.core.sse import Parser, encode

KIB, MIB = 2**10, 2**20
STREAM = Head(200, ((b"content-type", b"text/event-stream"),))

FIRST = {
    "openai-chat": b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n',
    "openai-completions": b'data: {"choices": [{"index": 0, "text": "Hi"}]}\n\n',
    "openai-responses": b'data: {"type": "response.output_text.delta", "delta": "Hi"}\n\n',
    "anthropic-messages": b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}\n\n',
    "gemini": b'data: {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}\n\n',
    "interactions": b'data: {"event_type": "step.delta", "delta": {"type": "text", "text": "Hi"}}\n\n',
}
LAST = {
    "openai-chat": b'{"choices": [{"index": 0, "finish_reason": "stop", "delta": {"audio": {"data": "%s"}}}]}',
    "openai-completions": b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "%s"}]}',
    "openai-responses": b'{"type": "response.completed", "response": {"output": [{"type": "x", "b": "%s"}]}}',
    "anthropic-messages": b'{"type": "message_delta", "delta": {"stop_reason": "end_turn", "x": "%s"}}',
    "gemini": b'{"candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "%s"}]}}]}',
    "interactions": b'{"event_type": "interaction.completed", "interaction": {"status": "completed", "x": "%s"}}',
}
"""An ending that carries a large document: its block matches ``notable`` long before it is whole."""


def large(dialect: Dialect, size: int) -> bytes:
    return encode((LAST[dialect.name] % (b"QUJD" * (size // 4))).decode())


def feed(dialect: Dialect, body: bytes, piece: int, policy: Policy | None = None) -> Attempt:
    attempt = Attempt(1, Call(dialect, Generation(streaming=True)), policy or Policy(), 0.0)
    attempt.open(STREAM, Mode.STREAM)
    given = sum(len(attempt.data(body[at : at + piece])) for at in range(0, len(body), piece))
    assert given == len(body)
    return attempt


def cost(run: Callable[[], object]) -> float:
    """CPU seconds of the thread, the least of three."""
    spent = []
    for _ in range(3):
        began = time.thread_time()
        run()
        spent.append(time.thread_time() - began)
    return min(spent)


def assert_linear(run: Callable[[int], object], small: int) -> None:
    growth = cost(lambda: run(8 * small)) / cost(lambda: run(small))
    assert growth < 24, f"8 times the size costs {growth:.0f} times as much"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_large_ending_in_pieces(dialect: Dialect) -> None:
    def run(size: int) -> None:
        body = FIRST[dialect.name] + large(dialect, size)
        assert feed(dialect, body, 4 * KIB).phase in (Phase.SETTLED, Phase.COMPLETE)

    assert_linear(run, MIB)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_whatever_its_line_ends(line_end: bytes) -> None:
    def run(size: int) -> None:
        body = (FIRST["openai-chat"] + large(OPENAI_CHAT, size)).replace(b"\n", line_end)
        assert feed(OPENAI_CHAT, body, 4 * KIB).phase is Phase.SETTLED

    assert_linear(run, MIB)


def test_a_large_first_event() -> None:
    def run(size: int) -> None:
        body = large(OPENAI_CHAT, size) + b"data: [DONE]\n\n"
        assert feed(OPENAI_CHAT, body, 4 * KIB, Policy(max_prelude=16 * MIB)).phase is Phase.COMPLETE

    assert_linear(run, MIB)


@pytest.mark.parametrize("hold", ["reasoning", "answer"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_large_answer_that_is_held(dialect: Dialect, hold: Hold) -> None:
    """Many events, and all of them are released at once."""
    thought = b'data: {"choices": [{"index": 0, "delta": {"reasoning": "Hm"}}]}\n\n'
    first = thought if hold == "reasoning" and dialect is OPENAI_CHAT else FIRST[dialect.name]

    def run(size: int) -> None:
        body = first * (size // len(first)) + large(dialect, 100)
        assert feed(dialect, body, 4 * KIB, Policy(hold=hold)).phase in (Phase.SETTLED, Phase.COMPLETE)

    assert_linear(run, 32 * KIB)


def test_what_is_held_is_kept_once() -> None:
    """The cap is a cap of memory: what is held is not held twice."""
    attempt = Attempt(1, Call(OPENAI_CHAT, Generation(streaming=True)), Policy(hold="answer"), 0.0)
    attempt.open(STREAM, Mode.STREAM)
    piece = FIRST["openai-chat"] * 64
    tracemalloc.start()
    try:
        for _ in range(8 * MIB // len(piece)):
            attempt.data(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert attempt.held <= peak < 2.5 * attempt.held  # growing a bytearray may copy it once


def test_an_ending_byte_by_byte() -> None:
    def run(size: int) -> None:
        assert feed(OPENAI_CHAT, FIRST["openai-chat"] + large(OPENAI_CHAT, size), 1).phase is Phase.SETTLED

    assert_linear(run, 16 * KIB)


def test_an_event_over_the_cap() -> None:
    def run(size: int) -> None:
        body = FIRST["openai-chat"] + large(OPENAI_CHAT, size)
        feed(OPENAI_CHAT, body, 4 * KIB, Policy(max_event=128 * KIB))

    assert_linear(run, MIB)


def test_a_large_event_through_the_parser_of_the_client() -> None:
    def run(size: int) -> None:
        parser, body = Parser(), large(OPENAI_CHAT, size)
        events = [event for at in range(0, len(body), 4 * KIB) for event in parser.feed(body[at : at + 4 * KIB])]
        assert len(events) == 1

    assert_linear(run, MIB)


class TestCompressed:
    """64 KiB of gzip can hold 64 MiB: what is decoded comes in slices, and the caps hold for it."""

    HEAD = Head(200, ((b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")))

    def attempt(self, policy: Policy | None = None, mode: Mode = Mode.STREAM, head: Head = HEAD) -> Attempt:
        attempt = Attempt(1, Call(OPENAI_CHAT, Generation(mode is Mode.STREAM)), policy or Policy(), 0.0)
        attempt.open(head, mode)
        return attempt

    @staticmethod
    def gzip(data: bytes) -> bytes:
        compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        return compressor.compress(data) + compressor.flush()

    def test_one_step_gives_one_slice(self) -> None:
        body = FIRST["openai-chat"] + large(OPENAI_CHAT, 8 * MIB)
        attempt = self.attempt()
        given = [attempt.data(self.gzip(body))]
        while attempt.has_more:
            given.append(attempt.more())
        assert max(map(len, given[:-1])) <= SLICE
        assert b"".join(given) == body
        assert attempt.phase is Phase.SETTLED

    def test_a_document_over_the_cap_is_not_collected(self) -> None:
        attempt = self.attempt(Policy(max_hold=MIB), Mode.WHOLE)
        attempt.data(self.gzip(b" " * 8 * MIB))
        held = 0
        while attempt.has_more:
            held = max(held, len(attempt.refusal))
            attempt.more()
        assert held <= MIB + SLICE

    def test_a_bomb_in_an_error_response_is_read_up_to_the_cap(self) -> None:
        attempt = self.attempt(mode=Mode.REFUSAL)
        attempt.data(self.gzip(b"x" * 64 * MIB))
        assert len(attempt.refusal) <= SLICE
