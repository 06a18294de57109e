"""The recorded streams as cases: whole, and cut at each event."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping

from core.corpus import Recording, recordings
from differential.streams import EVENT_STREAM, Case, Ending, Stream
from unbroken.core.dialects import DIALECTS

_EVENT = re.compile(rb"(?:[^\r\n]+(?:\r\n|\r|\n)|\A)(?:\r\n|\r|\n)", re.S)
"""The end of an event: the end of its last line, and a blank line."""


def whole(dialect: str, recording: Recording) -> Case:
    """A recording as it is, in the pieces in which it arrived."""
    stream = Stream(tuple(recording.pieces()), headers_of(recording))
    return Case(f"{dialect} {recording}", dialect, json.loads(recording.facts["request"]), stream, stream)


def cuts(dialect: str, recording: Recording) -> Iterator[Case]:
    """A recording that ends after each of its events but the last, cleanly and not."""
    case = whole(dialect, recording)
    ends: tuple[Ending, ...] = ("clean", "broken")
    for number, at in enumerate(ends_of_events(recording.body)[:-1], 1):
        for ending in ends:
            stream = Stream((recording.body[:at],), case.stream.headers, ending)
            name = f"{case.name}, {ending} end after event {number}"
            yield Case(name, dialect, case.request, stream, case.stream)


def ends_of_events(body: bytes) -> list[int]:
    """Where the events of a stream end, the rest behind the last one included."""
    ends = [found.end() for found in _EVENT.finditer(body)]
    return ends if ends and ends[-1] == len(body) else [*ends, len(body)]


def headers_of(recording: Recording) -> Mapping[str, str]:
    """The headers with which it came; one that is empty was not sent."""
    told = {**EVENT_STREAM, **recording.facts.get("headers", {})}
    return {name: value for name, value in told.items() if value}


@functools.cache
def every_recording() -> list[tuple[str, Recording]]:
    return [
        (dialect.name, recording) for dialect in DIALECTS for recording in recordings(dialect.name.replace("-", "_"))
    ]
