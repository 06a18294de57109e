"""An answer that is continued under an SDK's HTTP client."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from transports.asking import CALLS, POLICY, Way
from unbroken.errors import StreamCut, UsageError, cause_of
from unbroken.lab import Continuation, Fault, ScriptedAnswer, Upstream

CONTINUE = dataclasses.replace(POLICY, after_output="continue")
ANSWER = ScriptedAnswer(text="The tide goes out, and comes in.")
CUT = Fault("clean_end", "after_characters", offset=18)


@pytest.mark.parametrize(("dialect", "style"), [("chat", "prefix"), ("anthropic", "assistant"), ("completions", None)])
def test_the_rest_follows_in_the_same_response(
    way: Way, serve: Callable[..., Upstream], dialect: str, style: Any
) -> None:
    path, body = CALLS[dialect]
    upstream = serve(CUT, answer=ANSWER, continuation=Continuation(style or "completion", prompt="Hello?"))
    reply = way.post(upstream.origin + path, body, policy=CONTINUE, continuation=style)
    assert reply.error is None
    documents = [json.loads(line[6:]) for line in reply.data.split(b"\n") if line.startswith(b"data: {")]
    assert len({document["id"] for document in documents if "id" in document}) <= 1
    for word in ANSWER.tokens:
        assert reply.data.count(json.dumps(word).encode()) == 1
    assert [seam.character for seam in reply.report.seams] == [18]


def test_a_responses_answer_is_not_continued_and_says_why(way: Way, serve: Callable[..., Upstream]) -> None:
    path, body = CALLS["responses"]
    upstream = serve(CUT, answer=ANSWER)
    reply = way.post(upstream.origin + path, body, policy=CONTINUE, continuation="assistant")
    cause = cause_of(reply.error)
    assert isinstance(cause, StreamCut)
    assert "answers of this dialect cannot be continued by prefix" in str(cause)
    assert len(upstream.requests) == 1


def test_a_style_that_is_none_is_refused_at_once(way: Way) -> None:
    with pytest.raises(UsageError, match="continuation cannot be 'guess'"):
        way.transport(continuation="guess")
