"""Recorded streams, changed at random: what servers do to a stream that nobody has recorded yet."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from core.corpus import Recording
from differential.recorded import ends_of_events, every_recording, whole
from differential.streams import EVENT_STREAM, Case, Ending, Stream

Events = list[bytes]
"""The events of a stream, each with its blank line; comments are events here too."""

_VALUES = (None, True, False, 0, 7, -1, 1.5, "", "x", "stop", [], {}, [1], ["a"], {"a": 1}, [None], float("nan"))
_MEDIA_TYPES = ("text/event-stream; charset=utf-8", "text/plain", "application/json", "application/octet-stream", "")
_NO_CODINGS = ("none", "utf-8", "binary", "identity", "chunked")
_DATA = re.compile(rb"(?m)^data: ?(\{.*\})\r?$")
_INSERTED = (
    *(b": comment\n\n", b":\n\n", b"\n", b"data:\n\n", b"event: ping\ndata: {}\n\n", b"retry: 10\n\n", b"id: 7\n\n"),
    *(b"event: ping\n\n", b'data: {"type": "ping"}\n\n'),
)


@st.composite
def mutated(draw: st.DrawFn) -> Case:
    """A recording whose events, bytes, headers, pieces and end may all be other ones."""
    dialect, recording = draw(st.sampled_from(every_recording()))
    events = split(recording)
    changes: list[Change] = draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3))
    for change in changes:
        events = change(draw, events)
    body = draw(st.sampled_from(LINE_ENDS))(b"".join(events))
    headers, body = draw(st.sampled_from(HEADERS))(draw, body)
    ending: Ending = draw(st.sampled_from(("clean", "clean", "broken")))
    stream = Stream(pieces_of(draw, body), headers, ending)
    again = whole(dialect, recording)
    name = f"{again.name}: {[change.__name__ for change in changes]}"
    return Case(name, dialect, again.request, stream, again.stream)


def split(recording: Recording) -> Events:
    ends = [0, *ends_of_events(recording.body)]
    return [recording.body[start:end] for start, end in itertools.pairwise(ends)]


def pieces_of(draw: st.DrawFn, body: bytes) -> tuple[bytes, ...]:
    """The body, split anywhere."""
    at = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return tuple(body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True))


# Events


Change = Callable[[st.DrawFn, Events], Events]


def leave(draw: st.DrawFn, events: Events) -> Events:
    return events


def drop(draw: st.DrawFn, events: Events) -> Events:
    at = _any_of(draw, events)
    return [*events[:at], *events[at + 1 :]]


def double(draw: st.DrawFn, events: Events) -> Events:
    at = _any_of(draw, events)
    return [*events[: at + 1], *events[at:]]


def move(draw: st.DrawFn, events: Events) -> Events:
    """Reorder: take one event out and put it in elsewhere."""
    left = list(events)
    moved = left.pop(_any_of(draw, events)) if left else b""
    left.insert(draw(st.integers(0, len(left))), moved)
    return left


def cut(draw: st.DrawFn, events: Events) -> Events:
    """End anywhere, also inside an event."""
    body = b"".join(events)
    return [body[: draw(st.integers(0, len(body)))]]


def insert(draw: st.DrawFn, events: Events) -> Events:
    """Add what carries nothing."""
    at = draw(st.integers(0, len(events)))
    return [*events[:at], draw(st.sampled_from(_INSERTED)), *events[at:]]


def retype(draw: st.DrawFn, events: Events) -> Events:
    """Give a field of an event a value of another type."""
    return _with_field(draw, events, lambda holder, name: holder.__setitem__(name, draw(st.sampled_from(_VALUES))))


def omit(draw: st.DrawFn, events: Events) -> Events:
    """Take a field out of an event."""
    return _with_field(draw, events, lambda holder, name: holder.__delitem__(name))


def add(draw: st.DrawFn, events: Events) -> Events:
    """Give an event a field that nobody knows."""
    return _with_field(draw, events, lambda holder, name: isinstance(holder, dict) and holder.update(x_new={"a": "b"}))


def without_blank_line(draw: st.DrawFn, events: Events) -> Events:
    """Take the blank line of an event away."""
    at = _any_of(draw, events)
    return [*events[:at], *(event.rstrip(b"\r\n") + b"\n" for event in events[at : at + 1]), *events[at + 1 :]]


def without_names(draw: st.DrawFn, events: Events) -> Events:
    """Take the ``event`` fields away."""
    return [re.sub(rb"(?m)^event:.*(?:\r\n|\r|\n)", b"", event) for event in events]


CHANGES: tuple[Change, ...] = (
    *(leave, drop, double, move, cut, insert, retype, retype, retype, omit, add, without_blank_line, without_names),
)


def _any_of(draw: st.DrawFn, events: Events) -> int:
    return draw(st.integers(0, max(0, len(events) - 1)))


def _with_field(draw: st.DrawFn, events: Events, change: Callable[[Any, Any], Any]) -> Events:
    """Change a field in the JSON of an event, at any depth; an event without JSON stays."""
    at = _any_of(draw, events)
    found = _DATA.search(events[at]) if events else None
    try:
        value = json.loads(found[1]) if found else {}
    except ValueError:
        value = {}
    places = list(_places(value))
    if not found or not places:
        return events
    change(*draw(st.sampled_from(places)))
    event = events[at][: found.start(1)] + json.dumps(value).encode() + events[at][found.end(1) :]
    return [*events[:at], event, *events[at + 1 :]]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document at which a value stands: its holder, and its name or number in it."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for name, item in inner for place in [(value, name), *_places(item)]]


# Bytes


def _with_crlf(body: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", body)


def _with_cr(body: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r", body)


def _with_bom(body: bytes) -> bytes:
    return b"\xef\xbb\xbf" + body


def _with_spare_lines(body: bytes) -> bytes:
    return re.sub(rb"\n\n", b"\n\n\n\n", body)


LINE_ENDS: tuple[Callable[[bytes], bytes], ...] = (
    *(bytes, bytes, bytes, _with_crlf, _with_cr, _with_bom, _with_spare_lines),
)


# Headers


def _as_events(draw: st.DrawFn, body: bytes) -> tuple[dict[str, str], bytes]:
    return dict(EVENT_STREAM), body


def _of_another_type(draw: st.DrawFn, body: bytes) -> tuple[dict[str, str], bytes]:
    media_type = draw(st.sampled_from(_MEDIA_TYPES))
    return {"content-type": media_type} if media_type else {}, body


def _of_no_coding(draw: st.DrawFn, body: bytes) -> tuple[dict[str, str], bytes]:
    return {**EVENT_STREAM, "content-encoding": draw(st.sampled_from(_NO_CODINGS))}, body


def _compressed(draw: st.DrawFn, body: bytes) -> tuple[dict[str, str], bytes]:
    coding = draw(st.sampled_from(("gzip", "deflate")))
    return {**EVENT_STREAM, "content-encoding": coding}, gzip.compress(body) if coding == "gzip" else zlib.compress(
        body
    )


HEADERS = (_as_events, _as_events, _of_another_type, _of_no_coding, _compressed)
