"""Where we and the plain SDK may differ although the judge says otherwise: all of it is here, each with its reason."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import re
import zlib
from collections.abc import Callable

from differential.streams import Case, Stream
from unbroken.core.dialect import Dialect, Generation, Signal
from unbroken.core.dialects import find_dialect
from unbroken.core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.interactions import INTERACTIONS
from unbroken.core.sse import Blocks, Event, begins_as_events, parse
from unbroken.errors import DecodeError

_BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference that is right.

    Attributes:
        reason: why.
        complaints: which of the judge's complaints it excuses.
        holds: whether it is the reason for what was read of a stream.
    """

    reason: str
    complaints: tuple[str, ...]
    holds: Callable[[Dialect, Stream], bool]


def _skips_events_without_a_name(dialect: Dialect, stream: Stream) -> bool:
    return dialect is ANTHROPIC_MESSAGES and any(event.type == "message" for event in _events(stream))


def _loses_the_first_event(dialect: Dialect, stream: Stream) -> bool:
    return dialect is not GEMINI and _body(stream).startswith(_BOM)


def _reads_a_mark_by_its_pieces(dialect: Dialect, stream: Stream) -> bool:
    return dialect is INTERACTIONS and _body(stream).startswith(_BOM)


def _drops_the_last_event(dialect: Dialect, stream: Stream) -> bool:
    lines = _body(stream).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return dialect is not GEMINI and not lines.endswith(b"\n\n")


def _begins_with_another_field(dialect: Dialect, stream: Stream) -> bool:
    is_named = stream.headers.get("content-type", "").startswith("text/event-stream")
    return not is_named and begins_as_events(_body(stream)) is False


def _goes_on_behind_its_terminator(dialect: Dialect, stream: Stream) -> bool:
    stops = [b'"message_stop"' in event.data for event in _events(stream)]
    return dialect is ANTHROPIC_MESSAGES and True in stops[:-1]


def _runs_events_together(dialect: Dialect, stream: Stream) -> bool:
    lines = _body(stream).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return dialect is INTERACTIONS and re.search(rb"(?m)^data:.*\n(?:.+\n)*?data:", lines) is not None


def _has_an_error(dialect: Dialect, stream: Stream) -> bool:
    reader = dialect.reader(Generation(streaming=True))
    with contextlib.suppress(DecodeError):
        for event in _events(stream):
            if dialect.error_in(event.data) if event.is_bare else reader.read(event) & Signal.ERROR:
                return True
    return False


DIFFERENCES = (
    Difference(
        "Anthropic's SDK skips events without an `event` field, and reads nothing of a stream that has none. The stream"
        " is whole all the same, by its JSON, and is handed on as it came.",
        ("silent about a cut",),
        _skips_events_without_a_name,
    ),
    Difference(
        "The SDKs take a byte order mark for a part of the first field's name (WHATWG HTML says to drop it), and lose"
        " the first event. The stream is whole all the same, and is handed on as it came.",
        ("silent about a cut", "plain reads it whole"),
        _loses_the_first_event,
    ),
    Difference(
        "Google's SDK for interactions loses the first event behind a byte order mark that comes in pieces, and reads"
        " it behind one that comes at once; the pieces are not always handed on as they came.",
        ("other objects than came",),
        _reads_a_mark_by_its_pieces,
    ),
    Difference(
        "The last event, whose blank line is missing, says how the answer ended, or why there is none. The SDKs drop"
        " it; nothing of the answer itself is lost, and what came is handed on as it came.",
        ("silent about a cut",),
        _drops_the_last_event,
    ),
    Difference(
        "message_stop says that nothing follows. Where it comes before the stop_reason, nothing is proven, and handing"
        " it on would make a cut answer look whole; Anthropic's SDK reads on behind it.",
        ("plain reads it whole",),
        _goes_on_behind_its_terminator,
    ),
    Difference(
        "A body of another media type counts as an event stream if it begins with a field or a comment of the format."
        " Any text may begin with a word and a colon.",
        ("silent about a cut",),
        _begins_with_another_field,
    ),
    Difference(
        "Where the blank line between two events is missing, Google's SDK hands both to the program as one text. The"
        " stream is whole all the same, by its lines, and is handed on as it came.",
        ("silent about a cut",),
        _runs_events_together,
    ),
    Difference(
        "An error inside the stream is handed on as it came. The SDK does not know its shape.",
        ("silent about a cut",),
        _has_an_error,
    ),
)


def reason_for(case: Case, complaint: str) -> str:
    """Return why a complaint is none, ``""`` if it is one."""
    stream = case.again if "second answer" in complaint else case.stream
    dialect = find_dialect(case.dialect)
    reasons = (
        item.reason
        for item in DIFFERENCES
        if any(words in complaint for words in item.complaints) and item.holds(dialect, stream)
    )
    return next(reasons, "")


def _events(stream: Stream) -> list[Event]:
    return list(parse(Blocks().feed(_body(stream) + b"\n\n")))


def _body(stream: Stream) -> bytes:
    """The body of a stream, decoded."""
    decode = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(
        stream.headers.get("content-encoding", ""), bytes
    )
    return decode(stream.body)
