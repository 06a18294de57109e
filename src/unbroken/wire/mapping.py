"""Conversion of other libraries' exceptions to failures, in one place."""

from __future__ import annotations

import errno
import re
import socket
import ssl

import h2.events
import h2.exceptions
import httpcore2

from unbroken.core.failures import Failure
from unbroken.errors import WireError
from unbroken.wire.frames import error_name

_ERRNOS = {
    errno.ECONNREFUSED: Failure.CONNECTION_REFUSED,
    errno.ENETUNREACH: Failure.NO_ROUTE,
    errno.EHOSTUNREACH: Failure.NO_ROUTE,
    errno.EADDRNOTAVAIL: Failure.NO_ROUTE,
    errno.ENETDOWN: Failure.NO_ROUTE,
    errno.ETIMEDOUT: Failure.DEAD_PATH,  # TCP keepalive or user timeout
    errno.EPIPE: Failure.RESET,
    errno.ECONNRESET: Failure.RESET,
    errno.ECONNABORTED: Failure.RESET,
}

_NO_SUCH_HOST = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
}

_QUOTED = re.compile(r""":?\s*(?:bytearray\()?\bb['"]""")
"""Where h11 and h2 begin to quote bytes: a header's value, a line that could not be read."""

# The replies of RFC 1928, section 6, in httpcore2's words, and HTTP statuses of CONNECT.
_PROXY_WORDS = (
    (re.compile(r"^407|username/password|^Requested .* but got"), Failure.PROXY_AUTH),
    (re.compile(r"not allowed by ruleset|not supported|^4\d\d"), Failure.PROXY_REFUSED),
    (re.compile(r"could not connect|^5\d\d"), Failure.PROXY_UNREACHABLE),
)


def wire_error(exc: Exception, *, sent: bool, proxied: bool) -> WireError:
    """Convert an exception of a lower layer to a wire error.

    Args:
        exc: anything that httpcore2, h2, anyio, ssl or a socket has raised.
        sent: whether the request may have left; before that the proxy causes an unknown exception.
        proxied: whether there is a proxy on the way.
    """
    if isinstance(exc, WireError):
        return exc
    for cause in _causes(exc):
        if error := _from_cause(cause, sent=sent, proxied=proxied):
            if error.failure is Failure.BROKEN_FRAMING and proxied and not sent:
                return WireError(Failure.PROXY_PROTOCOL, error.detail)
            return error
    if isinstance(exc, httpcore2.ProxyError):
        return _proxy_error(str(exc))
    if not sent and proxied:
        return WireError(Failure.PROXY_PROTOCOL, type(exc).__name__)
    if isinstance(exc, httpcore2.LocalProtocolError):
        return WireError(Failure.BAD_REQUEST, _line(exc))
    return WireError(Failure.CLOSED if sent else Failure.RESET, type(exc).__name__)


def _causes(exc: BaseException | None) -> list[BaseException]:
    """Return the exception and its explicit causes, outermost first; of a group, only the first member."""
    chain: list[BaseException] = []
    while exc is not None and exc not in chain:
        chain.append(exc)
        members = exc.exceptions if isinstance(exc, BaseExceptionGroup) else exc.args
        inner = members[0] if members and isinstance(members[0], BaseException) else None
        exc = exc.__cause__ or inner  # never __context__: that may be anything the caller was handling
    return chain


def _from_cause(exc: BaseException, *, sent: bool, proxied: bool) -> WireError | None:
    match exc:
        case WireError():
            return exc
        case httpcore2.RemoteProtocolError():
            return _protocol_error(exc)
        case h2.exceptions.StreamClosedError():
            return WireError(Failure.STREAM_RESET)
        case h2.exceptions.ProtocolError():
            return WireError(_h2_failure(exc), _line(exc))
        case ssl.SSLCertVerificationError():
            return WireError(Failure.CERTIFICATE, exc.verify_message)
        case ssl.SSLError():
            return _tls_error(exc, sent=sent)
        case socket.gaierror():
            return WireError(Failure.NO_SUCH_HOST if exc.errno in _NO_SUCH_HOST else Failure.DNS_TEMPORARY)
        case OSError() if exc.errno is not None:
            return _os_error(exc, sent=sent, proxied=proxied)
    return None


def _protocol_error(exc: httpcore2.RemoteProtocolError) -> WireError | None:
    reason = exc.args[0] if exc.args else ""
    if isinstance(reason, h2.events.StreamReset):
        name = error_name(reason.error_code or 0)
        refused = name == "REFUSED_STREAM"
        return WireError(Failure.NOT_PROCESSED if refused else Failure.STREAM_RESET, name)
    words = str(reason)
    if "disconnected" in words:
        return WireError(Failure.CLOSED)
    if "without sending complete" in words:
        return WireError(Failure.TRUNCATED)
    if isinstance(reason, h2.exceptions.ProtocolError):
        return None  # h2's own exception says more
    return WireError(Failure.BROKEN_FRAMING, _line(words))


def _h2_failure(exc: h2.exceptions.ProtocolError) -> Failure:
    return Failure.TRUNCATED if isinstance(exc, h2.exceptions.InvalidBodyLengthError) else Failure.BROKEN_FRAMING


def _tls_error(exc: ssl.SSLError, *, sent: bool) -> WireError:
    if isinstance(exc, ssl.SSLEOFError) or "UNEXPECTED_EOF" in str(exc):
        detail = "TLS ended without close_notify"
        return WireError(Failure.CLOSED, detail) if sent else WireError(Failure.TLS_FAILED, "closed by the other side")
    reason = (getattr(exc, "reason", None) or type(exc).__name__).replace("_", " ").lower()
    return WireError(Failure.BROKEN_FRAMING if sent else Failure.TLS_MISMATCH, reason)


def _os_error(exc: OSError, *, sent: bool, proxied: bool) -> WireError:
    known = _ERRNOS.get(exc.errno or 0)
    failure = known or (Failure.RESET if sent else Failure.NOT_CONNECTED)
    if failure is Failure.DEAD_PATH and not sent:
        failure = Failure.CONNECT_TIMEOUT
    elif failure is Failure.NO_ROUTE and sent:
        failure = Failure.DEAD_PATH  # the network went down under an open connection
    if proxied and not sent and failure in (Failure.CONNECTION_REFUSED, Failure.NO_ROUTE):
        return WireError(Failure.PROXY_UNREACHABLE, failure.phrase)
    detail = "" if known in (Failure.RESET, Failure.CONNECTION_REFUSED) else (exc.strerror or "")
    return WireError(failure, detail)


def _proxy_error(words: str) -> WireError:
    for pattern, failure in _PROXY_WORDS:
        if pattern.search(words):
            return WireError(failure, _line(words))
    return WireError(Failure.PROXY_PROTOCOL, _line(words))


def _line(said: BaseException | str) -> str:
    """Return the first line of a message, without quoted bytes: they may be a key, or the model's words."""
    return _QUOTED.split(str(said), maxsplit=1)[0].partition("\n")[0][:200]
