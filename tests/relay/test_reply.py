"""What a client receives of a turn, message by message."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_linear import assert_linear
from relay.asked import ANTHROPIC, CHAT, DIALECTS, GEMINI, RESPONSES, Asked, events
from relay.downstream import Downstream
from unbroken.core.dialect import GatewayError
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.report import AttemptReport, Report
from unbroken.core.sse import Blocks, is_whole_event
from unbroken.relay import asgi, reply
from unbroken.relay.reply import Reply

BOM = b"\xef\xbb\xbf"
CUT = GatewayError(502, "stream_cut", "the stream was cut")
LATE = GatewayError(429, "rate_limit_exceeded", "Slow down.")
EVENT = b'data: {"choices": []}\n\n'
LOST = Report(
    attempts=(
        AttemptReport(number=1, phase=Phase.HEADERS, failure="busy"),
        AttemptReport(number=2, phase=Phase.PRELUDE, failure="reset"),
    ),
    retries=1,
    replays=1,
)


class Stage:
    """A reply to a client that is recorded, on a clock that is set."""

    def __init__(self, asked: Asked = CHAT, *, streaming: bool = True, extra: Any = (), by_break: bool = False) -> None:
        self.now = 100.0
        self.beats: list[int] = []
        self.client = Downstream(lambda: self.now)
        self.dialect = asked.dialect
        self.reply = Reply(
            self.client.send,
            self.dialect,
            "cafe0001",
            streaming=streaming,
            extra=extra,
            cut_by_break=by_break,
            clock=lambda: self.now,
        )

    def run(self, *steps: Callable[[], Awaitable[None]]) -> Downstream:
        async def main() -> None:
            for step in steps:
                await step()

        anyio.run(main)
        return self.client

    # The steps

    def begin(self, status: int = 200, content_type: str = "text/event-stream", **fields: str) -> Any:
        told = fields.pop("report", Report())
        is_stream = content_type == "text/event-stream"
        return lambda: self.reply.begin(head(status, content_type, **fields), told, is_stream=is_stream)

    def data(self, *pieces: bytes) -> Any:
        async def step() -> None:
            for piece in pieces:
                await self.reply.hand_on(piece)

        return step

    async def beat(self) -> None:
        sent, before = len(self.client.sent), self.reply.heartbeats
        await self.reply.heartbeat()
        if self.reply.heartbeats > before:
            self.beats.append(sent)

    @property
    def end(self) -> Any:
        return self.reply.end

    def fail(self, error: GatewayError = CUT, report: Report = LOST, *, breaks: bool) -> Any:
        async def step() -> None:
            if breaks:
                with pytest.raises(asgi.Broken):
                    await self.reply.fail(error, report)
            else:
                await self.reply.fail(error, report)

        return step


def head(status: int = 200, content_type: str = "text/event-stream", **fields: str) -> Head:
    every = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in fields.items()}}
    return Head(status, tuple((name.encode(), value.encode()) for name, value in every.items()))


@pytest.fixture(params=DIALECTS, ids=str)
def asked(request: pytest.FixtureRequest) -> Asked:
    chosen: Asked = request.param
    return chosen


class TestAnAnswer:
    def test_is_handed_on_as_it_came(self, asked: Asked) -> None:
        stage = Stage(asked)
        client = stage.run(stage.begin(201, x_request_id="req_1"), stage.data(EVENT, EVENT * 2), stage.end)
        assert (client.status, client.value("x-request-id")) == (201, "req_1")
        assert (client.body, client.whole) == (EVENT * 3, True)
        assert (stage.reply.status, stage.reply.bytes, stage.reply.heartbeats) == (201, len(EVENT) * 3, 0)

    def test_carries_the_report(self) -> None:
        stage = Stage()
        client = stage.run(stage.begin(report=LOST), stage.data(EVENT), stage.end)
        assert client.value("x-unbroken-turn") == "cafe0001"
        assert (client.value("x-unbroken-retries"), client.value("x-unbroken-replays")) == ("1", "1")
        assert client.value("x-unbroken-lost") == "busy@headers, reset@prelude"

    def test_says_of_losses_only_where_there_were_any(self) -> None:
        stage = Stage()
        client = stage.run(stage.begin(), stage.end)
        assert (client.value("x-unbroken-retries"), client.value("x-unbroken-replays")) == ("0", "0")
        assert client.value("x-unbroken-lost") is None

    def test_promises_no_length_where_something_may_come_between(self) -> None:
        stage = Stage()
        assert stage.run(stage.begin(content_length="5"), stage.end).value("content-length") is None

    @pytest.mark.parametrize("streaming", [True, False])
    def test_keeps_its_length_where_nothing_can(self, streaming: bool) -> None:
        stage = Stage(streaming=streaming)
        client = stage.run(stage.begin(200, "application/json", content_length="2"), stage.data(b"{}"), stage.end)
        assert (client.value("content-length"), client.body) == ("2", b"{}")

    def test_gets_the_fields_that_are_added(self) -> None:
        stage = Stage(extra=((b"access-control-allow-origin", b"*"),))
        assert stage.run(stage.begin(), stage.end).value("access-control-allow-origin") == "*"

    def test_that_ends_without_a_blank_line_loses_nothing(self) -> None:
        stage = Stage()
        client = stage.run(stage.begin(), stage.data(EVENT, b"data: [DO", b"NE]"), stage.end)
        assert (client.body, client.whole) == (EVENT + b"data: [DONE]", True)
        assert stage.reply.bytes == len(client.body)


class TestHalfAnEvent:
    @pytest.mark.parametrize("start", [b"", b"event: x\n", b'data: {"n": 1}\n'], ids=["data", "a line", "an event"])
    def test_in_small_pieces_costs_the_same_for_each(self, start: bytes) -> None:
        def run(size: int) -> None:
            body = start + b'data: "' + b"x" * size + b'"\n\n'
            stage = Stage()
            pieces = (body[at : at + 4] for at in range(0, len(body), 4))
            assert stage.run(stage.begin(), stage.data(*pieces)).body == body

        assert_linear(run, 6 * 1024)

    def test_waits_for_its_other_half(self) -> None:
        stage = Stage()
        client = stage.run(stage.begin(), stage.data(EVENT + b"data: {", b"}\n", b"\n" + EVENT[:9], EVENT[9:]))
        assert client.pieces == [EVENT, b"data: {}\n\n", EVENT]

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
    def test_is_none_where_blank_lines_are_missing(self, line_end: bytes) -> None:
        """Such servers send one line an event; the first is known to be whole once the second has come."""
        lines = [b'data: {"n": %d}' % number + line_end for number in range(3)] + [b"data: [DONE]" + line_end]
        stage = Stage()
        client = stage.run(stage.begin(), stage.data(*lines))
        assert client.pieces == [lines[0] + lines[1], lines[2], lines[3]]

    def test_gets_no_blank_line_from_a_heartbeat_where_they_are_missing(self, asked: Asked) -> None:
        line = b'data: {"n": 1}\n'
        stage = Stage(asked)
        body = stage.run(stage.begin(), stage.data(line, line), stage.beat, stage.data(line), stage.end).body
        assert body == line * 2 + (b": unbroken\n" if asked.dialect.heartbeat else b"") + line

    def test_is_not_waited_for_where_nobody_asked_for_events(self) -> None:
        stage = Stage(streaming=False)
        client = stage.run(stage.begin(200, "application/json"), stage.data(b'{"a":', b" 1}"))
        assert client.pieces == [b'{"a":', b" 1}"]

    @pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r"])
    def test_ends_with_any_blank_line_however_it_is_split(self, blank: bytes) -> None:
        for at in range(len(blank) + 1):
            stage = Stage()
            client = stage.run(stage.begin(), stage.data(b"data: 1" + blank[:at], blank[at:] + b"data: 2" + blank))
            assert client.body == b"data: 1" + blank + b"data: 2" + blank

    def test_goes_through_as_it_comes_where_it_is_large(self) -> None:
        stage, piece = Stage(), b"x" * 50_000
        client = stage.run(stage.begin(), stage.data(b"data: " + piece, *[piece] * 9, b"\n\n"))
        assert client.body == b"data: " + piece * 10 + b"\n\n"
        sizes = [len(sent) for sent in client.pieces]
        assert max(sizes) < 130_000
        assert len(sizes) > 3

    def test_of_a_large_one_the_end_is_found_however_it_is_split(self) -> None:
        for blank in (b"\n\n", b"\r\n\r\n", b"\r\r"):
            for at in range(len(blank) + 1):
                stage = Stage()
                large = b"data: " + b"x" * 70_000 + blank
                split = len(large) - len(blank) + at
                client = stage.run(stage.begin(), stage.data(large[:split], large[split:]))
                assert client.body == large


class TestHeartbeats:
    def test_between_events(self, asked: Asked) -> None:
        stage = Stage(asked)
        client = stage.run(stage.begin(), stage.data(EVENT), stage.beat, stage.beat, stage.data(EVENT), stage.end)
        if asked is GEMINI:
            assert (client.body, stage.reply.heartbeats) == (EVENT * 2, 0)
        else:
            assert client.pieces == [EVENT, stage.dialect.heartbeat, stage.dialect.heartbeat, EVENT]
            assert (stage.reply.heartbeats, stage.reply.bytes) == (2, len(client.body))

    def test_begin_a_reply_of_the_relays_own(self) -> None:
        stage = Stage(extra=((b"vary", b"origin"),))
        client = stage.run(stage.beat, stage.begin(x_request_id="req_1", report=LOST), stage.data(EVENT), stage.end)
        assert client.status == 200
        assert client.headers == [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("x-unbroken-turn", "cafe0001"),
            ("vary", "origin"),
        ]
        assert client.pieces == [stage.dialect.heartbeat, EVENT]
        assert client.whole

    def test_never_in_half_an_event(self) -> None:
        stage = Stage()
        stage.run(stage.begin(), stage.data(EVENT + b"data: "), stage.beat, stage.data(b"1\n\n"))
        assert stage.client.pieces == [EVENT, stage.dialect.heartbeat, b"data: 1\n\n"]

    def test_nor_in_a_large_event_that_goes_through_and_are_asked_for_later(self) -> None:
        stage = Stage()
        stage.run(stage.begin(), stage.data(b"data: " + b"x" * 70_000))
        stage.now += 20
        stage.run(stage.beat)
        assert (stage.reply.heartbeats, stage.reply.sent_at) == (0, stage.now)
        stage.run(stage.data(b"\n\n"), stage.beat)
        assert stage.reply.heartbeats == 1

    @pytest.mark.parametrize(
        "fields",
        [
            {"content_type": "application/json"},
            {"content_type": "text/html"},
            {"status": 401, "content_type": "application/json"},
        ],
        ids=str,
    )
    def test_never_in_what_is_no_stream_of_events(self, fields: dict[str, Any]) -> None:
        """One may have been on its way when the response began."""
        stage = Stage()
        client = stage.run(stage.begin(**fields), stage.beat, stage.data(b"1234"), stage.beat, stage.end)
        assert (client.body, stage.reply.heartbeats) == (b"1234", 0)
        assert not stage.reply.takes_heartbeats

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
    @pytest.mark.parametrize("field", [b"id: 1", b"id:1", b"id"])
    def test_are_no_empty_event_once_an_id_was_sent(self, asked: Asked, field: bytes, line_end: bytes) -> None:
        """The openai SDK takes a blank line for the end of an event as long as it knows the last id."""
        event = field + line_end + b'data: {"id": 7}' + line_end * 2
        stage = Stage(asked)
        steps = [stage.begin(), stage.beat, stage.data(EVENT), stage.beat, stage.data(event), stage.beat]
        body = stage.run(*steps, stage.data(EVENT), stage.end).body
        beat = asked.dialect.heartbeat
        later = b": unbroken\n" if beat == b": unbroken\n\n" else beat
        assert body == beat + EVENT + beat + event + later + EVENT

    def test_never_where_no_stream_was_asked_for(self, asked: Asked) -> None:
        stage = Stage(asked, streaming=False)
        client = stage.run(stage.beat)
        assert (client.status, stage.reply.begun, stage.reply.takes_heartbeats) == (None, False, False)

    def test_never_after_the_end(self) -> None:
        stage = Stage()
        client = stage.run(stage.begin(), stage.data(EVENT), stage.end, stage.beat)
        assert client.body == EVENT

    @pytest.mark.parametrize("begun", [True, False])
    def test_nor_after_a_failure(self, begun: bool) -> None:
        stage = Stage()
        steps = [stage.begin(), stage.data(EVENT)] if begun else []
        before = stage.run(*steps, stage.fail(breaks=begun)).body
        assert stage.run(stage.beat).body == before

    def test_leave_a_byte_order_mark_where_it_is_one_and_nowhere_else(self) -> None:
        stage = Stage()
        assert stage.run(stage.begin(), stage.data(BOM + EVENT, BOM + EVENT)).body == BOM + EVENT + BOM + EVENT
        stage = Stage()
        client = stage.run(stage.beat, stage.begin(), stage.data(BOM + EVENT, BOM + EVENT))
        assert client.body == stage.dialect.heartbeat + EVENT + BOM + EVENT

    def test_count_as_the_last_that_was_sent(self) -> None:
        stage = Stage()
        stage.now = 115.0
        stage.run(stage.beat)
        assert stage.reply.sent_at == 115.0
        stage.now = 120.0
        stage.run(stage.data(EVENT))
        assert stage.reply.sent_at == 120.0

    def test_the_head_counts_too(self) -> None:
        stage = Stage()
        stage.now = 120.0
        stage.run(stage.begin())
        assert stage.reply.sent_at == 120.0


class TestASlowReader:
    def test_holds_up_what_comes_next(self) -> None:
        stage = Stage()

        async def main() -> None:
            await stage.reply.begin(head(), Report(), is_stream=True)
            stage.client.stop_reading()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.reply.hand_on, EVENT)
                await anyio.wait_all_tasks_blocked()
                assert stage.reply.busy
                assert stage.client.waiting == 1
                tasks.start_soon(stage.reply.heartbeat)
                tasks.start_soon(stage.reply.end)
                await anyio.wait_all_tasks_blocked()
                assert stage.client.waiting == 1
                stage.client.read_on()
            assert not stage.reply.busy

        anyio.run(main)
        assert stage.client.pieces == [EVENT, stage.dialect.heartbeat]
        assert stage.client.whole

    def test_whose_answer_ends_gets_no_heartbeat_behind_it(self) -> None:
        stage = Stage()

        async def main() -> None:
            await stage.reply.begin(head(), Report(), is_stream=True)
            stage.client.stop_reading()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.reply.end)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(stage.reply.heartbeat)
                await anyio.wait_all_tasks_blocked()
                stage.client.read_on()

        anyio.run(main)
        assert (stage.client.body, stage.client.whole) == (b"", True)


class TestAFailureBeforeAnythingIsPromised:
    @pytest.mark.parametrize("streaming", [True, False])
    def test_is_an_honest_status(self, asked: Asked, streaming: bool) -> None:
        stage = Stage(asked, streaming=streaming, extra=((b"vary", b"origin"),))
        client = stage.run(stage.fail(GatewayError(504, "first_output_timeout", "too slow"), breaks=False))
        assert (client.status, client.whole) == (504, True)
        assert client.value("content-type") == "application/json"
        assert client.value("content-length") == str(len(client.body))
        assert client.body == stage.dialect.error_body(GatewayError(504, "first_output_timeout", "too slow"))
        assert client.value("vary") == "origin"
        assert (stage.reply.status, stage.reply.bytes) == (504, len(client.body))

    def test_carries_the_report(self) -> None:
        stage = Stage()
        client = stage.run(stage.fail(breaks=False))
        assert client.value("x-unbroken-turn") == "cafe0001"
        assert client.value("x-unbroken-lost") == "busy@headers, reset@prelude"

    def test_says_that_trying_again_is_what_the_relay_has_done(self) -> None:
        stage = Stage()
        assert stage.run(stage.fail(breaks=False)).value("x-should-retry") == "false"

    def test_unless_it_has_not(self) -> None:
        stage = Stage()
        stopped = GatewayError(503, "relay_stopped", "the relay was stopped", retryable=True)
        assert stage.run(stage.fail(stopped, breaks=False)).value("x-should-retry") is None


class TestAFailureAfterThat:
    @pytest.mark.parametrize(
        ("asked", "spoken"),
        [(asked, spoken) for asked in DIALECTS for spoken in (True, False) if spoken or asked is not GEMINI],
        ids=str,
    )
    def test_is_an_event_and_a_broken_connection(self, asked: Asked, spoken: bool) -> None:
        stage = Stage(asked)
        before = [stage.begin(), stage.data(EVENT)] if spoken else [stage.beat]
        client = stage.run(*before, stage.fail(LATE, breaks=True))
        assert client.pieces[-1] == stage.dialect.error_event(LATE)
        assert [error.message for error in asked.errors(client.body)] == [LATE.message]
        assert not client.whole
        assert stage.reply.bytes == len(client.body)

    @pytest.mark.parametrize(
        "half",
        [b"data: {", b"data: {}", b"data: {}\n", b"event: ping\n", b": comm", b"id: 1\r\n", b"event: error"],
    )
    def test_is_not_mistaken_for_the_rest_of_half_an_event(self, asked: Asked, half: bytes) -> None:
        stage = Stage(asked)
        client = stage.run(stage.begin(), stage.data(EVENT + half), stage.fail(breaks=True))
        assert client.body == EVENT + stage.dialect.error_event(CUT)

    def test_is_a_broken_connection_alone_where_the_client_asks_again_only_then(self, asked: Asked) -> None:
        stage = Stage(asked, by_break=True)
        client = stage.run(stage.begin(), stage.data(EVENT, b"data: {"), stage.fail(breaks=True))
        assert (client.body, client.whole) == (EVENT, False)

    @pytest.mark.parametrize(("spoken", "error"), [(True, LATE), (False, CUT)])
    def test_but_is_an_event_all_the_same_if_it_is_no_cut_of_an_answer(self, spoken: bool, error: GatewayError) -> None:
        stage = Stage(by_break=True)
        before = [stage.begin(), stage.data(EVENT)] if spoken else [stage.beat]
        client = stage.run(*before, stage.fail(error, breaks=True))
        assert client.pieces[-1] == stage.dialect.error_event(error)

    def test_nor_of_half_a_large_one(self, asked: Asked) -> None:
        for end in (b"", b"\n", b"\r"):
            stage = Stage(asked)
            large = b"data: " + b"x" * 70_000 + end
            client = stage.run(stage.begin(), stage.data(EVENT, large), stage.fail(breaks=True))
            said = events(client.body)
            assert len(said) == 3
            assert [said[-1]] == events(stage.dialect.error_event(CUT))

    @pytest.mark.parametrize("streaming", [True, False])
    def test_is_a_broken_connection_alone_where_no_event_would_be_understood(self, streaming: bool) -> None:
        stage = Stage(streaming=streaming)
        client = stage.run(
            stage.begin(200, "application/json", content_length="9"), stage.data(b'{"a'), stage.fail(breaks=True)
        )
        assert (client.body, client.whole) == (b'{"a', False)

    def test_comes_too_late_to_say_that_there_is_nothing_to_retry(self) -> None:
        stage = Stage()
        assert stage.run(stage.beat, stage.fail(breaks=True)).value("x-should-retry") is None


class TestWhatSuits:
    def test_is_anything_before_something_is_promised(self) -> None:
        for status in (200, 201, 429):
            assert Stage().reply.suits(head(status), is_stream=status == 200)
            assert Stage().reply.suits(head(status), is_stream=False)

    def test_is_a_stream_of_events_after_a_heartbeat(self) -> None:
        stage = Stage()
        stage.run(stage.beat)
        assert stage.reply.suits(head(), is_stream=True)
        assert stage.reply.suits(head(200, "text/plain"), is_stream=True)
        assert not stage.reply.suits(head(), is_stream=False)
        assert not stage.reply.suits(head(201), is_stream=True)
        assert not stage.reply.suits(head(429), is_stream=False)


# Whatever the chunks, whenever the heartbeats

CORPORA = Path(__file__).parent.parent / "corpora"
FOLDERS = {asked: asked.name.replace("-", "_") for asked in DIALECTS}
STREAMS = [(asked, path) for asked, folder in FOLDERS.items() for path in sorted((CORPORA / folder).glob("*.sse"))]
assert len(STREAMS) > 50


@contextmanager
def holding_at_most(size: int | None) -> Iterator[None]:
    with patch.object(reply, "_MAX_HELD", size or reply._MAX_HELD):
        yield


@st.composite
def told(draw: st.DrawFn) -> tuple[Asked, bytes, list[bytes | None]]:
    """A stream: its dialect, all of it, and its chunks with heartbeats (``None``) among them."""
    asked, path = draw(st.sampled_from(STREAMS))
    newline = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    body = path.read_bytes()[:20_000].replace(b"\r\n", b"\n").replace(b"\n", newline)
    cut = draw(st.integers(0, len(body)))
    body = body[:cut]
    ends = sorted(draw(st.sets(st.integers(1, max(1, len(body))), max_size=12)) | {len(body)})
    chunks = [body[start:end] for start, end in zip([0, *ends], ends, strict=False) if body[start:end]]
    steps: list[bytes | None] = []
    for chunk in chunks:
        steps += [None] * draw(st.integers(0, 2))
        steps.append(chunk)
    return asked, body, steps


def performed(asked: Asked, steps: list[bytes | None], *, fails: bool, begins: bool) -> Stage:
    stage = Stage(asked)
    played = [stage.beat if step is None else stage.data(step) for step in steps]
    first = [] if begins else [stage.beat]
    stage.run(*first, stage.begin(), *played, stage.fail(breaks=True) if fails else stage.end)
    return stage


def without_heartbeats(stage: Stage) -> bytes:
    """What was sent of the stream; every heartbeat stands between two events, or behind a line that is one."""
    seen = b""
    for number, piece in enumerate(stage.client.pieces):
        if number in stage.beats:
            heartbeat = stage.dialect.heartbeat
            assert piece in (heartbeat, b": unbroken\n")  # without a blank line behind ids, and where those are missing
            blocks = Blocks()
            blocks.feed(seen)
            lines = blocks.unfinished.splitlines(keepends=True)
            assert not lines or is_whole_event(lines[-1]), "a heartbeat in the middle of an event"
        else:
            seen += piece
    return seen


@settings(deadline=None, max_examples=250)
@given(told(), st.booleans(), st.sampled_from([None, 16, 200]))
def test_without_heartbeats_the_bytes_are_the_attempts(
    stream: tuple[Asked, bytes, list[bytes | None]], begins: bool, held: int | None
) -> None:
    asked, body, steps = stream
    with holding_at_most(held):
        stage = performed(asked, steps, fails=False, begins=begins)
    seen = without_heartbeats(stage)
    assert seen == body or (0 in stage.beats and BOM + seen == body)
    assert stage.client.whole
    heard = [event for event in events(stage.client.body) if event.type != "ping"]
    assert heard == [event for event in events(body) if event.type != "ping"]


def without_ids(body: bytes) -> list[tuple[str, bytes]]:
    """Events without the id that each inherits from those before it."""
    return [(event.type, event.data) for event in events(body)]


@settings(deadline=None, max_examples=250)
@given(told(), st.booleans())
def test_a_failure_is_the_last_event_and_the_only_one_that_was_not_said(
    stream: tuple[Asked, bytes, list[bytes | None]], begins: bool
) -> None:
    asked, body, steps = stream
    stage = performed(asked, steps, fails=True, begins=begins)
    error = stage.dialect.error_event(CUT)
    seen = without_heartbeats(stage)
    assert seen.endswith(error)
    assert body.removeprefix(BOM).startswith(seen.removeprefix(BOM).removesuffix(error))
    assert not stage.client.whole
    assert without_ids(seen)[-1:] == without_ids(error)
    if b"\r" not in body:
        assert without_ids(seen) == without_ids(body) + without_ids(error)


@settings(deadline=None, max_examples=150)
@given(told(), st.sampled_from([16, 200]))
def test_nor_does_half_a_large_event_swallow_it(stream: tuple[Asked, bytes, list[bytes | None]], held: int) -> None:
    asked, body, steps = stream
    with holding_at_most(held):
        stage = performed(asked, steps, fails=True, begins=True)
    error = stage.dialect.error_event(CUT)
    seen = without_heartbeats(stage)
    assert without_ids(seen)[-1:] == without_ids(error)
    # Half of a CRLF may be a blank line: the parser takes it for one, a reply waits for the other half.
    assert len(events(seen)) - len(events(body)) in ((0, 1, 2) if body.endswith(b"\n\r") else (1, 2))


def test_every_dialect_and_both_anthropics_ping_and_comments_are_among_them() -> None:
    assert {asked for asked, _ in STREAMS} == set(DIALECTS)
    assert json.loads(events(ANTHROPIC.dialect.heartbeat)[0].data)["type"] == "ping"
    assert RESPONSES.dialect.heartbeat.startswith(b":")
