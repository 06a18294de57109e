"""Typed errors: what each tells, what had come by then, and the report on every one of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from client.asking import DONE, JSON, QUICK, STREAM, Asking, answer, chunk, event, piece
from ports import free_port
from unbroken.client import Answer, PartialToolCall
from unbroken.client.reading import TurnReader
from unbroken.core.dialect import Call, Generation
from unbroken.core.dialects import find_dialect
from unbroken.core.events import Failed, Text
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.errors import (
    FirstOutputTimeout,
    MalformedStream,
    ProviderError,
    StreamCut,
    TurnError,
    UnexpectedResponse,
    Unreachable,
)
from unbroken.lab import Fault, Upstream

Serve = Callable[..., Upstream]


def refusal(status: int, body: bytes, **headers: str) -> Fault:
    return answer(body, status=status, headers={"content-type": "application/json", **headers})


def error(**members: Any) -> bytes:
    return json.dumps({"error": members}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable", "message"),
    [
        (400, error(message="Bad.", type="invalid_request_error"), "invalid_request_error", False, "HTTP 400: Bad."),
        (401, error(message="No.", code="invalid_api_key"), "invalid_api_key", False, "HTTP 401: No."),
        (402, error(message="Insufficient Balance", type="unknown_error"), "unknown_error", False, "HTTP 402: Ins"),
        (404, b'{"detail": "Not Found"}', "", False, "HTTP 404: Not Found"),
        (404, b"<html>nginx</html>", "", False, "HTTP 404"),
        (413, b"", "", False, "HTTP 413"),
        (429, error(message="You ran out.", type="insufficient_quota"), "insufficient_quota", False, "HTTP 429: You"),
        (429, error(message="Slow down.", type="rate_limit_error"), "rate_limit_error", True, "HTTP 429: Slow down."),
        (503, error(message="Busy.", type="server_error"), "server_error", True, "HTTP 503: Busy."),
        (529, b"overloaded", "", True, "HTTP 529"),
    ],
)
def test_a_status(
    asking: Asking, serve: Serve, status: int, body: bytes, kind: str, retryable: bool, message: str
) -> None:
    policy = dataclasses.replace(QUICK, retries=0)
    said = asking(serve(refusal(status, body)), client={"policy": policy})
    assert isinstance(said.error, ProviderError)
    assert (said.error.status, said.error.kind, said.error.retryable) == (status, kind, retryable)
    assert str(said.error).startswith(message)
    assert said.error.phase is Phase.HEADERS
    assert said.error.report == said.report
    assert said.report.attempts[0].status == status
    assert said.events == []


def test_a_status_after_all_retries_tells_of_every_attempt(asking: Asking, serve: Serve) -> None:
    policy = dataclasses.replace(QUICK, retries=2)
    said = asking(serve(*[refusal(503, b"{}")] * 3), client={"policy": policy})
    assert isinstance(said.error, ProviderError)
    assert said.error.report
    assert [attempt.status for attempt in said.error.report.attempts] == [503] * 3


class TestAnErrorInTheStream:
    @pytest.mark.parametrize(
        ("members", "kind", "retryable"),
        [
            ({"type": "invalid_request_error", "message": "Bad."}, "invalid_request_error", False),
            ({"code": "context_length_exceeded", "message": "Long."}, "context_length_exceeded", False),
        ],
    )
    def test_before_output(
        self, asking: Asking, serve: Serve, members: dict[str, str], kind: str, retryable: bool
    ) -> None:
        said = asking(serve(answer(chunk({"role": "assistant"}), event({"error": members}))))
        assert isinstance(said.error, ProviderError)
        assert (said.error.status, said.error.kind, said.error.retryable) == (200, kind, retryable)
        assert said.error.phase is Phase.PRELUDE
        assert str(said.error) == members["message"]
        assert said.error.report == said.report
        assert said.events == []

    def test_after_output(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(chunk({"content": "Hel"}), event({"error": {"type": "server_error"}}))))
        assert isinstance(said.error, ProviderError)
        assert (said.error.kind, said.error.retryable, said.error.phase) == ("server_error", True, Phase.OUTPUT)
        assert isinstance(said.error.partial, Answer)
        assert said.error.partial.text == "Hel"
        assert said.report.lost == 0

    def test_after_the_answer_has_settled_it_is_an_event(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(chunk({"content": "Hello"}, "stop"), event({"error": {"message": "Late."}}))))
        assert said.error is None
        assert said.events[-1] == Failed("Late.")
        assert said.answer.text == "Hello"

    def test_completes_no_tool_call(self, asking: Asking, serve: Serve) -> None:
        call = chunk(piece(0, "{}", id="call_1", name="look"))
        said = asking(serve(answer(call, event({"error": {"type": "invalid_request_error"}}))))
        assert isinstance(said.error, ProviderError)
        assert said.answer.tool_calls == []
        assert isinstance(said.error.partial, Answer)
        assert said.error.partial.partial_tool_calls == [PartialToolCall(0, "call_1", "look", "{}")]

    def test_what_came_before_it_in_the_same_bytes_is_not_lost(self, asking: Asking, serve: Serve) -> None:
        said = asking(
            serve(answer(chunk({"content": "one "}), chunk({"content": "two"}), b'data: {"error": "No."}\n\n'))
        )
        assert isinstance(said.error, ProviderError)
        assert said.answer.text == "one two"
        assert len(said.events) == 2


class TestACut:
    BLOCKS = (
        chunk({"reasoning_content": "Hm."}),
        chunk({"content": "Hel"}),
        chunk(piece(0, '{"whe', id="call_1", name="look")),
    )

    def test_carries_what_had_come(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(*self.BLOCKS)))
        assert isinstance(said.error, StreamCut)
        partial = said.error.partial
        assert isinstance(partial, Answer)
        assert (partial.reasoning, partial.text, partial.tool_calls) == ("Hm.", "Hel", [])
        assert partial.partial_tool_calls == [PartialToolCall(0, "call_1", "look", '{"whe')]
        assert partial.finish_reason is None
        assert said.error.report == said.report

    def test_before_output_carries_nothing(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(*[Fault("fin", "after_role")] * 4))
        assert isinstance(said.error, StreamCut)
        assert isinstance(said.error.partial, Answer)
        assert said.error.partial.is_empty
        assert len(said.report.attempts) == 4

    def test_of_half_an_event_carries_the_whole_ones(self, asking: Asking, serve: Serve) -> None:
        said = asking(serve(answer(chunk({"content": "Hel"}), chunk({"content": "lo"})[:-5])))
        assert isinstance(said.error, StreamCut)
        assert said.answer.text == "Hel"


@pytest.mark.parametrize(
    "broken",
    [b"data: {broken\n\n", b'data: {"choices": [{"delta": {"content": "lo"}\n\n'],
)
def test_a_broken_event_after_output(asking: Asking, serve: Serve, broken: bytes) -> None:
    said = asking(serve(answer(chunk({"content": "Hel"}), broken, chunk({}, "stop"), DONE)))
    assert isinstance(said.error, MalformedStream)
    assert isinstance(said.error.partial, Answer)
    assert said.error.partial.text == "Hel"
    assert not said.error.retryable
    assert said.error.report == said.report


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (answer(b"<html>Sign in</html>", headers={"content-type": "text/html"}), 200, "text/html"),
        (answer(b"Hello", headers={"content-type": ""}), 200, "no content type"),
        (answer(b"", status=302, headers={"location": "https://user:pw@login/sso?t=secret"}), 302, "https://login/sso"),
        (answer(b"", status=308), 308, "nowhere"),
    ],
    ids=["html", "of no kind", "redirect", "redirect to nowhere"],
)
def test_an_answer_of_another_kind(asking: Asking, serve: Serve, fault: Fault, status: int, words: str) -> None:
    said = asking(serve(fault))
    assert isinstance(said.error, UnexpectedResponse)
    assert said.error.status == status
    assert words in str(said.error)
    assert "secret" not in str(said.error)
    assert said.error.report == said.report
    assert len(said.report.attempts) == 1


@pytest.mark.parametrize("headers", [JSON, STREAM, {"content-type": ""}], ids=["JSON", "events", "of no kind"])
def test_nothing_is_no_answer(asking: Asking, serve: Serve, headers: dict[str, str]) -> None:
    nothing = answer(b"", headers=headers)
    assert asking(serve(nothing)).answer.text == "Hello from the lab."
    said = asking(serve(*[nothing] * 4))
    assert isinstance(said.error, StreamCut)
    assert len(said.report.attempts) == 4


def test_nobody_there(asking: Asking, serve: Serve) -> None:
    upstream = serve(port=free_port())
    upstream.close()
    said = asking(upstream)
    assert isinstance(said.error, Unreachable)
    assert said.error.phase is Phase.CONNECT
    assert said.error.report == said.report


def test_no_output_in_time(asking: Asking, serve: Serve) -> None:
    policy = dataclasses.replace(QUICK, first_output_timeout=0.2)
    said = asking(serve(Fault("stall", "after_role")), client={"policy": policy})
    assert isinstance(said.error, FirstOutputTimeout)
    assert said.error.report == said.report


def test_the_policy_of_one_turn_goes_before_that_of_the_client(asking: Asking, serve: Serve) -> None:
    upstream = serve(*[Fault("fin", "after_role")] * 4)
    said = asking(upstream, policy=dataclasses.replace(QUICK, replays=1))
    assert isinstance(said.error, StreamCut)
    assert len(upstream.requests) == 2


def test_an_event_over_the_cap_of_the_turns_policy(asking: Asking, serve: Serve) -> None:
    blocks = [chunk({"content": "Hel"}), chunk({"content": "x" * 5000}), chunk({}, "stop"), DONE]
    said = asking(serve(answer(*blocks)), policy=dataclasses.replace(QUICK, max_event=2000))
    assert isinstance(said.error, MalformedStream)
    assert said.answer.text == "Hel"


def test_an_event_over_the_cap_whose_end_has_not_come() -> None:
    call = Call(find_dialect("openai-chat"), Generation(streaming=True))
    reader = TurnReader(call, dataclasses.replace(QUICK, max_event=2000))
    reader.open(Head(200), is_stream=True)
    assert list(reader.feed(chunk({"content": "Hel"}), Phase.OUTPUT)) == [Text("Hel")]
    with pytest.raises(MalformedStream):
        list(reader.feed(b"data: " + b"x" * 5000, Phase.OUTPUT))


def test_every_error_is_one_to_catch() -> None:
    for kind in (StreamCut, Unreachable, FirstOutputTimeout, MalformedStream, UnexpectedResponse, ProviderError):
        assert issubclass(kind, TurnError)
