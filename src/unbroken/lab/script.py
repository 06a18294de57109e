"""The script of one response: the steps in which it is sent, and how a fault changes them.

A fault that only changes content or timing (an early end, an error event, a silence) is an edit of the script. The
connection only has to carry out `Break`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unbroken.lab.answer import Framing
from unbroken.lab.fault import Fault, Point
from unbroken.lab.speech import OPENAI, Speech


@dataclass(frozen=True, slots=True)
class SendHead:
    """Send the status and the headers. `length` is the Content-Length, if the framing is "length"."""

    status: int
    headers: tuple[tuple[str, str], ...]
    framing: Framing = "length"
    length: int | None = None


@dataclass(frozen=True, slots=True)
class SendBody:
    """Send bytes of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Silence:
    """Send nothing for this many seconds; `math.inf` means until the client leaves."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Break:
    """Apply the fault to the connection, or to the stream."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class EndBody:
    """End the body as its framing demands."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point at which a fault can be inserted."""

    point: Point


Step = SendHead | SendBody | Silence | Break | EndBody
Draft = Sequence[Step | Mark]
"""A response in which nothing goes wrong yet, with a mark at every point."""


def whole(
    status: int,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    think: Mapping[str, float] | None = None,
    framing: Framing = "length",
) -> list[Step | Mark]:
    """Return the draft of a response that is one piece of JSON.

    Args:
        status: the status code.
        body: the JSON.
        headers: further headers, and other values for the default ones.
        think: seconds of silence by place: "before_headers", "after_headers", "after_role" (the middle of the body).
        framing: how the body ends over HTTP/1.1.
    """
    silences = think or {}
    half = len(body) // 2
    fields = {"content-type": "application/json", **{name.lower(): value for name, value in (headers or {}).items()}}
    return [
        Mark("before_headers"),
        *silence(silences.get("before_headers")),
        SendHead(status, tuple(fields.items()), framing),
        Mark("after_headers"),
        *silence(silences.get("after_headers")),
        SendBody(body[:half]),
        Mark("after_comments"),
        Mark("after_role"),
        *silence(silences.get("after_role")),
        Mark("after_reasoning"),
        Mark("after_token"),
        Mark("after_characters"),
        SendBody(body[half:]),
        Mark("after_finish"),
        Mark("after_usage"),
        Mark("after_done"),
        EndBody(),
    ]


def silence(seconds: float | None) -> list[Silence]:
    """Return a silence as steps: none if it has no length."""
    return [Silence(seconds)] if seconds else []


def compose(draft: Draft, fault: Fault | None, speech: Speech = OPENAI) -> list[Step]:
    """Return the steps of a response with `fault` inserted, in the error format of `speech`."""
    if fault is None:
        return _framed(draft, _size(draft), None)
    if fault.kind == "status":
        return [*silence(fault.seconds), *compose(_refusal(fault, speech), None)]
    if fault.at == "after_bytes":
        draft = _marked(draft, fault.offset, fault.at)
    elif fault.at == "after_events":
        draft = _marked(draft, _end_of_event(draft, fault.offset), fault.at)
    index = draft.index(Mark(fault.at))
    steps: list[Step | Mark] = [*draft[:index], *insertion(fault, speech)]
    if goes_on(fault):
        steps += draft[index + 1 :]
    elif not isinstance(steps[-1], EndBody):
        return _framed(steps, _size(draft), fault)
    return _framed(steps, _size(steps), None)


def goes_on(fault: Fault) -> bool:
    """Return whether the response goes on behind a fault, as if nothing had happened."""
    return fault.kind in ("pause", "raw", "malformed") or (fault.kind == "goaway" and fault.then == "go_on")


def _end_of_event(draft: Draft, count: int) -> int:
    """Return after how many bytes of the body so many events have ended."""
    body = b"".join(step.data for step in draft if isinstance(step, SendBody))
    end = 0
    for block in body.split(b"\n\n"):
        if not count:
            break
        count -= not block.startswith(b":")
        end += len(block) + 2
    return end


def _marked(draft: Draft, offset: int, point: Point) -> Draft:
    """Return the draft with a mark after so many bytes of the body, or before its end if it is shorter."""
    marked: list[Step | Mark] = []
    left = offset
    for step in draft:
        if isinstance(step, SendBody) and 0 <= left <= len(step.data):
            marked += [SendBody(step.data[:left]), Mark(point), SendBody(step.data[left:])]
            left = -1
            continue
        if isinstance(step, EndBody) and left >= 0:
            marked.append(Mark(point))
        left -= len(step.data) if isinstance(step, SendBody) else 0
        marked.append(step)
    return marked


def insertion(fault: Fault, speech: Speech) -> list[Step]:
    """Return the steps that a fault inserts at its point; unless it :func:`goes_on`, they end the response."""
    close = Break(replace(fault, kind="fin"))
    forever = math.inf if fault.seconds is None else fault.seconds
    match fault.kind:
        case "stall":
            return [Silence(forever), close]
        case "no_ping_ack":
            return [Break(fault), Silence(forever), close]
        case "short_length":
            return [*silence(fault.seconds), close]
        case "pause":
            return [*silence(fault.seconds)]
        case "clean_end":
            return [*silence(fault.seconds), EndBody()]
        case "raw":
            return [*silence(fault.seconds), SendBody(fault.body or b"")]
        case "malformed":
            return [*silence(fault.seconds), SendBody(speech.malformed)]
        case "error_event":
            ending = close if fault.then == "close" else EndBody()
            return [*silence(fault.seconds), SendBody(speech.error_event(fault.error)), ending]
        case _:
            return [*silence(fault.seconds), Break(fault)]


def _refusal(fault: Fault, speech: Speech) -> Draft:
    """Return the draft of the response that a ``status`` fault sends instead of the answer."""
    body = speech.refusal(fault.status, fault.error) if fault.body is None else fault.body
    return whole(fault.status, body, headers=fault.headers)


def _size(steps: Draft) -> int:
    return sum(len(step.data) for step in steps if isinstance(step, SendBody))


def _framed(steps: Draft, length: int, fault: Fault | None) -> list[Step]:
    """Return the steps without marks, their head with the framing and the length that the fault needs."""
    steps_only = (step for step in steps if not isinstance(step, Mark))
    return [_framed_head(step, length, fault) if isinstance(step, SendHead) else step for step in steps_only]


def _framed_head(head: SendHead, length: int, fault: Fault | None) -> SendHead:
    kind = fault.kind if fault else None
    if kind == "short_length":
        # One byte too many: so the body is short even after all of the answer.
        return replace(head, framing="length", length=length + 1)
    if kind in ("truncated_chunk", "bad_chunk"):
        return replace(head, framing="chunked")
    return replace(head, length=length) if head.framing == "length" else head
