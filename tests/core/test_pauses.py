"""Servers that pause inside an answer: every recorded stream with a silence after each of its first three events.

Time is virtual. A pause inside an answer costs nothing, however its server marks its chunks; behind a finish that
stands the rest is waited for, but not for ever.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import pytest

from core.corpus import Recording, recordings
from unbroken.core.actions import EndTurn, Fail, Give, Read, Send
from unbroken.core.deadlines import LINGER, USAGE_WAIT
from unbroken.core.dialect import Call, Dialect
from unbroken.core.dialects import DIALECTS
from unbroken.core.failures import Failure
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.sse import Parser
from unbroken.core.turn import Turn

PAUSES = (1, 3, 15, 25)
PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "interactions": "/v1beta/interactions",
}
EVENT_END = re.compile(rb"(?:\r\n|\r|\n)(?:\r\n|\r|\n)+")


@dataclasses.dataclass
class Handed:
    """What a caller got, and when it was over."""

    data: bytes = b""
    error: Exception | None = None
    over_at: float = 0.0
    report: Report = dataclasses.field(default_factory=Report)


def played(call: Call, pieces: Sequence[tuple[float, bytes]]) -> Handed:
    """Play a turn: each piece comes some seconds after the one before, and then the body ends cleanly."""
    turn = Turn(call, Policy(), now=0.0, random=lambda: 0.0, wall_clock=lambda: 0.0)
    handed, now, left = Handed(), 0.0, list(pieces)
    head = Head(200, ((b"content-type", b"text/event-stream"),))
    arrival = left[0][0] if left else 0.0
    while True:
        match turn.next():
            case Send():
                turn.head(head, now)
            case Give(data):
                handed.data += data
            case Read(limits) if limits.until is not None and left and arrival > limits.until:
                now = limits.until
                turn.lost(Failure.DEADLINE, "", now, sent=True)
            case Read() if left:
                now = arrival
                turn.data(left.pop(0)[1], now)
                arrival = now + left[0][0] if left else now
            case Read():
                turn.end(now)
            case EndTurn() | Fail() as last:
                handed.error = last.error if isinstance(last, Fail) else None
                handed.over_at, handed.report = now, turn.report
                return handed


def events_of(body: bytes) -> list[bytes]:
    ends = [found.end() for found in EVENT_END.finditer(body)]
    ends = ends if ends and ends[-1] == len(body) else [*ends, len(body)]
    return [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def wait_after(labels: Sequence[str]) -> float | None:
    """How long a server may be silent behind these events; ``None``: as long as it likes."""
    spoken = stands = proves_nothing = usage = False
    for label in labels:
        marks = label.split("+")
        if "ends" in marks:
            return LINGER
        if "reopens" in marks:
            stands, proves_nothing = False, True
        if "settles" in marks:
            stands = spoken and not proves_nothing
            proves_nothing = not stands
        usage = stands and (usage or "usage" in marks)
        spoken = spoken or "output" in marks or "reasoning" in marks
        if label.startswith("error") and (spoken or label == "error:permanent"):
            return USAGE_WAIT
    return (USAGE_WAIT if usage else Policy().settle_timeout) if stands else None


WHOLE = [
    pytest.param(dialect, recording, id=f"{dialect.name}-{recording}")
    for dialect in DIALECTS
    for recording in recordings(dialect.name.replace("-", "_"))
    if recording.expect["complete"] and "error" not in recording.expect
]


@pytest.mark.parametrize(("dialect", "recording"), WHOLE)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_pause_after_one_of_the_first_events(dialect: Dialect, recording: Recording, after: int) -> None:
    call = recording.call(dialect, recording.facts.get("url", f"https://api.example.com{PATHS[dialect.name]}"))
    events = events_of(recording.body)
    parser = Parser()
    before = [len(list(parser.feed(event))) for event in events[:after]]
    wait = wait_after(recording.labels[: sum(before)])
    for pause in PAUSES:
        pieces = [(float(pause) if number == after else 0.0, event) for number, event in enumerate(events)]
        handed = played(call, pieces)
        assert handed.error is None
        if wait is None or pause <= wait or after >= len(events):
            assert handed.data == recording.body
            assert not handed.report.unproven_end
        else:
            assert handed.data == b"".join(events[:after])
            assert handed.over_at == wait
            assert handed.report.unproven_end is (wait != LINGER)
