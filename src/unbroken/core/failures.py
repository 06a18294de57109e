"""Failures and what is done about each: the design's failure table as data.

A :class:`Failure` is one way to fail; failures that are treated alike share a :class:`Row`. :data:`TABLE` holds one
:class:`Verdict` for each row and :class:`Phase`. :mod:`unbroken.core.policy` says how often and how soon;
:mod:`unbroken.core.turn` carries the verdicts out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

GATEWAY_TIMEOUTS = frozenset({504, 524})
"""Statuses of a gateway that gave up waiting (RFC 9110, section 15.6.5; Cloudflare docs, "Error 524")."""


class Phase(enum.StrEnum):
    """The phases of an attempt, in order."""

    CONNECT = "connect"
    """The request has not been sent: connecting, proxy, TLS."""
    HEADERS = "headers"
    """The request was sent, no response headers yet."""
    PRELUDE = "prelude"
    """Headers came, but no output of the model yet; everything is held back."""
    OUTPUT = "output"
    """Output came. Once it was handed on nothing is replayed and nothing is altered; while it is held
    (:attr:`unbroken.core.policy.Policy.hold`) a failure is treated as in :attr:`PRELUDE`."""
    SETTLED = "settled"
    """The stream has said how the answer ended."""
    COMPLETE = "complete"
    """The body has ended, or its terminator was seen."""


class Verdict(enum.Enum):
    """What is done about a failure."""

    RETRY = "send again; it was provably not processed (counts in retries)"
    RETRY_BRIEFLY = "send again, but for a few seconds in all (counts in retries)"
    REPLAY = "send again; it may have been processed (counts in replays)"
    REPLAY_WITH_BACKOFF = "send again, after a wait (counts in replays)"
    CUT = "raise StreamCut"
    ERROR = "raise at once"
    HAND_ON = "give the caller what came, unaltered"
    END = "end the stream normally; the report notes it"
    NEVER = "cannot happen in this phase"


class Row(enum.Enum):
    """The rows of the table: failures that are treated alike."""

    LOST = "the connection was lost"
    UNPROCESSED = "the server says that it did not process the request"
    UNREACHABLE = "nobody answers there, perhaps only now"
    MISCONFIGURED = "it cannot work until somebody changes something"
    UNREADABLE = "a response in a form that cannot be read"
    BUSY = "the server is busy and said so promptly"
    GATEWAY_GAVE_UP = "the same after a long wait: the work may have been done"
    REFUSED = "any other status, an exhausted quota"
    TRANSIENT_ERROR = "an error inside the stream that may pass"
    PERMANENT_ERROR = "an error inside the stream that will not pass"
    MALFORMED = "an event that breaks the format"
    OTHER_CONTENT = "another content type than was asked for"
    NO_OUTPUT = "no output in time"
    CALLER_TIMEOUT = "a timeout of the caller's own expired"
    CANCELLED = "the caller cancelled"


class Failure(enum.Enum):
    """One way to fail: a stable code, a phrase for a person, and the row of the table it belongs to."""

    RESET = ("reset", "connection reset", Row.LOST)
    CLOSED = ("closed", "connection closed by the other side", Row.LOST)
    TRUNCATED = ("truncated", "body cut short", Row.LOST)
    UNFINISHED = ("unfinished", "the stream ended without saying how the answer ended", Row.LOST)
    BROKEN_FRAMING = ("broken_framing", "broken HTTP framing", Row.LOST)
    STREAM_RESET = ("stream_reset", "HTTP/2 stream reset by the server", Row.LOST)
    TOO_MANY_PINGS = ("too_many_pings", "the server had too many PINGs", Row.LOST)
    DEAD_PATH = ("dead_path", "path dead, no answer from it", Row.LOST)
    IDLE_TIMEOUT = ("idle_timeout", "idle timeout", Row.LOST)
    STALLED = ("stalled", "nothing came of the response", Row.LOST)
    STALLED_OUTPUT = ("stalled_output", "no output came", Row.LOST)
    MISFIT = ("misfit", "the continuation does not fit the answer", Row.LOST)
    TLS_FAILED = ("tls_failed", "TLS handshake cut", Row.LOST)
    NOT_PROCESSED = ("not_processed", "refused by the server before processing", Row.UNPROCESSED)
    CONNECTION_REFUSED = ("connection_refused", "connection refused", Row.UNREACHABLE)
    CONNECT_TIMEOUT = ("connect_timeout", "no connection in time", Row.UNREACHABLE)
    NOT_CONNECTED = ("not_connected", "cannot connect", Row.UNREACHABLE)
    NO_ROUTE = ("no_route", "network unreachable", Row.UNREACHABLE)
    PROXY_UNREACHABLE = ("proxy_unreachable", "proxy unreachable", Row.UNREACHABLE)
    PROXY_CANNOT_REACH = ("proxy_cannot_reach", "the proxy cannot reach the server", Row.UNREACHABLE)
    PROXY_CLOSED = ("proxy_closed", "closed by the proxy", Row.UNREACHABLE)
    DNS_TEMPORARY = ("dns_temporary", "temporary DNS failure", Row.UNREACHABLE)
    NO_SUCH_HOST = ("no_such_host", "no such host", Row.MISCONFIGURED)
    CERTIFICATE = ("certificate", "certificate refused", Row.MISCONFIGURED)
    TLS_MISMATCH = ("tls_mismatch", "TLS cannot be spoken there", Row.MISCONFIGURED)
    PROXY_AUTH = ("proxy_auth", "proxy authentication required", Row.MISCONFIGURED)
    PROXY_REFUSED = ("proxy_refused", "refused by the proxy", Row.MISCONFIGURED)
    PROXY_PROTOCOL = ("proxy_protocol", "the proxy speaks another protocol", Row.MISCONFIGURED)
    CAPTIVE_PORTAL = ("captive_portal", "a captive portal answers", Row.MISCONFIGURED)
    UNSUPPORTED_ENCODING = ("unsupported_encoding", "the response cannot be read", Row.UNREADABLE)
    BAD_REQUEST = ("bad_request", "request cannot be sent", Row.MISCONFIGURED)
    BUSY = ("busy", "server busy", Row.BUSY)
    GATEWAY_GAVE_UP = ("gateway_gave_up", "gateway gave up waiting", Row.GATEWAY_GAVE_UP)
    REFUSED = ("refused", "refused by the server", Row.REFUSED)
    TRANSIENT_ERROR = ("transient_error", "error in the stream, may pass", Row.TRANSIENT_ERROR)
    PERMANENT_ERROR = ("permanent_error", "error in the stream", Row.PERMANENT_ERROR)
    MALFORMED = ("malformed", "malformed event", Row.MALFORMED)
    EVENT_TOO_LARGE = ("event_too_large", "event over the size cap", Row.MALFORMED)
    OTHER_CONTENT = ("other_content", "another content type than was asked for", Row.OTHER_CONTENT)
    UNPROVEN_END = ("unproven_end", "the server did not end the stream after the answer", Row.NO_OUTPUT)
    DEADLINE = ("deadline", "no output in time", Row.NO_OUTPUT)
    CALLER_TIMEOUT = ("caller_timeout", "the caller's own timeout expired", Row.CALLER_TIMEOUT)
    CANCELLED = ("cancelled", "cancelled by the caller", Row.CANCELLED)

    def __init__(self, code: str, phrase: str, row: Row) -> None:
        self.code = code
        self.phrase = phrase
        self.row = row


OWN_LIMITS = frozenset(
    {Failure.IDLE_TIMEOUT, Failure.STALLED, Failure.STALLED_OUTPUT, Failure.DEAD_PATH, Failure.CONNECT_TIMEOUT}
)
"""Failures by a limit of our own: they say nothing of timers on the path, and their detail names the limit."""
PROXY_FAILURES = frozenset(
    {
        Failure.PROXY_UNREACHABLE,
        Failure.PROXY_CANNOT_REACH,
        Failure.PROXY_CLOSED,
        Failure.PROXY_AUTH,
        Failure.PROXY_REFUSED,
        Failure.PROXY_PROTOCOL,
        Failure.CAPTIVE_PORTAL,
    }
)
"""Failures of a proxy, before any server was reached through it."""

_BY_CODE = {failure.code: failure for failure in Failure}


def described(code: str | None, detail: str) -> str:
    """Return a failure for a person. The detail of a proxy's failure is a sentence that names the proxy.

    Args:
        code: the failure's code, ``None`` for none.
        detail: its detail, or ``""``.
    """
    if code is None:
        return ""
    failure = _BY_CODE[code]
    if detail and failure in PROXY_FAILURES:
        return detail
    return f"{failure.phrase} ({detail})" if detail else failure.phrase


def _table() -> Mapping[tuple[Row, Phase], Verdict]:
    v = Verdict
    never = v.NEVER
    #                        connect          headers    prelude                output     settled
    rows: dict[Row, tuple[Verdict, ...]] = {
        Row.LOST:            (v.RETRY,         v.REPLAY,  v.REPLAY,              v.CUT,     v.END),
        Row.UNPROCESSED:     (v.RETRY,         v.RETRY,   v.RETRY,               v.CUT,     v.END),
        Row.UNREACHABLE:     (v.RETRY_BRIEFLY, never,     never,                 never,     never),
        Row.MISCONFIGURED:   (v.ERROR,         v.ERROR,   never,                 never,     never),
        Row.UNREADABLE:      (never,           never,     v.ERROR,               never,     never),
        Row.BUSY:            (never,           v.RETRY,   never,                 never,     never),
        Row.GATEWAY_GAVE_UP: (never,           v.REPLAY,  never,                 never,     never),
        Row.REFUSED:         (never,           v.HAND_ON, never,                 never,     never),
        Row.TRANSIENT_ERROR: (never,           never,     v.REPLAY_WITH_BACKOFF, v.HAND_ON, v.HAND_ON),
        Row.PERMANENT_ERROR: (never,           never,     v.HAND_ON,             v.HAND_ON, v.HAND_ON),
        Row.MALFORMED:       (never,           never,     v.ERROR,               v.HAND_ON, v.HAND_ON),
        Row.OTHER_CONTENT:   (never,           v.HAND_ON, never,                 never,     never),
        Row.NO_OUTPUT:       (v.ERROR,         v.ERROR,   v.ERROR,               never,     v.END),
        Row.CALLER_TIMEOUT:  (v.ERROR,         v.ERROR,   v.ERROR,               v.ERROR,   v.END),
        Row.CANCELLED:       (v.ERROR,         v.ERROR,   v.ERROR,               v.ERROR,   v.ERROR),
    }  # fmt: skip
    phases = (Phase.CONNECT, Phase.HEADERS, Phase.PRELUDE, Phase.OUTPUT, Phase.SETTLED)
    return MappingProxyType(
        {(row, phase): cell for row, cells in rows.items() for phase, cell in zip(phases, cells, strict=True)}
    )


TABLE = _table()
"""One verdict for each row and phase, as in the design's section 2, "What each failure does"."""


def verdict(failure: Failure, phase: Phase) -> Verdict:
    """Return what is done about ``failure`` in ``phase``. After the end (``COMPLETE``) nothing can be lost any more."""
    if phase is Phase.COMPLETE:
        return Verdict.END
    return TABLE[failure.row, phase]
