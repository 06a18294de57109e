"""The vocabulary of faults: what goes wrong (a kind), and where in the exchange (a point)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "rst",
    "fin",
    "clean_end",
    "stall",
    "pause",
    "status",
    "error_event",
    "malformed",
    "raw",
    "short_length",
    "truncated_chunk",
    "bad_chunk",
    "rst_stream",
    "goaway",
    "refused_stream",
    "no_ping_ack",
]
"""What goes wrong; `Fault` describes each."""

Point = Literal[
    "connect",
    "handshake",
    "before_headers",
    "after_headers",
    "after_comments",
    "after_role",
    "after_reasoning",
    "after_token",
    "after_characters",
    "after_finish",
    "after_usage",
    "after_done",
    "after_bytes",
    "after_events",
]
"""Where it goes wrong, in the order in which an exchange passes these points; `Fault` describes each."""

KINDS: tuple[Kind, ...] = get_args(Kind)
POINTS: tuple[Point, ...] = get_args(Point)

CONNECTION_POINTS: tuple[Point, ...] = ("connect", "handshake")
"""The points that a connection passes before there is a request."""

_HEAD: tuple[Point, ...] = ("before_headers",)
_BODY: tuple[Point, ...] = POINTS[POINTS.index("after_headers") :]

_ALLOWED: dict[Kind, tuple[Point, ...]] = {
    "rst": POINTS,
    "fin": POINTS,
    "stall": POINTS,
    "pause": POINTS,
    "raw": CONNECTION_POINTS + _BODY,
    "clean_end": _BODY,
    "error_event": _BODY,
    "malformed": _BODY,
    "short_length": _BODY,
    "truncated_chunk": _BODY,
    "bad_chunk": _BODY,
    "status": _HEAD,
    "refused_stream": _HEAD,
    "rst_stream": _HEAD + _BODY,
    "goaway": _HEAD + _BODY,
    "no_ping_ack": _HEAD + _BODY,
}

_COUNTED: tuple[Point, ...] = ("after_bytes", "after_characters", "after_events")

_HTTP1_ONLY: frozenset[Kind] = frozenset({"truncated_chunk", "bad_chunk"})
_HTTP2_ONLY: frozenset[Kind] = frozenset({"rst_stream", "goaway", "refused_stream", "no_ping_ack"})

_NO_ERROR, _INTERNAL_ERROR, _REFUSED_STREAM = 0x0, 0x2, 0x7  # RFC 9113, section 7
_DEFAULT_CODES: dict[Kind, int] = {
    "rst_stream": _INTERNAL_ERROR,
    "refused_stream": _REFUSED_STREAM,
    "goaway": _NO_ERROR,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, at one point of one exchange.

    Kinds that end the connection or the stream:

    * ``rst``: a real TCP reset. Over HTTP/2 a PING is sent before it, whose answer shows that the client has read
      everything: a reset discards what has not been read.
    * ``fin``: a plain close. Over TLS without close_notify, unless `close_notify` is set.
    * ``short_length``: the response announces a Content-Length and the connection is closed short of it.
    * ``truncated_chunk``: the connection is closed in the middle of a chunk (HTTP/1.1).
    * ``bad_chunk``: an invalid chunk-size line, then a close (HTTP/1.1).
    * ``rst_stream``: RST_STREAM with `code`, by default INTERNAL_ERROR (HTTP/2).
    * ``refused_stream``: RST_STREAM with REFUSED_STREAM, before any header (HTTP/2).
    * ``goaway``: GOAWAY with `code`, by default NO_ERROR, and `last_stream_id`, by default this stream. With
      ``then="go_on"`` the stream is served to its end and the connection is closed after it, with ``then="close"``
      the connection is closed at once (HTTP/2).

    Kinds that keep the connection:

    * ``clean_end``: a well-formed end of the body, too early.
    * ``stall``: silence for `seconds` (for ever, if None), then a plain close; a client that leaves ends it sooner.
    * ``pause``: silence for `seconds`, then the response goes on normally.
    * ``no_ping_ack``: a black hole: all that arrives is dropped, PINGs too, and nothing is sent any more, for
      `seconds` (for ever, if None) or until the client leaves (HTTP/2).

    Kinds that change the content:

    * ``status``: `status` with `headers` and `body` instead of the answer.
    * ``error_event``: an error in the stream, in the dialect's format, then a well-formed end of the body, or with
      ``then="close"`` a plain close without one.
    * ``malformed``: an event whose data is not JSON; the stream goes on after it.
    * ``raw``: `body` in the middle of the body (on the bare socket, at ``connect`` and ``handshake``), which goes on.

    Points: ``connect`` (accepted, nothing read; a reset waits a moment for the client to begin, so that the client
    knows that it is connected), ``handshake`` (TLS: ClientHello read, nothing answered), ``before_headers``
    (request read whole), ``after_headers``, ``after_comments`` (at least two), ``after_role`` (all that a dialect
    sends before output: a role, ``message_start`` and an empty block, ``response.created`` and an empty item),
    ``after_reasoning`` (one delta of it), ``after_token`` (the first token, or tool call), ``after_characters``
    (so many characters of the text as `offset` says; all of it if it is shorter), ``after_finish`` (the event that
    says how the answer ended), ``after_usage``, ``after_done`` (the terminator sent, body not ended),
    ``after_bytes`` (so many bytes of the body as `offset` says, in the middle of an event too; at its end if it is
    shorter), ``after_events`` (so many events of it). A point that a dialect does not have is the same as the one
    before it. If the answer is one JSON object, the points from ``after_comments`` to ``after_token`` are its middle
    and the later ones its end.

    Args:
        kind: what goes wrong.
        at: where.
        seconds: how long ``stall``, ``pause`` and ``no_ping_ack`` last; for all others a silence before the fault.
        close_notify: ``fin``: end TLS properly before the close.
        status: ``status``: the status code.
        headers: ``status``: further response headers.
        body: ``status``: the body; None means an error object in the dialect's format. ``raw``: the bytes.
        error: ``status`` and ``error_event``: members of the error object that differ from the default.
        code: the HTTP/2 error code; None means the default of the kind.
        last_stream_id: ``goaway``: the last stream that it declares processed.
        then: ``goaway``, ``error_event``: what follows.
        offset: ``after_bytes``, ``after_characters``, ``after_events``: how many of them are sent before.

    Raises:
        ValueError: the kind or the point is unknown, they cannot be combined, or a needed argument is missing.
    """

    kind: Kind
    at: Point
    seconds: float | None = None
    close_notify: bool = False
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    error: Mapping[str, Any] = field(default_factory=dict)
    code: int | None = None
    last_stream_id: int | None = None
    then: Literal["go_on", "close"] = "go_on"
    offset: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; the kinds are: {', '.join(KINDS)}")
        if self.at not in POINTS:
            raise ValueError(f"unknown point {self.at!r}; the points are: {', '.join(POINTS)}")
        if self.at not in _ALLOWED[self.kind]:
            raise ValueError(f"{self.kind} cannot happen at {self.at}; it can at: {', '.join(_ALLOWED[self.kind])}")
        if self.offset and self.at not in _COUNTED:
            raise ValueError("an offset belongs to after_bytes, after_characters or after_events")
        if self.seconds is not None and not self.seconds >= 0:  # not a number neither
            raise ValueError(f"seconds cannot be {self.seconds}")
        if self.kind == "pause" and self.seconds is None:
            raise ValueError("pause needs seconds")
        if self.kind == "raw" and self.body is None:
            raise ValueError("raw needs a body")

    @property
    def error_code(self) -> int:
        """The HTTP/2 error code that this fault sends."""
        return _DEFAULT_CODES.get(self.kind, _INTERNAL_ERROR) if self.code is None else self.code

    @property
    def words(self) -> str:
        """The words that :func:`parse_fault` reads; what words cannot say is left out."""
        value = {"status": self.status, "rst_stream": self.code, "goaway": self.code}.get(self.kind, self.seconds)
        given = "" if value is None else f"={value:g}"
        if self.kind == "raw":
            given = "=" + (self.body or b"").decode(errors="replace").replace("\n", "\\n")
        return f"{self.kind}{given}@{self.at}{f':{self.offset}' if self.at in _COUNTED else ''}"

    def needs(self, http_version: str) -> str | None:
        """Return the protocol that this fault needs, if `http_version` ("1.0", "1.1" or "2") is another, else None."""
        if http_version == "2" and self.kind in _HTTP1_ONLY:
            return "HTTP/1.1"
        if http_version != "2" and self.kind in _HTTP2_ONLY:
            return "HTTP/2"
        return None


def parse_fault(text: str) -> Fault:
    r"""Read a fault from ``kind@point`` or ``kind=value@point``, as a command line takes it.

    ``after_bytes``, ``after_characters`` and ``after_events`` have their number behind them: ``rst@after_bytes:120``.
    The value is the status for ``status``, the error code for ``rst_stream`` and ``goaway``, the text for ``raw``
    (``\n`` stands for a line feed), and seconds for every other kind.

    >>> parse_fault("stall=5@after_role")
    Fault(kind='stall', at='after_role', seconds=5.0, ...)

    Raises:
        ValueError: with the valid kinds and points in its message.
    """
    what, separator, at = text.rpartition("@")
    at, _, offset = at.partition(":")
    if not separator:
        raise ValueError(f"{text!r} is not a fault: write kind@point or kind=value@point; {_vocabulary()}")
    kind, _, value = what.partition("=")
    if kind not in KINDS or at not in POINTS:
        raise ValueError(f"{text!r} is not a fault: unknown {'point' if kind in KINDS else 'kind'}; {_vocabulary()}")
    try:
        place: dict[str, Any] = {"offset": int(offset)} if offset else {}
        return Fault(kind, at, **_parameter(kind, value), **place)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a fault: {error}") from error


def retry_after(fault: Fault | None) -> float:
    """Return the seconds that a fault asks a client to wait."""
    headers = fault.headers if fault and fault.kind == "status" else {}
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return float(value) if value.isdecimal() else 0.0


def _vocabulary() -> str:
    return f"the kinds are {', '.join(KINDS)}; the points are {', '.join(POINTS)}"


def _parameter(kind: str, value: str) -> dict[str, Any]:
    """Return the keyword argument for the value of a written fault."""
    if not value:
        return {}
    match kind:
        case "status":
            return {"status": int(value)}
        case "rst_stream" | "goaway":
            return {"code": int(value)}
        case "raw":
            return {"body": value.replace("\\n", "\n").encode()}
        case _:
            return {"seconds": float(value)}
