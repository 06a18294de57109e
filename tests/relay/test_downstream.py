"""What a client on a bare socket gets of a turn, whatever happens to the upstream, and what it costs when it leaves."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pairwise import pairwise
from ports import free_port
from relay.asked import ANTHROPIC, CHAT, COMPLETIONS, DIALECTS, GEMINI, Asked
from relay.conftest import Call, Serve, ServeRaw
from relay.serving import PATIENCE, Caller, Received, Served, poll, settings_to
from timing import Control
from unbroken.core.dialect import Signal
from unbroken.core.failures import Phase
from unbroken.core.policy import Policy
from unbroken.lab import Fault, Kind, Point, ScriptedAnswer, Upstream
from unbroken.relay.recorder import Outcome, RequestRecord
from unbroken.relay.settings import UpstreamSettings
from wire.servers import Gate, read_head, silence

QUICK = Policy(retries=2, backoff_initial=0.01, backoff_max=0.02, settle_timeout=0.2)
"""Limits that no healthy exchange of a test reaches, and waits that cost no time."""

IMPATIENT = dataclasses.replace(QUICK, idle_timeout=0.2)
"""Where silence is what goes wrong."""

SHORT = 0.05
"""Seconds between heartbeats where some are awaited."""

STREAMED = [asked for asked in DIALECTS if asked is not GEMINI]
"""Dialects that have heartbeats."""


@pytest.fixture(params=DIALECTS, ids=str)
def asked(request: pytest.FixtureRequest) -> Asked:
    chosen: Asked = request.param
    return chosen


def ask(caller: Caller, asked: Asked, *, streaming: bool = True, **headers: str) -> Received:
    asked.begin(caller, streaming=streaming, headers=list(headers.items()))
    return caller.answer()


# Every fault at every point, in every dialect

KINDS: tuple[Kind, ...] = (
    "rst", "fin", "clean_end", "truncated_chunk", "bad_chunk", "short_length", "stall", "error_event", "malformed",
)  # fmt: skip
POINTS: tuple[Point, ...] = (
    "before_headers", "after_headers", "after_comments", "after_role",
    "after_reasoning", "after_token", "after_finish", "after_usage", "after_done",
)  # fmt: skip
PRELUDE, OUTPUT, SETTLED = POINTS[:4], POINTS[4:6], POINTS[6:]
SILENT: tuple[Point, ...] = ("before_headers", "after_role", "after_token", "after_finish")
"""Where a stall is awaited, which takes a while."""
FAULTS = [
    (kind, at)
    for kind in KINDS
    for at in (SILENT if kind == "stall" else POINTS)
    if at != "before_headers" or kind in ("rst", "fin", "stall")
]
OTHERS = [(asked, *fault) for asked in DIALECTS if asked is not CHAT for fault in FAULTS]
every_fault = pytest.mark.parametrize(
    ("asked", "kind", "at"), [*((CHAT, *fault) for fault in FAULTS), *pairwise(OTHERS)], ids=str
)
"""In full for one dialect. In the others the relay does the same things, and only says them in other words."""


class Room:
    """A relay for many tests, each with an upstream of its own; and a second one that is soon tired of silence."""

    def __init__(self, served: Served, impatient: Served) -> None:
        self.served = served
        self._impatient = impatient
        self._names = (f"lab{number}" for number in itertools.count())

    def ask(self, upstream: Upstream, asked: Asked, *, streaming: bool, kind: Kind = "rst") -> Received:
        name, served = next(self._names), self._impatient if kind == "stall" else self.served
        served.settings.upstreams[name] = UpstreamSettings(name, upstream.url)  # type: ignore[index]  # a dict, in truth
        path, body = asked.request(streaming=streaming)
        with Caller(served.port) as caller:
            return caller.ask_json(f"/{name}{path}", body)


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    with Served(settings_to({}, policy=QUICK)) as served, Served(settings_to({}, policy=IMPATIENT)) as impatient:
        yield Room(served, impatient)


def is_whole(answer: Received, upstream: Upstream, *, requests: int) -> None:
    """One whole answer, all of it from the last request."""
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == upstream.requests[-1].sent
    assert len(upstream.requests) == requests
    assert answer.value("x-unbroken-replays") == str(requests - 1)
    assert answer.value("x-unbroken-retries") == "0"
    assert len((answer.value("x-unbroken-lost") or "").split(", ")) == max(1, requests - 1)


def is_cut(answer: Received, upstream: Upstream, asked: Asked) -> None:
    """What came of whole events; then the error in the dialect's shape; no ending, and no end of the body."""
    assert (answer.status, answer.whole) == (200, False)
    [error] = asked.errors(answer.body)
    assert "after output: the answer is not whole" in error.message
    came = answer.body[: answer.body.rindex(b"\n\n", 0, -2) + 2]
    assert upstream.requests[0].sent.startswith(came)
    signals = asked.signals(answer.body)
    assert any(signal & Signal.OUTPUT for signal in signals[:-1])
    assert not any(signal & (Signal.SETTLES | Signal.ENDS) for signal in signals)
    assert signals[-1] & Signal.ERROR
    assert len(upstream.requests) == 1


def is_malformed(answer: Received, upstream: Upstream, asked: Asked) -> None:
    assert (answer.status, answer.whole, answer.value("x-should-retry")) == (502, True, "false")
    assert "the stream is broken" in asked.dialect.read_error(502, answer.body).message
    assert len(upstream.requests) == 1


@every_fault
def test_a_fault_in_a_stream(room: Room, asked: Asked, kind: Kind, at: Point) -> None:
    before = at in PRELUDE
    with Upstream(faults=[Fault(kind, at)]) as upstream:
        answer = room.ask(upstream, asked, streaming=True, kind=kind)
        if kind == "malformed" and before:
            is_malformed(answer, upstream, asked)
        elif kind in ("malformed", "error_event") and not before:
            is_whole(answer, upstream, requests=1)
        elif before:
            is_whole(answer, upstream, requests=2)
        elif at in SETTLED:
            is_whole(answer, upstream, requests=1)
        else:
            is_cut(answer, upstream, asked)


@every_fault
def test_a_fault_in_an_answer_in_one_piece(room: Room, asked: Asked, kind: Kind, at: Point) -> None:
    """Nothing of it is shown before it is whole, so all of it can be asked for again."""
    with Upstream(faults=[Fault(kind, at)]) as upstream:
        answer = room.ask(upstream, asked, streaming=False, kind=kind)
        is_whole(answer, upstream, requests=1 if kind == "clean_end" and at in SETTLED else 2)
        assert json.loads(answer.body)
        assert answer.value("content-type") == "application/json"


@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "one piece"])
@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_a_connection_that_is_lost_at_once(room: Room, asked: Asked, kind: Kind, streaming: bool) -> None:
    with Upstream(faults=[Fault(kind, "connect")]) as upstream:
        answer = room.ask(upstream, asked, streaming=streaming)
        assert (answer.status, answer.whole, answer.body) == (200, True, upstream.requests[-1].sent)
        assert len(upstream.requests) == 1
        assert upstream.connections == 2


# What the upstream refuses


class TestAProvidersOwnRefusal:
    @pytest.mark.parametrize("streaming", [True, False])
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    def test_is_handed_on_untouched(self, room: Room, asked: Asked, status: int, streaming: bool) -> None:
        with Upstream(faults=[Fault("status", "before_headers", status=status)]) as upstream:
            answer = room.ask(upstream, asked, streaming=streaming)
            assert (answer.status, answer.whole) == (status, True)
            assert answer.body == upstream.requests[0].sent != b""
            assert answer.value("content-type") == "application/json"
            assert answer.value("x-should-retry") is None
            assert len(upstream.requests) == 1

    def test_with_the_wait_that_it_asks_for(self, room: Room, asked: Asked) -> None:
        fault = Fault("status", "before_headers", status=429, headers={"retry-after": "61", "x-ratelimit": "0"})
        with Upstream(faults=[fault]) as upstream:
            answer = room.ask(upstream, asked, streaming=True)
            assert (answer.status, answer.value("retry-after"), answer.value("x-ratelimit")) == (429, "61", "0")
            assert answer.body == upstream.requests[0].sent

    def test_when_the_budget_is_used_up(self, room: Room, asked: Asked) -> None:
        count = QUICK.retries + 1
        with Upstream(faults=[Fault("status", "before_headers", status=529)] * count) as upstream:
            answer = room.ask(upstream, asked, streaming=True)
            assert (answer.status, answer.body) == (529, upstream.requests[-1].sent)
            assert (len(upstream.requests), answer.value("x-unbroken-retries")) == (count, str(QUICK.retries))
            assert answer.value("x-unbroken-lost") == ", ".join(["busy@headers"] * QUICK.retries)


class TestAFinalFailure:
    @pytest.mark.parametrize("streaming", [True, False])
    def test_is_a_502_in_the_dialects_words(self, serve: Serve, call: Call, stack: ExitStack, asked: Asked, streaming):
        upstream = stack.enter_context(Upstream(faults=[Fault("rst", "before_headers")] * 4))
        served = serve(upstream.url, policy=QUICK)
        caller = call(served)
        answer = ask(caller, asked, streaming=streaming)
        assert (answer.status, answer.whole, answer.value("x-should-retry")) == (502, True, "false")
        assert "3 replays used up; 4 attempts in all" in asked.dialect.read_error(502, answer.body).message
        assert answer.value("x-unbroken-lost") == ", ".join(["reset@headers"] * 4)
        assert (served.entry()["outcome"], served.entry()["bytes_out"]) == ("lost", len(answer.body))
        assert ask(caller, asked, streaming=streaming).status == 200, "the connection can be used again"

    def test_is_a_504_where_the_model_was_too_slow(self, serve: Serve, call: Call, stack: ExitStack, asked: Asked):
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", "after_headers")]))
        answer = ask(call(serve(upstream.url, policy=Policy(first_output_timeout=0.2))), asked)
        assert (answer.status, answer.value("x-should-retry")) == (504, "false")
        assert "no output within 0.2 s" in asked.dialect.read_error(504, answer.body).message

    def test_is_a_502_where_nobody_is_there(self, serve: Serve, call: Call, asked: Asked) -> None:
        served = serve(f"http://127.0.0.1:{free_port()}/v1", policy=Policy(unreachable_for=0))
        answer = ask(call(served), asked)
        assert (answer.status, served.entry()["outcome"]) == (502, "unreachable")
        assert "connection refused" in asked.dialect.read_error(502, answer.body).message

    def test_is_a_500_where_the_relay_cannot_work(self, serve: Serve, call: Call, lab: Upstream, tmp_path: Path):
        to = {"lab": UpstreamSettings("lab", lab.url.replace("http:", "https:"), ca_file=str(tmp_path / "missing.pem"))}
        answer = ask(call(serve(to, default="lab")), CHAT)
        assert (answer.status, answer.code) == (500, "misconfigured")


# Heartbeats


NOTHING, HEAD, FIRST_EVENT, TOKEN = b"", rb"\r\n\r\n", rb"\n\n\r\n", rb"Hello.*?\n\n\r\n"
"""After what an upstream falls silent."""

Held = Callable[[Upstream, bytes], tuple[Gate, str]]


def wait_for_heartbeats(served: Served, count: int, *, attempt: int = 1) -> int:
    """Wait until the one turn that runs has sent so many, in this attempt or later; return how many there are."""

    def sent() -> int:
        turns = [turn for turn in running(served) if len(turn.attempts) >= attempt and turn.heartbeats >= count]
        return turns[0].heartbeats if turns else 0

    return poll(sent)


class TestHeartbeats:
    @pytest.fixture
    def held(self, serve_raw: ServeRaw) -> Held:
        """Puts a gate before an upstream, which is silent until the test opens it; tells its base URL too."""

        def hold(upstream: Upstream, after: bytes) -> tuple[Gate, str]:
            gate = Gate(upstream.port, after)
            return gate, f"{serve_raw(gate).url}/v1"

        return hold

    @pytest.mark.parametrize("asked", STREAMED, ids=str)
    def test_are_sent_while_the_model_thinks(
        self, serve: Serve, call: Call, lab: Upstream, held: Held, asked: Asked
    ) -> None:
        gate, url = held(lab, HEAD if asked is COMPLETIONS else FIRST_EVENT)  # the first event of that one is output
        served = serve(url, heartbeat=SHORT)
        began = time.monotonic()
        asked.begin(caller := call(served))
        wait_for_heartbeats(served, 2)
        gate.open()
        answer = caller.answer()
        beat = asked.dialect.heartbeat
        beats = answer.body.count(beat)
        assert answer.whole
        assert answer.body == beat * beats + lab.requests[0].sent
        assert 2 <= beats <= (time.monotonic() - began) / SHORT
        assert answer.value("content-type") == "text/event-stream; charset=utf-8"
        assert (answer.value("x-unbroken-replays"), answer.value("x-request-id")) == (None, None)
        assert answer.value("x-unbroken-turn") == served.entry()["id"]
        assert served.entry()["heartbeats"] == beats

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    def test_are_sent_between_tokens_too(
        self, serve: Serve, call: Call, lab: Upstream, held: Held, asked: Asked
    ) -> None:
        gate, url = held(lab, TOKEN)
        served = serve(url, heartbeat=SHORT)
        asked.begin(caller := call(served))
        wait_for_heartbeats(served, 2)
        gate.open()
        answer = caller.answer()
        beat = asked.dialect.heartbeat
        assert answer.body.replace(beat, b"") == lab.requests[0].sent
        assert answer.body.count(beat) >= 2
        assert not answer.body.startswith(beat)
        assert answer.value("x-unbroken-replays") == "0"

    @pytest.mark.parametrize("asked", STREAMED, ids=str)
    def test_keep_one_stream_over_a_cut_and_a_replay(
        self, serve: Serve, call: Call, stack: ExitStack, held: Held, asked: Asked
    ) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("rst", "after_headers")]))
        gate, url = held(upstream, HEAD)
        served = serve(url, heartbeat=SHORT)
        asked.begin(caller := call(served))
        before = wait_for_heartbeats(served, 1)
        gate.open()
        wait_for_heartbeats(served, before + 2, attempt=2)
        gate.open()
        answer = caller.answer()
        assert (answer.status, answer.whole) == (200, True)
        assert answer.body.replace(asked.dialect.heartbeat, b"") == upstream.requests[1].sent
        entry = served.entry()
        assert (entry["outcome"], entry["attempts"], entry["lost"]) == ("answered", 2, ["reset@prelude"])

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    def test_make_a_final_failure_an_event(
        self, serve: Serve, call: Call, stack: ExitStack, held: Held, asked: Asked
    ) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("rst", "after_headers")]))
        gate, url = held(upstream, HEAD)
        served = serve(url, heartbeat=SHORT, policy=Policy(replays=0))
        asked.begin(caller := call(served))
        wait_for_heartbeats(served, 1)
        gate.open()
        answer = caller.answer()
        assert (answer.status, answer.whole) == (200, False)
        [error] = asked.errors(answer.body)
        assert "before any output" in error.message
        assert served.entry()["outcome"] == "lost"

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    def test_make_a_late_429_an_event(
        self, serve: Serve, call: Call, stack: ExitStack, held: Held, asked: Asked
    ) -> None:
        refused = Fault("status", "before_headers", status=429, headers={"retry-after": "90"})
        upstream = stack.enter_context(Upstream(faults=[Fault("rst", "after_headers"), refused]))
        gate, url = held(upstream, HEAD)
        served = serve(url, heartbeat=SHORT)
        asked.begin(caller := call(served))
        wait_for_heartbeats(served, 1)
        gate.open()
        gate.open()
        answer = caller.answer()
        assert (answer.status, answer.whole) == (200, False)
        [error] = asked.errors(answer.body)
        assert error.message == asked.dialect.read_error(429, upstream.requests[1].sent).message
        assert served.entry()["outcome"] == "refused"

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    def test_do_not_come_before_the_headers(self, serve: Serve, call: Call, stack: ExitStack, asked: Asked) -> None:
        """So that a late 429 stays a 429."""
        refused = Fault("status", "before_headers", seconds=0.2, status=429, headers={"retry-after": "90"})
        upstream = stack.enter_context(Upstream(faults=[refused]))
        answer = ask(call(serve(upstream.url, heartbeat=SHORT)), asked)
        assert (answer.status, answer.body) == (429, upstream.requests[0].sent)

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    def test_come_before_the_headers_where_that_is_wanted(
        self, serve: Serve, call: Call, lab: Upstream, held: Held, asked: Asked
    ) -> None:
        gate, url = held(lab, NOTHING)
        served = serve(url, heartbeat=SHORT, early_heartbeat=True)
        asked.begin(caller := call(served))
        wait_for_heartbeats(served, 2)
        gate.open()
        answer = caller.answer()
        beat = asked.dialect.heartbeat
        assert answer.body.startswith(beat * 2)
        assert answer.body.replace(beat, b"") == lab.requests[0].sent

    @pytest.mark.parametrize("early", [True, False])
    def test_are_not_for_gemini(self, serve: Serve, call: Call, stack: ExitStack, early: bool) -> None:
        upstream = stack.enter_context(Upstream(answer=ScriptedAnswer(think=0.2, think_at="after_headers")))
        answer = ask(call(serve(upstream.url, heartbeat=SHORT, early_heartbeat=early)), GEMINI)
        assert answer.body == upstream.requests[0].sent

    @pytest.mark.parametrize("asked", [CHAT, ANTHROPIC], ids=str)
    @pytest.mark.parametrize("early", [True, False])
    def test_are_not_for_an_answer_in_one_piece(
        self, serve: Serve, call: Call, stack: ExitStack, asked: Asked, early: bool
    ) -> None:
        upstream = stack.enter_context(Upstream(answer=ScriptedAnswer(think=0.2, think_at="after_headers")))
        answer = ask(call(serve(upstream.url, heartbeat=SHORT, early_heartbeat=early)), asked, streaming=False)
        assert (answer.body, answer.whole) == (upstream.requests[0].sent, True)


# The client leaves

STALLED: dict[str, tuple[dict[str, Any], Callable[[Upstream], Any]]] = {
    "before the headers": ({"at": "before_headers"}, lambda lab: lab.requests),
    "before the prelude": ({"at": "after_headers"}, lambda lab: lab.requests[0].head_sent),
    "in the prelude": ({"at": "after_role"}, lambda lab: lab.requests[0].sent),
    "after output": ({"at": "after_token"}, lambda lab: b"Hello" in lab.requests[0].sent),
    "after settling": ({"at": "after_finish"}, lambda lab: b"stop" in lab.requests[0].sent),
}


HEARD = {"after output": b"Hello", "after settling": b'"stop"'}


def close(caller: Caller) -> None:
    caller.close()


def reset(caller: Caller) -> None:
    caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


@pytest.mark.timing
class TestAClientThatLeaves:
    def ended_in_time(self, upstream: Upstream, since: float, promptly: Control) -> None:
        request = upstream.requests[-1]
        assert upstream.wait_for(lambda: request.gone_at or request.done_at, PATIENCE)
        assert request.gone_at is not None
        promptly(since, request.gone_at)

    @pytest.mark.parametrize("leave", [close, reset])
    @pytest.mark.parametrize("phase", STALLED)
    def test_ends_the_upstreams_request(
        self, serve: Serve, call: Call, stack: ExitStack, phase: str, leave, promptly: Control
    ) -> None:
        where, has_come_to = STALLED[phase]
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", **where)]))
        served = serve(upstream.url, policy=Policy(settle_timeout=60))
        caller = call(served)
        CHAT.begin(caller)
        assert upstream.wait_for(lambda: upstream.requests and has_come_to(upstream), PATIENCE)
        if phase in HEARD:
            caller.until(HEARD[phase])
        since = time.monotonic()
        leave(caller)
        self.ended_in_time(upstream, since, promptly)
        # Who has heard how the answer ended, has all of it.
        assert served.entry()["outcome"] == ("answered" if phase == "after settling" else "left")
        assert len(upstream.requests) == 1

    def test_in_any_dialect(self, serve: Serve, call: Call, stack: ExitStack, asked: Asked, promptly: Control) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", "after_role")] * 2))
        served = serve(upstream.url)
        for streaming in (True, False):
            caller = call(served)
            asked.begin(caller, streaming=streaming)
            count = 2 - streaming
            assert upstream.wait_for(lambda: len(upstream.requests) == count and upstream.requests[-1].head_sent, 5)  # noqa: B023
            since = time.monotonic()
            caller.close()
            self.ended_in_time(upstream, since, promptly)

    def test_after_heartbeats(self, serve: Serve, call: Call, stack: ExitStack, promptly: Control) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", "after_role")]))
        served = serve(upstream.url, heartbeat=SHORT)
        caller = call(served)
        CHAT.begin(caller)
        caller.until(CHAT.dialect.heartbeat)
        since = time.monotonic()
        caller.close()
        self.ended_in_time(upstream, since, promptly)
        entry = served.entry()
        assert (entry["outcome"], entry["status"]) == ("left", 200)
        assert entry["heartbeats"] >= 1

    def test_during_a_wait(self, serve: Serve, call: Call, stack: ExitStack, promptly: Control) -> None:
        busy = Fault("status", "before_headers", status=503, headers={"retry-after": "30"})
        upstream = stack.enter_context(Upstream(faults=[busy]))
        served = serve(upstream.url)
        caller = call(served)
        CHAT.begin(caller)
        poll(lambda: any(len(turn.attempts) == 2 for turn in running(served)))
        since = time.monotonic()
        caller.close()
        assert served.entry()["outcome"] == "left"
        promptly(since)
        assert len(upstream.requests) == 1
        assert served.entry()["lost"] == ["busy@headers", "cancelled@connect"]

    def test_without_having_read_a_thing(
        self, serve: Serve, call: Call, serve_raw: ServeRaw, promptly: Control
    ) -> None:
        flood = Flood()
        upstream = serve_raw(flood)
        caller = call(serve(f"{upstream.url}/v1"), small=True)
        CHAT.begin(caller)
        flood.wait_until_held_up()
        since = time.monotonic()
        reset(caller)
        promptly(since, upstream.wait_until_gone())


def running(served: Served) -> list[RequestRecord]:
    """What is known of the turns that run."""

    async def look() -> list[RequestRecord]:
        return [turn.record() for turn in served.relay.recorder.live.values()]

    return served.run(look)


# The relay is stopped


class TestTheRelayStops:
    def test_with_a_word_to_its_clients(self, serve: Serve, call: Call, stack: ExitStack, asked: Asked) -> None:
        upstream = stack.enter_context(Upstream(faults=[Fault("stall", "after_token"), Fault("stall", "after_role")]))
        served = serve(upstream.url, grace=0.0)
        spoken, waiting = call(served), call(served)
        asked.begin(spoken)
        assert upstream.wait_for(lambda: upstream.requests and upstream.requests[0].sent, PATIENCE)
        answer = spoken.head()
        asked.begin(waiting)
        assert upstream.wait_for(lambda: len(upstream.requests) == 2 and upstream.requests[1].head_sent, PATIENCE)
        served.stop()
        refused = waiting.answer()
        assert (refused.status, refused.whole, refused.value("x-should-retry")) == (503, True, None)
        assert asked.dialect.read_error(503, refused.body).message == "the relay was stopped"
        spoken._read_chunks(answer)
        assert not answer.whole
        [error] = asked.errors(answer.body)
        assert error.message == "the relay was stopped"
        served.join()
        assert {entry["outcome"] for entry in served.entries} == {"stopped"}
        assert upstream.wait_for(lambda: all(request.gone for request in upstream.requests), PATIENCE)


# Backpressure

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % (b"x" * 4000)
EVENTS = 12_500
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Flood:
    """An upstream that sends 50 MB as fast as they are taken.

    Attributes:
        sent: bytes that it could send so far.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.moved_at = time.monotonic()

    def __call__(self, sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        batch = EVENT * 10
        for piece in itertools.chain(itertools.repeat(batch, EVENTS // 10), [LAST]):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.sent += len(piece)
            self.moved_at = time.monotonic()
        sock.sendall(b"0\r\n\r\n")
        silence(sock)

    def wait_until_held_up(self) -> None:
        poll(lambda: self.sent and time.monotonic() - self.moved_at > 0.3)


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class TestASlowReader:
    def test_holds_the_upstream_up_and_grows_no_memory(self, serve: Serve, call: Call, serve_raw: ServeRaw) -> None:
        flood = Flood()
        served = serve(f"{serve_raw(flood).url}/v1")
        caller = call(served, small=True)
        CHAT.begin(caller)
        before = resident()
        flood.wait_until_held_up()
        assert flood.sent < 20_000_000  # what the kernel takes on two connections
        assert resident() - before < 8_000_000
        [turn] = running(served)
        assert turn.outcome is None
        answer = caller.head()
        events, others = take_all(caller)
        assert events == EVENTS
        assert others == LAST
        assert answer.status == 200
        assert served.entry()["outcome"] == "answered"
        assert resident() - before < 16_000_000


def take_all(caller: Caller) -> tuple[int, bytes]:
    """Read a body in chunks to its end: how many events of the flood there were, and what else there was."""
    pending, body, count = bytearray(caller._rest), bytearray(), 0
    while True:
        while (end := pending.find(b"\r\n")) >= 0 and len(pending) >= end + 4 + (size := int(pending[:end], 16)):
            body += pending[end + 2 : end + 2 + size]
            del pending[: end + 4 + size]
            count += body.count(EVENT)
            body = bytearray(body.replace(EVENT, b""))
            if size == 0:
                return count, bytes(body)
        data = caller.sock.recv(262_144)
        assert data, "the body has no end"
        pending += data


# What is known of a turn that runs


def test_a_turn_is_recorded_while_it_runs(serve: Serve, call: Call, stack: ExitStack) -> None:
    faults = [Fault("rst", "after_role"), Fault("stall", "after_token")]
    upstream = stack.enter_context(Upstream(faults=faults))
    served = serve(upstream.url)
    caller = call(served)
    CHAT.begin(caller)
    caller.until(b"Hello")
    [turn] = running(served)
    lost, speaks = turn.attempts
    assert (turn.outcome, turn.streaming, turn.dialect, turn.upstream) == (None, True, "openai-chat", "lab")
    assert (lost.failure, lost.phase, speaks.failure, speaks.phase) == ("reset", Phase.PRELUDE, None, Phase.OUTPUT)
    assert 0 < speaks.headers_after <= speaks.output_after <= speaks.elapsed
    assert lost.elapsed <= speaks.after <= turn.elapsed
    caller.close()
    served.entry()
    assert running(served) == []
    assert [turn.outcome for turn in served.relay.recorder.recent] == [Outcome.LEFT]
