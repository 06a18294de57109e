"""The narrow decode of plain text gives the typed events of the full one, and leaves the same message behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus import recordings
from unbroken.core.answer import Answer
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS, find_dialect
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.events import Text, TypedEvent
from unbroken.core.sse import Event, Parser
from unbroken.errors import MalformedEvent

PLAIN: dict[str, Any] = {
    "openai-chat": {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}],
        "usage": None,
    },
    "openai-responses": {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hi",
    },
    "anthropic-messages": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hi"},
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        "modelVersion": "m",
    },
    "interactions": {
        "index": 1,
        "delta": {"text": "Hi", "type": "text"},
        "event_type": "step.delta",
    },
}
"""An event of plain text in each dialect."""

NAMES = {
    "openai-responses": "response.output_text.delta",
    "anthropic-messages": "content_block_delta",
    "interactions": "step.delta",
}
FIELDS = [
    *("error", "errors", "object", "usage", "x_groq", "message", "finish_reason", "role", "reasoning_content", "type"),
    *("tool_calls", "content", "refusal", "delta", "item_id", "output_index", "text", "thought", "thoughtSignature"),
    *("finishReason", "promptFeedback", "base_resp", "success", "citations", "index", "detail", "promptTokenCount"),
    *("event_type", "annotations", "metadata", "step", "status"),
]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 3.0, 2**70, "", "0", "Hi", "error", "stop", "STOP", "assistant"]),
    st.sampled_from([[], {}, [{}], {"text": "Hi"}, {"message": "no"}, [{"text": "a"}, {"text": "b"}], {"x": [1]}]),
    st.text(max_size=4),
)
SPELLINGS = [
    (b"Hi", b"\xff"),
    (b"Hi", rb"\ud83d"),
    (b"Hi", rb"\ud83d\ude00"),
    (b"Hi", b"NaN"),
    (b'"Hi"', b"NaN"),
    (b"{", b'{"delta": 1, "index": 5, "choices": 2, ', 1),
    (b"}", b"},", 1),
    (b"{", b"\xef\xbb\xbf{", 1),
    (b"{", b" \t{", 1),
    (b"{", b"\x0c{", 1),
]
"""Ways in which bytes depart from what the strict reader reads, or say a field twice."""


class EagerDecoder:
    """Tries the narrow decode on every event, also behind one that was no text."""

    def __init__(self, decoder: PlainFirstDecoder) -> None:
        self.decoder = decoder
        self.was_plain = 0

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        said = self.decoder.decode_plain(event)
        self.was_plain += bool(said)
        return said or self.decoder.decode_full(event)


def said_by(decode: Any, event: Event) -> list[TypedEvent] | str:
    try:
        return list(decode(event))
    except MalformedEvent as exc:
        return str(exc)


def check(dialect: Dialect, events: Sequence[Event]) -> int:
    """Compare the decoders, event by event; return how many events were plain."""
    made = [dialect.decoder() for _ in range(3)]
    assert all(isinstance(decoder, PlainFirstDecoder) for decoder in made)
    full, usual, eager = made
    trying = EagerDecoder(eager)  # type: ignore[arg-type] # asserted above
    answers = [Answer(dialect, decoder) for decoder in made]
    for event in events:
        expected = said_by(full.decode_full, event)  # type: ignore[attr-defined] # asserted above
        assert said_by(usual.decode, event) == expected
        assert said_by(trying.decode, event) == expected
        for answer in answers:
            for typed in expected if isinstance(expected, list) else ():
                answer.add(typed)
    assert answers[0].messages == answers[1].messages == answers[2].messages
    return trying.was_plain


SPOKEN = [dialect for dialect in DIALECTS if dialect.name in PLAIN]


@pytest.mark.parametrize("dialect", SPOKEN, ids=lambda dialect: dialect.name)
def test_in_every_recorded_stream(dialect: Dialect) -> None:
    plain = 0
    for recording in recordings(dialect.name.replace("-", "_")):
        parser = Parser()
        plain += check(dialect, [*parser.feed(recording.body), *parser.end()])
    assert plain > 30


@pytest.mark.parametrize("dialect", SPOKEN, ids=lambda dialect: dialect.name)
def test_plain_text_is_read_by_the_narrow_decode(dialect: Dialect) -> None:
    event = Event(json.dumps(PLAIN[dialect.name]).encode(), NAMES.get(dialect.name, "message"))
    decoder = dialect.decoder()
    assert isinstance(decoder, PlainFirstDecoder)
    assert decoder.decode_plain(event)[0] == Text("Hi")
    assert check(dialect, [event, event]) == 2


@st.composite
def events(draw: st.DrawFn, dialect: str) -> Event:
    """An event of plain text, or one that departs from it in a field or two, or in its bytes."""
    document = copy.deepcopy(PLAIN[dialect])
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(places(document)))
        name = draw(st.sampled_from([*place, *FIELDS])) if isinstance(place, dict) else 0
        if isinstance(place, list):
            place.append(copy.deepcopy(draw(VALUES)))
        elif name in place and draw(st.booleans()):
            del place[name]
        else:
            place[name] = copy.deepcopy(draw(VALUES))
    data = json.dumps(document).encode()
    if draw(st.integers(0, 3)) == 0:
        data = data.replace(*draw(st.sampled_from(SPELLINGS)))
    return Event(data, draw(st.sampled_from(["message", NAMES.get(dialect, "message"), "error", "ping", "x"])))


def places(document: Any) -> list[Any]:
    """Every object and list in a document."""
    if not isinstance(document, dict | list):
        return []
    inner = document.values() if isinstance(document, dict) else document
    return [document, *(place for value in inner for place in places(value))]


@pytest.mark.parametrize("name", PLAIN)
@given(data=st.data())
def test_in_streams_that_depart_from_the_format(name: str, data: st.DataObject) -> None:
    dialect = find_dialect(name)
    check(dialect, data.draw(st.lists(events(name), min_size=1, max_size=4)))
