"""The upstream in every dialect: what the core makes of it, and what goes wrong in each dialect's own words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from lab.clients import RawClient
from unbroken.core import events as typed
from unbroken.core.dialect import Dialect, Signal
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.interactions import INTERACTIONS
from unbroken.core.dialects.openai_chat import OPENAI_CHAT
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.dialects.openai_responses import OPENAI_RESPONSES
from unbroken.core.http import Request
from unbroken.core.sse import Event, Parser
from unbroken.lab import Fault, Point, ScriptedAnswer, Upstream

ASK = {"model": "lab", "messages": [], "input": "", "prompt": "", "contents": []}
STREAM = "/v1beta/models/lab:streamGenerateContent?alt=sse"
PATHS: dict[str, tuple[str, str]] = {
    "chat": ("/v1/chat/completions", "/v1/chat/completions"),
    "completions": ("/v1/completions", "/v1/completions"),
    "responses": ("/v1/responses", "/v1/responses"),
    "anthropic": ("/v1/messages", "/v1/messages"),
    "gemini": (STREAM, "/v1beta/models/lab:generateContent"),
    "interactions": ("/v1beta/interactions", "/v1beta/interactions"),
}
"""The path of a stream, and that of a whole answer."""

CORES: dict[str, Dialect] = {
    "chat": OPENAI_CHAT,
    "completions": OPENAI_COMPLETIONS,
    "responses": OPENAI_RESPONSES,
    "anthropic": ANTHROPIC_MESSAGES,
    "gemini": GEMINI,
    "interactions": INTERACTIONS,
}

FULL = ScriptedAnswer(
    text=("Hel", "lo"),
    reasoning=("Hm", "m."),
    tool_calls=[("call_1", "look", ['{"a":', "1}"]), ("call_2", "find", ["{}"])],
)
TERMINATED = {"chat", "completions", "responses", "anthropic", "interactions"}

all_dialects = pytest.mark.parametrize("dialect", PATHS)


def ask(upstream: Upstream, dialect: str, *, stream: bool = True) -> bytes:
    """The body of the answer."""
    with RawClient(upstream.port) as client:
        client.post(json.dumps({**ASK, "stream": stream}).encode(), PATHS[dialect][not stream])
        return client.read_response()[1]


def events(body: bytes) -> list[Event]:
    return list(Parser().feed(body))


def signals(dialect: str, body: bytes) -> list[Signal]:
    core = CORES[dialect]
    call = core.recognise(
        Request("POST", f"http://lab{PATHS[dialect][0]}", (), json.dumps({**ASK, "stream": True}).encode())
    )
    assert call is not None
    reader = core.reader(call.generation)
    return [reader.read(event) for event in events(body)]


def decoded(dialect: str, body: bytes) -> list[typed.TypedEvent]:
    decoder = CORES[dialect].decoder()
    return [event for sent in events(body) for event in decoder.decode(sent)]


def told(answer: Sequence[typed.TypedEvent], kind: type[typed.Text | typed.Reasoning]) -> str:
    return "".join(event.text for event in answer if isinstance(event, kind))


@all_dialects
def test_says_everything_in_order(dialect: str) -> None:
    with Upstream() as upstream:
        body = ask(upstream, dialect)
        assert upstream.requests[0].sent == body
    meant = signals(dialect, body)
    first = next(i for i, signal in enumerate(meant) if signal & Signal.OUTPUT)
    settled = next(i for i, signal in enumerate(meant) if Signal.SETTLES in signal)
    assert first < settled
    assert not any(Signal.TRANSIENT_ERROR in signal or Signal.PERMANENT_ERROR in signal for signal in meant)
    assert (Signal.ENDS in meant[-1]) == (dialect in TERMINATED)
    assert told(decoded(dialect, body), typed.Text) == "Hello from the lab."


@all_dialects
def test_says_reasoning_and_tool_calls(dialect: str) -> None:
    with Upstream(answer=FULL) as upstream:
        answer = decoded(dialect, ask(upstream, dialect))
    assert told(answer, typed.Text) == "Hello"
    assert told(answer, typed.Reasoning) == "Hmm."
    if dialect == "completions":
        return
    calls = [event for event in answer if isinstance(event, typed.ToolCallStart)]
    assert [(call.id, call.name) for call in calls] == [("call_1", "look"), ("call_2", "find")]
    arguments = {call.index: "" for call in calls}
    for event in answer:
        if isinstance(event, typed.ToolCallArguments):
            arguments[event.index] += event.arguments
    assert [json.loads(text) for text in arguments.values()] == [{"a": 1}, {}]


@all_dialects
def test_answers_whole(dialect: str) -> None:
    with Upstream(answer=FULL) as upstream:
        answer = CORES[dialect].decoder().decode_whole(ask(upstream, dialect, stream=False))
    assert told(answer, typed.Text) == "Hello"
    assert any(isinstance(event, typed.Finish) for event in answer)
    assert told(answer, typed.Reasoning) == "Hmm."
    if dialect != "completions":
        assert [event.name for event in answer if isinstance(event, typed.ToolCallStart)] == ["look", "find"]


@all_dialects
@pytest.mark.parametrize("at", ["after_headers", "after_comments", "after_role"])
@pytest.mark.parametrize("answer", [ScriptedAnswer(), ScriptedAnswer(reasoning=("Hm",))], ids=["text", "reasoning"])
def test_says_nothing_of_its_own_in_the_prelude(dialect: str, at: Point, answer: ScriptedAnswer) -> None:
    with Upstream(answer=answer, faults=[Fault("clean_end", at)]) as upstream:
        meant = signals(dialect, ask(upstream, dialect))
    assert all(signal == Signal.SILENT for signal in meant)


@all_dialects
@pytest.mark.parametrize("at", ["after_reasoning", "after_token"])
def test_has_spoken_after_the_first_output(dialect: str, at: Point) -> None:
    with Upstream(faults=[Fault("clean_end", at)]) as upstream:
        meant = signals(dialect, ask(upstream, dialect))
    assert Signal.OUTPUT & meant[-1]
    assert not any(Signal.SETTLES in signal or Signal.ENDS in signal for signal in meant)


@all_dialects
def test_has_settled_after_the_finish(dialect: str) -> None:
    with Upstream(faults=[Fault("clean_end", "after_finish")]) as upstream:
        meant = signals(dialect, ask(upstream, dialect))
    assert Signal.SETTLES in meant[-1]
    assert (Signal.ENDS in meant[-1]) == (dialect in ("responses", "interactions"))


@all_dialects
def test_reports_an_error_in_the_stream(dialect: str) -> None:
    with Upstream(faults=[Fault("error_event", "after_role", error={"message": "No."})]) as upstream:
        body = ask(upstream, dialect)
    assert Signal.TRANSIENT_ERROR in signals(dialect, body)[-1]
    failed = decoded(dialect, body)[-1]
    assert isinstance(failed, typed.Failed)
    assert failed.message == "No."


@all_dialects
@pytest.mark.parametrize(("status", "transient"), [(400, False), (429, True), (503, True)])
def test_refuses(dialect: str, status: int, transient: bool) -> None:
    with Upstream(faults=[Fault("status", "before_headers", status=status)]) as upstream:
        refusal = CORES[dialect].read_error(status, ask(upstream, dialect))
    assert refusal.message == "The lab broke this on purpose."
    assert refusal.transient is transient


@all_dialects
def test_says_something_malformed_among_good_events(dialect: str) -> None:
    with Upstream(faults=[Fault("malformed", "after_token")]) as upstream:
        sent = events(ask(upstream, dialect))
    broken = [event for event in sent if b"broken" in event.data]
    assert len(broken) == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[0].data)
    assert sent[-1] != broken[0]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("length", {"length", "max_tokens", "max_output_tokens", "MAX_TOKENS", "incomplete"}),
        ("peculiar", {"peculiar", "completed"}),
    ],
)
@all_dialects
def test_says_how_it_ended(dialect: str, reason: str, words: set[str]) -> None:
    with Upstream(answer=ScriptedAnswer(finish_reason=reason, usage=None)) as upstream:
        finish = [event for event in decoded(dialect, ask(upstream, dialect)) if isinstance(event, typed.Finish)]
    assert [event.reason in words for event in finish] == [True]


def test_anthropic_keeps_alive_with_pings_and_gemini_not_at_all() -> None:
    with Upstream(answer=ScriptedAnswer(comments=2)) as upstream:
        assert [event.type for event in events(ask(upstream, "anthropic"))][:2] == ["ping", "ping"]
        assert b": keep-alive" not in ask(upstream, "gemini")
        assert ask(upstream, "responses").startswith(b": keep-alive\n\n: keep-alive\n\nevent: response.created")


@all_dialects
def test_a_body_that_is_no_json_is_an_error_of_the_dialect(dialect: str) -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.post(b"{", PATHS[dialect][0])
        response, body = client.read_response()
    assert response.status_code == 400
    assert CORES[dialect].read_error(400, body).message == "The body of the request is not JSON."
