"""What is handed on before a seam: whole events, and what cannot be read as such as it comes."""

from __future__ import annotations

import pytest

from core.playbook import DONE, ROLE, text
from unbroken.core.dialects.openai_chat.continuation import ChatTranscript
from unbroken.core.whole_events import WholeEvents

STREAM = ROLE + text("Hello") + b": a comment\n\n" + text(" there") + DONE


def handed_on(stream: bytes, size: int, max_event: int = 1000) -> tuple[bytes, WholeEvents, ChatTranscript]:
    transcript = ChatTranscript()
    events = WholeEvents(lambda event: transcript.read(event) or "", max_event)
    data = b"".join(events.hand_on(stream[start : start + size]) for start in range(0, len(stream), size))
    return data, events, transcript


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_whole_events_come_through_byte_for_byte(size: int, line_end: bytes) -> None:
    stream = STREAM.replace(b"\n", line_end)
    data, events, transcript = handed_on(stream, size)
    assert data + events.end() == stream
    assert (transcript.text, events.problem) == ("Hello there", "")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_half_of_an_event_is_held_and_can_be_forgotten(size: int) -> None:
    data, events, transcript = handed_on(ROLE + text("Hello") + text(" there")[:40], size)
    assert data == ROLE + text("Hello")
    events.drop()
    assert events.end() == b""
    assert transcript.text == "Hello"


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ((ROLE + text("Hello") + text(" there")).replace(b"\n\n", b"\n"), "no blank lines"),
        ((ROLE + text("Hello")).replace(b"\n\n", b"\n").replace(b"data:", b"event: chunk\ndata:"), "no blank lines"),
        (ROLE + b"data: " + b"x" * 2000, "too large"),
        (ROLE + b"data: {broken\n\n" + text("Hello"), "could not be read"),
    ],
)
@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_what_cannot_be_continued_is_handed_on_as_it_comes(stream: bytes, why: str, size: int) -> None:
    data, events, _ = handed_on(stream, size)
    assert data + events.end() == stream
    assert why in events.problem
