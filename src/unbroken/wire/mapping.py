"""Conversion of the exceptions of sockets, TLS and libraries to failures, in one place."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from unbroken.core.failures import Failure
from unbroken.errors import WireError

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

_LIBRARIES: Mapping[str, Callable[[Any, bool], WireError]] = {
    "h2.exceptions.InvalidBodyLengthError": lambda exc, sent: WireError(Failure.TRUNCATED),  # noqa: ARG005
    "h2.exceptions.ProtocolError": lambda exc, sent: WireError(Failure.BROKEN_FRAMING, _line(exc)),  # noqa: ARG005
    "ssl.SSLCertVerificationError": lambda exc, sent: WireError(Failure.CERTIFICATE, exc.verify_message),  # noqa: ARG005
    "ssl.SSLError": lambda exc, sent: _tls_error(exc, sent=sent),
}
"""What a library's exception means, by its name: a program that uses neither TLS nor HTTP/2 does not import them."""

_NO_SUCH_HOST = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
}

_QUOTED = re.compile(r""":?\s*(?:bytearray\()?\bb['"]""")
"""Where h2 begins to quote bytes, such as a header's value."""


def wire_error(exc: Exception, *, sent: bool, proxied: bool) -> WireError:
    """Convert an exception of a lower layer to a wire error.

    Args:
        exc: anything that a socket, ssl, h2 or a streamed body has raised.
        sent: whether the request may have left; before that the proxy causes an unknown exception.
        proxied: whether there is a proxy on the way.
    """
    match exc:
        case WireError():
            return exc
        case ExceptionGroup():
            return wire_error(exc.exceptions[0], sent=sent, proxied=proxied)
    for kind in type(exc).__mro__:
        if told := _LIBRARIES.get(f"{kind.__module__}.{kind.__qualname__}"):
            return told(exc, sent)
    match exc:
        case socket.gaierror():
            return WireError(Failure.NO_SUCH_HOST if exc.errno in _NO_SUCH_HOST else Failure.DNS_TEMPORARY)
        case OSError() if exc.errno is not None:
            return _os_error(exc, sent=sent, proxied=proxied)
    if proxied and not sent:
        return WireError(Failure.PROXY_PROTOCOL, type(exc).__name__)
    return WireError(Failure.CLOSED if sent else Failure.RESET, type(exc).__name__)


def _tls_error(exc: Any, *, sent: bool) -> WireError:
    if type(exc).__name__ == "SSLEOFError" or "UNEXPECTED_EOF" in str(exc):
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


def _line(exc: BaseException) -> str:
    """Return the first line of a message, without quoted bytes: they may be a key, or the model's words."""
    return _QUOTED.split(str(exc), maxsplit=1)[0].partition("\n")[0][:200]
