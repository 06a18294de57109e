"""One attempt under the rule: what it holds, what it hands on, and how far it has come."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.playbook import ANSWER, BROKEN, COMMENT, DONE, INVALID, OVERLOADED, ROLE, STOP, USAGE, delta, text
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_chat.rule import ChatReader
from unbroken.core.failures import Failure, Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.sse import Event, encode


def opened(mode: Mode = Mode.STREAM, *, choices: int = 1, policy: Policy | None = None, **headers: str) -> Attempt:
    attempt = Attempt(1, Call(OPENAI_CHAT, Generation(mode is Mode.STREAM, choices)), policy or Policy(), 0.0)
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    attempt.open(Head(200, fields), mode)
    return attempt


class TestPhases:
    def test_a_stream_that_goes_well(self) -> None:
        attempt = opened()
        seen = [attempt.phase]
        handed_on = []
        for piece in (COMMENT, ROLE, text("Hel"), text("lo"), STOP, USAGE, DONE):
            handed_on.append(attempt.data(piece))
            seen.append(attempt.phase)
        assert seen == [Phase.PRELUDE] * 3 + [Phase.OUTPUT] * 2 + [Phase.SETTLED] * 2 + [Phase.COMPLETE]
        assert handed_on == [b"", b"", COMMENT + ROLE + text("Hel"), text("lo"), STOP, USAGE, DONE]
        assert attempt.end() == b""
        assert attempt.failure is None

    def test_it_begins_before_the_request_is_sent(self) -> None:
        attempt = Attempt(7, Call(OPENAI_CHAT, Generation(streaming=True)), Policy(), 5.0)
        assert (attempt.number, attempt.started, attempt.phase) == (7, 5.0, Phase.CONNECT)

    def test_everything_in_one_piece(self) -> None:
        attempt = opened()
        assert attempt.data(ANSWER) == ANSWER
        assert attempt.phase is Phase.COMPLETE

    def test_an_empty_answer_is_held_until_its_end_is_proven(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE) == attempt.data(STOP) == b""
        assert attempt.data(DONE) == ROLE + STOP + DONE
        assert attempt.phase is Phase.COMPLETE

    def test_nothing_is_nothing(self) -> None:
        attempt = opened()
        assert attempt.data(b"") == b""
        assert attempt.phase is Phase.PRELUDE

    def test_an_attempt_that_speaks_in_mid_event_is_released_with_the_event(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE + text("Hi")[:30]) == b""
        assert attempt.data(text("Hi")[30:] + text("again")[:9]) == ROLE + text("Hi") + text("again")[:9]


STREAMS = {
    "answer": ANSWER,
    "crlf": ANSWER.replace(b"\n", b"\r\n"),
    "cr": ANSWER.replace(b"\n", b"\r"),
    "no terminator": ROLE + text("Hi") + STOP,
    "no ending": ROLE + text("Hi"),
    "no ending but a terminator": ROLE + text("Hi") + DONE,
    "error in the prelude": ROLE + OVERLOADED + DONE,
    "error in the output": ROLE + text("Hi") + OVERLOADED + DONE,
    "malformed in the output": ROLE + text("Hi") + BROKEN + STOP + DONE,
    "words like those of the protocol": ROLE + text('data: [DONE]\n\n"finish_reason":"stop"') + STOP + DONE,
}


class TestPieces:
    """Whatever the borders of the pieces: the same bytes, in the same phase, with the same outcome."""

    @pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
    def test_byte_by_byte_is_as_good_as_whole(self, stream: bytes) -> None:
        whole, bytewise = opened(), opened()
        from_whole = whole.data(stream) + (b"" if whole.failure else whole.end())
        from_bytes = b""
        for byte in stream:
            from_bytes += bytewise.data(bytes([byte]))
            if bytewise.failure:
                break
        else:
            from_bytes += bytewise.end()
        assert (bytewise.phase, bytewise.failure, bytewise.noted) == (whole.phase, whole.failure, whole.noted)
        assert from_bytes.startswith(from_whole)
        assert from_bytes.removeprefix(from_whole) in (b"", b"data: [DONE")  # known for what it is with its last byte

    @given(st.sampled_from(sorted(STREAMS.values())), st.lists(st.integers(0, 600), max_size=5))
    def test_what_is_handed_on_is_a_prefix(self, stream: bytes, cuts: list[int]) -> None:
        attempt = opened()
        handed_on = b""
        bounds = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
        for start, stop in itertools.pairwise(bounds):
            handed_on += attempt.data(stream[start:stop])
            assert stream[:stop].startswith(handed_on)
            if attempt.failure:
                break


class TestEndings:
    @pytest.mark.parametrize("stream", [b"", COMMENT, ROLE, ROLE + text("Hi"), ROLE + text("Hi") + STOP[:-3]])
    def test_a_clean_end_without_settling_is_a_cut(self, stream: bytes) -> None:
        attempt = opened()
        attempt.data(stream)
        attempt.end()
        assert attempt.failure is Failure.UNFINISHED

    @pytest.mark.parametrize("stream", [STOP, ROLE + text("Hi") + STOP, STOP + DONE, ROLE + STOP + text("more")[:5]])
    def test_a_clean_end_after_settling_is_one(self, stream: bytes) -> None:
        attempt = opened()
        attempt.data(stream)
        attempt.end()
        assert attempt.failure is None
        assert attempt.phase is Phase.COMPLETE

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
    @pytest.mark.parametrize(
        ("before", "after"),
        [(b"", b""), (text("Hi"), b""), (text("[DONE]"), b""), (text("Hi"), DONE), (b"", text("[DONE]"))],
    )
    def test_a_terminator_without_an_ending_is_not_handed_on(
        self, before: bytes, after: bytes, line_end: bytes
    ) -> None:
        stream = (ROLE + text("1"), before + DONE + after)
        first, second = (piece.replace(b"\n", line_end) for piece in stream)
        attempt = opened()
        assert attempt.data(first) == first
        assert attempt.data(second) == before.replace(b"\n", line_end)
        assert attempt.failure is Failure.UNFINISHED

    def test_nor_with_the_output_itself(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE + text("Hi") + DONE) == ROLE + text("Hi")
        assert attempt.failure is Failure.UNFINISHED

    def test_nor_before_any_output(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE + DONE) == b""
        assert (attempt.failure, attempt.phase) == (Failure.UNFINISHED, Phase.PRELUDE)

    def test_nor_in_pieces(self) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi"))
        assert attempt.data(DONE[:9]) == DONE[:9]
        assert attempt.data(DONE[9:]) == b""
        assert attempt.failure is Failure.UNFINISHED

    def test_nor_in_pieces_with_another_one_behind(self) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi") + DONE[:9])
        assert attempt.data(DONE[9:] + DONE) == b""
        assert attempt.failure is Failure.UNFINISHED

    @pytest.mark.parametrize("end", [b"[DONE]\ndata: [DONE]", b" [DONE] ", b"[DONE] bye", b"[DONE][DONE]"])
    def test_nor_one_with_more_behind_it(self, end: bytes) -> None:
        """OpenAI's SDKs read no further than data that begin with it: an error behind it would never be seen."""
        attempt = opened()
        attempt.data(ROLE + text("Hi"))
        assert attempt.data(b"data: " + end + b"\n\n") == b""
        assert attempt.failure is Failure.UNFINISHED

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
    @pytest.mark.parametrize("rest", [b"", b"\n"])
    def test_nor_without_its_blank_line(self, rest: bytes, line_end: bytes) -> None:
        said = [piece.replace(b"\n", line_end) for piece in (ROLE, text("Hi"), text("!"), b"data: [DONE]" + rest)]
        attempt = opened()
        attempt.data(said[0] + said[1])
        assert attempt.data(said[2] + said[3]) == said[2]
        assert attempt.end() == b""
        assert attempt.failure is Failure.UNFINISHED
        attempt = opened()
        assert attempt.data(b"".join(said)) == b"".join(said[:-1])

    def test_an_ending_in_pieces_is_handed_on_whole(self) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi"))
        assert attempt.data(text("!") + STOP[:-1]) == text("!")
        assert attempt.data(STOP[-1:] + DONE[:5]) == STOP + DONE[:5]
        assert attempt.data(DONE[5:]) == DONE[5:]
        assert attempt.phase is Phase.COMPLETE

    def test_every_choice_counts_even_where_its_blocks_are_not_parsed(self) -> None:
        attempt = opened(choices=2)
        for piece in (ROLE, text("Heads"), text("Tai", index=1), STOP):
            attempt.data(piece)
        assert attempt.data(DONE) == b""
        assert attempt.failure is Failure.UNFINISHED

    def test_even_where_the_first_choice_speaks_last(self) -> None:
        attempt = opened(choices=2)
        for piece in (text("Tails", index=1), text("Hea"), delta("stop", index=1)):
            attempt.data(piece)
        assert attempt.data(DONE) == b""
        assert attempt.failure is Failure.UNFINISHED

    @pytest.mark.parametrize("before", [ROLE, b""])
    def test_a_choice_that_goes_on_does_not_end_the_others(self, before: bytes) -> None:
        attempt = opened(choices=2)
        attempt.data(before + text("a") + text("b", index=1) + STOP + text("c"))
        attempt.data(DONE)
        assert attempt.failure is Failure.UNFINISHED

    def test_choices_that_go_on_end_with_the_terminator(self) -> None:
        attempt = opened(choices=2)
        attempt.data(STOP + text("a") + delta("stop", index=1) + text("b", index=1))
        assert attempt.phase is Phase.OUTPUT
        attempt.data(DONE)
        assert (attempt.failure, attempt.phase) == (None, Phase.COMPLETE)

    def test_a_server_that_ignores_n_can_still_end(self) -> None:
        attempt = opened(choices=2)
        for piece in (ROLE, text("Heads"), STOP):
            attempt.data(piece)
        assert attempt.data(DONE) == DONE
        assert attempt.phase is Phase.COMPLETE


class TestWhatIsRead:
    """Reading an event costs ten times as much as a search in it."""

    def test_of_a_burst_only_what_may_change_the_phase(self) -> None:
        read: list[bytes] = []

        class Counting(ChatReader):
            def read(self, event: Event) -> Signal:
                read.append(event.data)
                return super().read(event)

        dialect = msgspec.structs.replace(OPENAI_CHAT, reader=Counting)
        attempt = Attempt(1, Call(dialect, Generation(streaming=True)), Policy(), 0.0)
        attempt.open(Head(200), Mode.STREAM)
        first, last = ROLE + text("a") * 500, text("b") * 500 + STOP + USAGE + DONE
        assert attempt.data(first) == first
        assert attempt.data(last) == last
        assert attempt.phase is Phase.COMPLETE
        assert len(read) == 5


class TestErrorsInTheStream:
    @pytest.mark.parametrize(
        ("error", "failure"), [(OVERLOADED, Failure.TRANSIENT_ERROR), (INVALID, Failure.PERMANENT_ERROR)]
    )
    def test_before_output_they_wait_for_a_decision(self, error: bytes, failure: Failure) -> None:
        attempt = opened()
        assert attempt.data(ROLE + error + DONE) == b""
        assert (attempt.failure, attempt.phase) == (failure, Phase.PRELUDE)
        assert attempt.release_error(failure) == ROLE + error + DONE
        assert (attempt.failure, attempt.noted, attempt.phase) == (None, failure, Phase.SETTLED)

    @pytest.mark.parametrize(
        ("error", "failure"), [(OVERLOADED, Failure.TRANSIENT_ERROR), (INVALID, Failure.PERMANENT_ERROR)]
    )
    def test_after_output_they_are_the_ending(self, error: bytes, failure: Failure) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi"))
        assert attempt.data(error) == error
        assert (attempt.failure, attempt.noted, attempt.phase) == (None, failure, Phase.SETTLED)
        assert attempt.data(DONE) == DONE
        assert attempt.phase is Phase.COMPLETE

    def test_after_settling_they_cost_nothing(self) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi") + STOP)
        assert attempt.data(INVALID) == INVALID
        assert (attempt.failure, attempt.noted, attempt.phase) == (None, None, Phase.SETTLED)

    @pytest.mark.parametrize("error", [OVERLOADED, INVALID])
    def test_after_the_end_is_not_taken_back_by_output(self, error: bytes) -> None:
        attempt = opened()
        attempt.data(ROLE + text("Hi") + STOP + error + text("Ho"))
        assert attempt.phase is Phase.SETTLED
        attempt.end()
        assert (attempt.phase, attempt.failure) == (Phase.COMPLETE, None)


class TestBrokenStreams:
    def test_malformed_before_output(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE + BROKEN + text("Hi")) == b""
        assert (attempt.failure, attempt.phase) == (Failure.MALFORMED, Phase.PRELUDE)
        assert attempt.detail == "an event's data is not JSON"

    def test_malformed_after_output_goes_through(self) -> None:
        attempt = opened()
        assert attempt.data(ROLE + text("Hi") + BROKEN) == ROLE + text("Hi") + BROKEN
        assert attempt.data(BROKEN + STOP) == BROKEN + STOP
        assert (attempt.failure, attempt.phase) == (None, Phase.SETTLED)

    @pytest.mark.parametrize("size", [1, 10_000])
    def test_over_the_cap_before_output(self, size: int) -> None:
        attempt = opened(policy=Policy(max_event=300))
        stream = ROLE + text("x" * 400)
        for i in range(0, len(stream), size):
            assert attempt.data(stream[i : i + size]) == b""
            if attempt.failure:
                break
        assert (attempt.failure, attempt.phase) == (Failure.EVENT_TOO_LARGE, Phase.PRELUDE)
        assert attempt.detail == "an event of the stream grew over 300 bytes"

    @pytest.mark.parametrize("size", [1, 37, 10_000])
    def test_over_the_cap_after_output_goes_through_and_the_ending_is_still_seen(self, size: int) -> None:
        attempt = opened(policy=Policy(max_event=300))
        stream = ROLE + text("Hi") + text("x" * 400) + STOP + DONE
        handed_on = b"".join(attempt.data(stream[i : i + size]) for i in range(0, len(stream), size))
        assert handed_on == stream
        assert (attempt.failure, attempt.phase) == (None, Phase.COMPLETE)

    @pytest.mark.parametrize("size", [1, 10_000])
    def test_a_prelude_over_its_cap_counts_as_output(self, size: int) -> None:
        attempt = opened(policy=Policy(max_prelude=500))
        stream = COMMENT * 50
        handed_on = b"".join(attempt.data(stream[i : i + size]) for i in range(0, len(stream), size))
        assert handed_on == stream
        assert attempt.phase is Phase.OUTPUT
        assert attempt.data(ROLE + STOP) == ROLE + STOP
        assert attempt.phase is Phase.SETTLED

    def test_a_prelude_at_its_cap_does_not(self) -> None:
        attempt = opened(policy=Policy(max_prelude=len(ROLE)))
        assert attempt.data(ROLE) == b""
        assert attempt.phase is Phase.PRELUDE


class TestContentEncodings:
    @pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
    def test_decoded_and_the_headers_that_are_no_longer_true_are_dropped(self, encoding: str, encode: object) -> None:
        attempt = opened(content_encoding=encoding, content_length="99", x="1")
        assert attempt.head == Head(200, ((b"x", b"1"),))
        sent = encode(ANSWER)  # type: ignore[operator]
        assert b"".join(attempt.data(bytes([byte])) for byte in sent) == ANSWER
        assert attempt.phase is Phase.COMPLETE

    def test_what_cannot_be_decoded_fails_and_is_named(self) -> None:
        attempt = opened(content_encoding="compress")
        assert attempt.failure is Failure.UNSUPPORTED_ENCODING
        assert "compress" in attempt.detail

    def test_broken(self) -> None:
        attempt = opened(content_encoding="gzip")
        assert attempt.data(b"not gzip at all") == b""
        assert attempt.failure is Failure.BROKEN_FRAMING

    def test_a_compressed_body_that_is_handed_on_unread_must_be_whole(self) -> None:
        attempt = opened(Mode.OPAQUE, content_encoding="gzip")
        sent = gzip.compress(b"<html>" * 100)
        attempt.data(sent[:-9])
        attempt.end()
        assert attempt.failure is Failure.TRUNCATED


class TestDocuments:
    BODY = json.dumps({"choices": [{"message": {"content": "Zürich"}, "finish_reason": "stop"}], "n": 1.5e3}).encode()

    def test_held_until_whole(self) -> None:
        attempt = opened(Mode.WHOLE)
        assert attempt.data(self.BODY[:9]) == attempt.data(self.BODY[9:]) == b""
        assert attempt.phase is Phase.PRELUDE
        assert attempt.end() == self.BODY
        assert (attempt.phase, attempt.failure) == (Phase.COMPLETE, None)

    def test_cut_anywhere(self) -> None:
        for size in range(len(self.BODY)):
            attempt = opened(Mode.WHOLE)
            attempt.data(self.BODY[:size])
            assert attempt.end() == b""
            assert (attempt.failure, attempt.phase) == (Failure.TRUNCATED, Phase.PRELUDE), size

    @pytest.mark.parametrize(
        "body", [b'{"logprob": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": "\xff"}', b" \n {} \n", b'"text"']
    )
    def test_json_as_servers_write_it(self, body: bytes) -> None:
        attempt = opened(Mode.WHOLE)
        attempt.data(body)
        assert attempt.end() == body

    def test_over_the_cap_it_is_handed_on_as_it_comes(self) -> None:
        attempt = opened(Mode.WHOLE, policy=Policy(max_hold=10))
        assert attempt.data(b"[1, 2, 3, 4") == b"[1, 2, 3, 4"
        assert (attempt.mode, attempt.phase) == (Mode.OPAQUE, Phase.OUTPUT)
        assert attempt.data(b", 5]") == b", 5]"

    def test_an_answer_nested_beyond_reason_is_no_crash(self) -> None:
        attempt = opened(Mode.WHOLE)
        attempt.data(b"[" * 100_000)
        attempt.end()
        assert attempt.failure is Failure.TRUNCATED


class TestRefusals:
    def test_held_and_then_released(self) -> None:
        attempt = opened(Mode.REFUSAL)
        assert attempt.data(b'{"error"') == attempt.data(b": 1}") == b""
        assert attempt.refusal == b'{"error": 1}'
        assert attempt.phase is Phase.PRELUDE
        assert attempt.release_refusal() == b'{"error": 1}'
        assert (attempt.mode, attempt.phase) == (Mode.OPAQUE, Phase.OUTPUT)
        assert attempt.data(b" ") == b" "

    def test_one_that_cannot_be_decoded_is_held_too_and_keeps_its_headers(self) -> None:
        attempt = Attempt(1, Call(OPENAI_CHAT, Generation(streaming=True)), Policy(), 0.0)
        attempt.open(Head(503, ((b"content-encoding", b"compress"),)), Mode.REFUSAL)
        assert (attempt.mode, attempt.failure) == (Mode.REFUSAL, None)
        assert attempt.data(b"\x8b") == b""
        assert attempt.release_refusal() == b"\x8b"
        assert attempt.head is not None
        assert "content-encoding" in attempt.head.fields


def test_a_long_tail_of_small_events_is_read_for_its_ending_only() -> None:
    attempt = opened()
    attempt.data(ROLE + text("Hi"))
    for _ in range(1000):
        assert attempt.data(encode('{"choices": [], "anything": {}}'))
    assert attempt.data(STOP)
    assert attempt.phase is Phase.SETTLED
