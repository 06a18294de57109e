"""The recorded streams of each kind of departure from the format, on sockets, through every face.

A typed client says what was said, a transport and a relay hand on what came; and half an answer is never a whole one.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict

import pytest

from core.corpus import Recording, recordings
from differential.recorded import every_recording, headers_of
from differential.streams import Stream
from servers.conftest import Asking
from servers.faces import Said
from unbroken.core.dialect import FinishMeaning, finish_meaning
from unbroken.core.dialects import DIALECTS, find_dialect
from unbroken.errors import ProviderError, StreamCut

TOPICS: dict[str, list[tuple[str, Recording]]] = defaultdict(list)
for dialect_name, recorded in every_recording():
    if topic := recorded.facts.get("topic"):
        TOPICS[topic].append((dialect_name, recorded))
REFUSALS = [
    pytest.param(dialect.name, refusal, id=f"{dialect.name}-{refusal}")
    for dialect in DIALECTS
    for refusal in recordings(f"{dialect.name.replace('-', '_')}_refused", "body")
    if "topic" in refusal.facts and refusal.facts["means"] == "permanent" and "stream-options" not in refusal.name
]


@pytest.mark.parametrize("topic", TOPICS)
def test_recorded_streams(asking: Asking, face: str, topic: str) -> None:
    for dialect, recording in TOPICS[topic]:
        stream = Stream(tuple(recording.pieces()), headers_of(recording))
        said, requests = asking(dialect, json.loads(recording.facts["request"]), stream)
        try:
            if said.answer is not None:
                check_typed(dialect, recording, said)
            else:
                check_bytes(dialect, recording, said, is_relay=face == "relay")
            assert len(requests) == (2 if is_sent_again(recording) else 1)
        except AssertionError as error:
            raise AssertionError(f"{dialect} {recording}: {error}; {said}") from error


@pytest.mark.parametrize(("dialect", "refusal"), REFUSALS)
def test_a_quota_that_does_not_pass_is_handed_on_at_once(asking: Asking, dialect: str, refusal: Recording) -> None:
    headers = {"content-type": refusal.facts["content_type"]}
    stream = Stream((refusal.body,), headers, status=refusal.facts["status"])
    body = {"stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
    said, requests = asking(dialect, body, stream)
    assert len(requests) == 1
    if said.answer is None:
        assert (said.status, said.data, said.error) == (refusal.facts["status"], refusal.body, None)
    else:
        assert isinstance(said.error, ProviderError)
        assert refusal.facts["message"] in str(said.error)
        assert not said.error.retryable


def check_typed(dialect: str, recording: Recording, said: Said) -> None:
    expect, answer = recording.expect, said.answer
    assert answer is not None
    assert (answer.text, answer.reasoning) == (expect.get("text", ""), expect.get("reasoning", ""))
    if is_error(dialect, recording):
        assert isinstance(said.error, ProviderError), said.error
        assert expect.get("error", {}).get("message", expect.get("finish_reason")) in str(said.error)
        assert said.error.partial is answer
    elif not expect["complete"]:
        assert isinstance(said.error, StreamCut), said.error
        assert said.error.partial is answer
    else:
        assert said.error is None
        assert answer.finish_reason == expect["finish_reason"]
        if "messages" in expect:
            assert answer.messages == json.loads(expect["messages"])
    calls = {call["name"]: call["arguments"] or "{}" for call in expect.get("tool_calls", ())}
    assert [call.name for call in answer.tool_calls] == expect.get("offered", [])
    assert all(call.parsed == json.loads(calls[call.name]) for call in answer.tool_calls if len(calls) > 1)
    assert answer.usage.output_tokens == expect.get("usage", {}).get("output_tokens")
    assert answer.usage.input_tokens == expect.get("usage", {}).get("input_tokens")


def check_bytes(dialect: str, recording: Recording, said: Said, *, is_relay: bool) -> None:
    data = said.data or b""
    if recording.expect["complete"] or is_error(dialect, recording):
        assert said.error is None
        assert (said.status, data) == (200, recording.body)
    elif said.status == 200:  # as far as it came, but no forged terminator
        assert said.error is not None
        pairs = zip(recording.body, data, strict=False)
        shown = data[: len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))]
        told = data[len(shown) :] if is_relay else str(said.error).encode()
        assert b"the answer is not whole" in told
        assert is_relay or data == shown
        assert b"[DONE]" not in data
        assert b"message_stop" not in data
    else:
        assert (said.status, is_relay) == (502, True) or isinstance(said.error.__cause__, StreamCut)


def is_error(dialect: str, recording: Recording) -> bool:
    """Whether the provider said itself that it failed."""
    expect, reasons = recording.expect, find_dialect(dialect).finish_reasons
    return "error" in expect or finish_meaning(reasons, expect.get("finish_reason", "")) is FinishMeaning.FAILED


def is_sent_again(recording: Recording) -> bool:
    """Whether a request for it is worth another one: it failed before any output, and that may pass."""
    first = next((label for label in recording.labels if label not in ("silent", "usage")), "")
    return first == "error:transient" or (
        not recording.expect["complete"] and first in ("", "ends") and not recording.facts.get("rest")
    )
