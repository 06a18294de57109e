"""Keys and content stay out of everything that is told: errors, reports, notices, logs."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable

import pytest

from client.asking import KEY, Asking, Said, answer, chunk
from unbroken.client import Client
from unbroken.core.actions import RetryEvent
from unbroken.errors import UsageError
from unbroken.lab import Fault, ScriptedAnswer, Upstream

PROMPT = "the prompt is a secret"
WORDS = "the answer is one too"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


def told(said: Said) -> str:
    error = said.error
    lines = [str(error), repr(error), repr(said.report), said.report.advice]
    if error:
        lines += [repr(error.args), *traceback.format_exception(error)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("fin", "after_role")] * 4,
        [Fault("rst", "after_token")],
        [Fault("clean_end", "after_token")],
        [Fault("malformed", "after_token")],
        [Fault("malformed", "after_role")],
        [Fault("error_event", "after_token")],
        [Fault("status", "before_headers", status=503), Fault("status", "before_headers", status=401)],
        [answer(b"<html>" + WORDS.encode(), headers={"content-type": "text/html"})],
        [answer(chunk({"content": WORDS}), b'data: {"choices": [{"delta": {"content": ["' + WORDS.encode())],
        [answer(chunk({"content": WORDS}), b'data: {"choices": "' + WORDS.encode() + b'"}\n\n')],
        [answer(json.dumps({"words": WORDS}).encode(), headers={"content-type": "application/json"})],
    ],
    ids=lambda faults: faults[0].kind if faults else "nothing",
)
def test_nothing_of_it_is_told(
    asking: Asking, serve: Callable[..., Upstream], logged: Callable[[], str], faults: list[Fault]
) -> None:
    events: list[RetryEvent] = []
    upstream = serve(*faults, answer=ScriptedAnswer(text=WORDS))
    said = asking(upstream, PROMPT, client={"on_retry": events.append})
    for text in (told(said), repr(events), logged()):
        assert KEY not in text
        assert PROMPT not in text
        assert WORDS not in text


def test_a_key_that_the_server_repeats_is_not_repeated(asking: Asking, serve: Callable[..., Upstream]) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}.", "type": "invalid_api_key"}})
    upstream = serve(answer(body.encode(), status=401, headers={"content-type": "application/json"}))
    said = asking(upstream)
    assert "Incorrect API key provided: [the API key]" in str(said.error)
    assert KEY not in told(said)
    upstream = serve(answer(f"data: {body}\n\n".encode()))
    said = asking(upstream)
    assert said.error is not None
    assert KEY not in told(said)


def test_credentials_in_a_url_are_refused_and_not_told() -> None:
    with pytest.raises(UsageError) as refused:
        Client(base_url="http://user:hunter2@127.0.0.1:9/v1")
    assert "hunter2" not in str(refused.value)
