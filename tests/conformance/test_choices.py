"""Every cell of the failure table by the caller's choice, on real sockets: every face, every dialect.

The whole product is long, and marked slow; a part of it in which every two values meet is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import pytest

from choices import CELLS, CHOICES, FOLLOWING, PLACES, WIRES, Cell, Wire, answer_of, before_place
from choices import Outcome as Expected
from conformance.expectations import LOST
from conformance.faces import DRIVERS, FACES, POLICY, PROMPT, Ask, Face, Outcome
from conformance.fixtures import Setting
from conformance.leaving import WAYS, Left
from pairwise import pairwise
from unbroken.core.actions import CallerTimeouts
from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.events import Restarted, Text
from unbroken.core.failures import Phase
from unbroken.core.http import Request
from unbroken.core.sse import Parser
from unbroken.errors import CallerTimeout, DecodeError, MalformedStream, ProviderError, StreamCut
from unbroken.lab import Background, Continuation, Fault, Upstream

TEXT = "Blue, as light scatters."
HALF = "Blue, as"
SEEN = 0.03
"""Seconds after which what was sent has been read: a reset discards what has not."""

WITHIN = 0.25
"""Seconds: the limit of whoever waits for nothing."""

POINTS = {"reasoning": "after_reasoning", "text": "after_characters", "settled": "after_finish"}

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "lost": {
        "rst": {"kind": "rst", "seconds": SEEN},
        "fin": {"kind": "fin"},
        "clean_end": {"kind": "clean_end"},
        "stall": {"kind": "stall"},
        "short_length": {"kind": "short_length"},
        "truncated_chunk": {"kind": "truncated_chunk"},
        "bad_chunk": {"kind": "bad_chunk"},
        "rst_stream": {"kind": "rst_stream"},
        "goaway": {"kind": "goaway", "then": "close"},
    },
    "unprocessed": {"excluded": {"kind": "goaway", "last_stream_id": 0, "then": "close"}},
    "suspected": {"no_ping_ack": {"kind": "no_ping_ack"}},
    "may_pass": {"error": {"kind": "error_event"}},
    "will_not_pass": {"invalid": {"kind": "error_event"}},
    "unreadable": {"malformed": {"kind": "malformed"}},
    "caller": {"patience": {"kind": "stall"}},
    "cancelled": {"leaves": {"kind": "stall"}},
}
"""How each failure comes about in the lab."""

FOLLOWING_KINDS: dict[str, dict[str, Any]] = {
    "unreachable": {"kind": "rst", "at": "handshake"},
    "lost": {"kind": "fin", "at": "after_role"},
    "busy": {"kind": "status", "at": "before_headers", "status": 429},
    "gave_up": {"kind": "status", "at": "before_headers", "status": 504},
    "refused": {"kind": "status", "at": "before_headers", "status": 401},
    "other_content": {
        "kind": "status",
        "at": "before_headers",
        "status": 200,
        "headers": {"content-type": "text/html"},
        "body": b"<html>log in</html>",
    },
    "may_pass": {"kind": "error_event", "at": "after_role"},
    "will_not_pass": {"kind": "error_event", "at": "after_role"},
    "unreadable": {"kind": "malformed", "at": "after_role"},
    "no_output": {"kind": "stall", "at": "after_role"},
    "misfit": {},
    "caller": {"kind": "stall", "at": "after_role"},
    "cancelled": {"kind": "stall", "at": "after_role"},
}

HTTP2 = {"rst_stream", "goaway", "excluded", "no_ping_ack"}

LIMITS: dict[str, dict[str, Any]] = {
    "stall": {"idle_timeout": WITHIN},
    "no_ping_ack": {"ping_interval": 0.05, "ping_timeout": 0.15, "idle_timeout": 0.5, "revive": 0.05},
}

LEAVING = {
    "driver": "driver-thread",
    "driver-asyncio": "driver-asyncio-scope",
    "driver-trio": "driver-trio-scope",
    "client": "client-ctrl-c",
    "client-asyncio": "client-asyncio",
}
"""How the caller leaves, by face."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskIn(Ask):
    """A turn in one of the dialects."""

    wire: Wire

    def request(self) -> tuple[Request, Call]:
        url = self.url.removesuffix("/v1") + self.wire.path
        fields = ((b"content-type", b"application/json"),)
        request = Request("POST", url, fields, json.dumps({**self.wire.body, **self.options}).encode())
        call = recognise(request)
        assert call is not None
        return request, call

    def client_arguments(self) -> dict[str, Any]:
        _, call = self.request()
        return super().client_arguments() | {"dialect": call.dialect.name}

    def text_of(self, data: bytes) -> str:
        """What a program reads from the bytes, up to an event that cannot be read."""
        _, call = self.request()
        decoder, events = call.dialect.decoder(), []
        with contextlib.suppress(DecodeError):
            for event in Parser().feed(data):
                events += decoder.decode(event)
        return "".join(event.text for event in events if isinstance(event, Text))


def serve(settings: Any, face: Face, wire: Wire, cell: Cell, kind: str, *faults: Fault, manner: Any = "goes_on") -> Any:
    """An upstream that continues, if it can, and a turn that asks it."""
    setting: Setting = settings("http2" if kind in HTTP2 else "http1-tls" if kind == "unreachable" else "http1")
    prompt = PROMPT if face.is_typed else wire.body.get("prompt", "")
    server = Continuation(wire.style, manner, prompt=prompt) if wire.style else None
    answer = answer_of(wire, cell.place)
    background = Background(rewinds=2) if cell.failure == "misfit" else Background()
    upstream = setting.serve(*faults, answer=answer, continuation=server, background=background)
    return upstream, AskIn(
        url=upstream.url,
        tls=setting.tls.client,
        wire=wire,
        options=cell.fields,
        policy=dataclasses.replace(POLICY, **cell.limits, **LIMITS.get(kind, {})),
        continuation=wire.style,
        timeouts=CallerTimeouts(read=WITHIN) if cell.failure == "caller" else CallerTimeouts(),
    )


def fault_of(wire: Wire, cell: Cell, kind: str) -> Fault:
    offset = len(HALF) if cell.place == "text" else 0
    error = wire.will_not_pass if cell.failure == "will_not_pass" else {}
    return Fault(**KINDS[cell.failure][kind], at=POINTS[cell.place], offset=offset, error=error)  # type: ignore[arg-type]


# What is demanded


def check(expected: Expected, outcome: Outcome, upstream: Upstream, ask: AskIn, place: str) -> None:
    sent = [request.sent for request in upstream.requests]
    first = outcome.report.attempts[0]
    so_far = {"reasoning": "", "text": HALF, "settled": TEXT}[place]
    received = outcome.text if outcome.is_typed else ask.text_of(outcome.data or b"")
    match expected:
        case Expected.CUT:
            assert type(outcome.error) is StreamCut
            assert (outcome.error.phase, outcome.error.report) == (Phase.OUTPUT, outcome.report)
            assert received == so_far
            assert first.failure in LOST | {"not_processed"}
            assert outcome.is_typed or (outcome.data and sent[0].startswith(outcome.data))
        case Expected.REPLAY | Expected.RETRY:
            assert first.held
            assert outcome.told[0].action == expected.name.lower()
            assert outcome.is_typed or outcome.data == sent[-1]
        case Expected.RESUME:
            assert outcome.told[0].action == "resume"
            assert len(outcome.report.resumes) == len(upstream.requests_for("resume")) == 1
            whole = sent[0][: sent[0].rfind(b"\n\n") + 2]  # half of an event comes again
            assert outcome.is_typed or outcome.data == whole + sent[1]
        case Expected.CONTINUE:
            assert outcome.told[0].action == "continue"
            assert [seam.character for seam in outcome.report.seams] == [len(HALF)]
        case Expected.RESTART:
            assert outcome.told[0].action == "restart"
            assert [event for event in outcome.events or () if isinstance(event, Restarted)] == (
                list(outcome.report.restarts) if outcome.is_typed else []
            )
            assert len(outcome.report.restarts) == 1
            assert outcome.is_typed or (outcome.void and sent[0].startswith(outcome.void))
            assert outcome.is_typed or outcome.data == sent[-1]
        case Expected.HAND_ON:
            assert outcome.is_typed or outcome.data == sent[0]
            assert received == so_far
            raised = outcome.is_typed and place != "settled"
            assert isinstance(outcome.error, ProviderError) if raised else outcome.error is None
        case Expected.THROUGH:
            assert outcome.is_typed or outcome.data == sent[0]
            assert isinstance(outcome.error, MalformedStream) if outcome.is_typed else outcome.error is None
        case Expected.END:
            assert outcome.is_typed or outcome.data == sent[0]
            assert received == TEXT
            assert outcome.error is None
        case Expected.RAISE:
            assert type(outcome.error) is CallerTimeout
    if expected in AGAIN:
        assert outcome.error is None
        assert received == TEXT
    assert len(outcome.told) == len(sent) - 1


AGAIN = (Expected.RESUME, Expected.REPLAY, Expected.RETRY, Expected.CONTINUE, Expected.RESTART)


def run(settings: Any, face: Face, wire: Wire, cell: Cell, kind: str) -> None:
    upstream, ask = serve(settings, face, wire, cell, kind, fault_of(wire, cell, kind))
    if cell.failure == "cancelled":
        is_left(leave(face, ask, upstream, wire, cell), upstream)
        return
    outcome, expected = face.run(ask), cell.outcome_in(wire)
    if expected is Expected.WAIT:  # as long as a limit allows, and then it is a loss like any other
        assert outcome.report.attempts[0].failure == "idle_timeout"
        [expected] = [
            other.outcome_in(wire)
            for other in CELLS
            if (other.failure, other.place, other.choice) == ("lost", cell.place, cell.choice)
        ]
    elif cell.failure == "suspected" and cell.place != "settled":
        assert outcome.report.attempts[0].failure == "dead_path"
    check(expected, outcome, upstream, ask, cell.place)
    assert len(upstream.requests) == len(outcome.report.attempts) == 1 + (expected in AGAIN)


def leave(face: Face, ask: AskIn, upstream: Upstream, wire: Wire, cell: Cell) -> Left:
    before = before_place(wire.server.pieces(answer_of(wire, cell.place), 1), cell.place)
    come = lambda: upstream.requests and len(upstream.requests[0].sent) >= len(before) - 40  # noqa: E731
    return WAYS[LEAVING[face.name]](ask, lambda: upstream.wait_for(come, 10))


def is_left(left: Left, upstream: Upstream) -> None:
    assert left.told == []
    [attempt] = left.report.attempts
    assert attempt.failure == (None if attempt.phase is Phase.COMPLETE else "cancelled")
    assert upstream.wait_for(lambda: upstream.requests[0].gone or upstream.requests[0].done, 5)
    assert len(upstream.requests) == 1


def run_following(settings: Any, face: Face, wire: Wire, cell: Cell) -> None:
    """The first attempt is cut in its text; what happens to the second is in the table; a third one answers."""
    place = dataclasses.replace(cell, place="text")
    error = wire.will_not_pass if cell.failure == "will_not_pass" else {}
    given = FOLLOWING_KINDS[cell.failure]
    cut = Fault("fin", "after_characters", offset=len(HALF))
    second = [Fault(**given, error=error)] if given else []
    manner = "reasons" if cell.failure == "misfit" else "goes_on"
    upstream, ask = serve(settings, face, wire, place, cell.failure, cut, *second, manner=manner)
    if cell.failure == "no_output":
        ask = dataclasses.replace(ask, policy=dataclasses.replace(ask.policy, first_output_timeout=2 * WITHIN))
    outcome = face.run(ask)
    actions = [told.action for told in outcome.told]
    again = {
        Expected.RETRY: "retry",
        Expected.RESUME: "resume",
        Expected.REPLAY: "continue" if cell.choice == "continue" else "replay",
    }
    assert actions == [cell.choice, *([again[cell.outcome]] if cell.outcome in again else [])]
    if cell.outcome in again:
        assert (outcome.text if outcome.is_typed else ask.text_of(outcome.data or b"")) == TEXT
        assert outcome.error is None
        assert len(outcome.report.restarts or outcome.report.seams or outcome.report.resumes) == 1
        return
    raised = {Expected.RAISE: CallerTimeout, Expected.HAND_ON: ProviderError if outcome.is_typed else type(None)}
    assert isinstance(outcome.error, raised.get(cell.outcome, StreamCut))
    assert (outcome.text if outcome.is_typed else ask.text_of(outcome.data or b"")) == HALF
    assert (outcome.report.restarts, outcome.report.seams) == ((), ())
    assert len(upstream.requests) == 2
    if cell.outcome is Expected.CUT:
        assert outcome.error.phase is Phase.OUTPUT
        assert cell.choice == "resume" or "the answer was cut, and" in str(outcome.error)


# The cases


def cell_of(failure: str, place: str, choice: str) -> Cell:
    [cell] = [cell for cell in CELLS if (cell.failure, cell.place, cell.choice) == (failure, place, choice)]
    return cell


ALL = [
    (face, name, kind, failure, place, choice)
    for face in FACES
    for name in WIRES
    for failure, kinds in KINDS.items()
    for kind in kinds
    for place in PLACES
    for choice in CHOICES
    if not (failure == "caller" and face.is_typed) and cell_of(failure, place, choice).is_in(WIRES[name])
]
"""Face, dialect, what happens in the lab, failure, place and choice. A typed client has no timeouts of the caller's."""

IN_FULL = [
    (face, name, cell, list(KINDS[cell.failure])[number % len(KINDS[cell.failure])])
    for face in DRIVERS[:2]
    for name in WIRES
    if name != "gemini"
    for number, cell in enumerate(CELLS)
    if cell.is_in(WIRES[name])
]
"""Every cell, blocking and not, in each of the four dialects; ways to lose a connection in turn."""

FOLLOWED = [
    (face, name, cell)
    for face in FACES
    for name, wire in WIRES.items()
    for cell in FOLLOWING
    if cell.is_in(wire) and (wire.style or cell.choice != "continue")
    if not (cell.failure == "caller" and face.is_typed)
    if cell.failure != "cancelled"
]


@pytest.mark.parametrize(("face", "name", "kind", "failure", "place", "choice"), pairwise(ALL), ids=str)
def test_where_two_values_meet(
    settings, face: Face, name: str, kind: str, failure: str, place: str, choice: str
) -> None:
    run(settings, face, WIRES[name], cell_of(failure, place, choice), kind)


@pytest.mark.slow
@pytest.mark.parametrize(("face", "name", "cell", "kind"), IN_FULL, ids=str)
def test_a_cell(settings, face: Face, name: str, cell: Cell, kind: str) -> None:
    run(settings, face, WIRES[name], cell, kind)


@pytest.mark.parametrize(("face", "name", "cell"), pairwise(FOLLOWED), ids=str)
def test_the_attempt_that_follows_where_two_values_meet(settings, face: Face, name: str, cell: Cell) -> None:
    run_following(settings, face, WIRES[name], cell)


@pytest.mark.slow
@pytest.mark.parametrize(("face", "name", "cell"), [case for case in FOLLOWED if case[0] in DRIVERS[:2]], ids=str)
def test_the_attempt_that_follows(settings, face: Face, name: str, cell: Cell) -> None:
    run_following(settings, face, WIRES[name], cell)
