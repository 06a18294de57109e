from __future__ import annotations

import errno
import os
import socket
import ssl

import h2.events
import h2.exceptions
import httpcore2
import pytest

from unbroken.core.failures import Failure, Phase, Verdict, verdict
from unbroken.errors import WireError
from unbroken.wire.mapping import wire_error

F = Failure


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def caused(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


def stream_reset(code: int) -> httpcore2.RemoteProtocolError:
    return httpcore2.RemoteProtocolError(h2.events.StreamReset(stream_id=1, error_code=code))


def gaierror(name: str) -> socket.gaierror:
    return socket.gaierror(getattr(socket, name), "")


@pytest.mark.parametrize(
    ("exc", "before", "after"),
    [
        # the exception, and what it means before and after the request was sent
        (os_error(errno.ECONNREFUSED), F.CONNECTION_REFUSED, F.CONNECTION_REFUSED),
        (os_error(errno.ECONNRESET), F.RESET, F.RESET),
        (os_error(errno.EPIPE), F.RESET, F.RESET),
        (os_error(errno.ECONNABORTED), F.RESET, F.RESET),
        (os_error(errno.ENETUNREACH), F.NO_ROUTE, F.DEAD_PATH),
        (os_error(errno.EHOSTUNREACH), F.NO_ROUTE, F.DEAD_PATH),
        (os_error(errno.ENETDOWN), F.NO_ROUTE, F.DEAD_PATH),
        (os_error(errno.EADDRNOTAVAIL), F.NO_ROUTE, F.DEAD_PATH),
        (os_error(errno.ETIMEDOUT), F.CONNECT_TIMEOUT, F.DEAD_PATH),
        (os_error(errno.EMFILE), F.NOT_CONNECTED, F.RESET),
        (os_error(errno.EPERM), F.NOT_CONNECTED, F.RESET),
        (os_error(errno.ENOENT), F.NOT_CONNECTED, F.RESET),
        (gaierror("EAI_NONAME"), F.NO_SUCH_HOST, F.NO_SUCH_HOST),
        (gaierror("EAI_AGAIN"), F.DNS_TEMPORARY, F.DNS_TEMPORARY),
        (gaierror("EAI_FAIL"), F.DNS_TEMPORARY, F.DNS_TEMPORARY),
        (ssl.SSLEOFError(8, "EOF"), F.TLS_FAILED, F.CLOSED),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), F.TLS_MISMATCH, F.BROKEN_FRAMING),
        (httpcore2.RemoteProtocolError("Server disconnected"), F.CLOSED, F.CLOSED),
        (httpcore2.RemoteProtocolError("peer closed without sending complete message body"), F.TRUNCATED, F.TRUNCATED),
        (httpcore2.RemoteProtocolError("illegal chunk header"), F.BROKEN_FRAMING, F.BROKEN_FRAMING),
        (httpcore2.LocalProtocolError("Illegal header value"), F.BAD_REQUEST, F.BAD_REQUEST),
        (stream_reset(0x7), F.NOT_PROCESSED, F.NOT_PROCESSED),
        (stream_reset(0x0), F.STREAM_RESET, F.STREAM_RESET),
        (h2.exceptions.InvalidBodyLengthError(5, 3), F.TRUNCATED, F.TRUNCATED),
        (h2.exceptions.FlowControlError("too much"), F.BROKEN_FRAMING, F.BROKEN_FRAMING),
        (h2.exceptions.StreamClosedError(1), F.STREAM_RESET, F.STREAM_RESET),
        (caused(httpcore2.ReadError(), os_error(errno.ECONNRESET)), F.RESET, F.RESET),
        (httpcore2.WriteError(os_error(errno.EPIPE)), F.RESET, F.RESET),
        (ExceptionGroup("", [os_error(errno.ECONNREFUSED)]), F.CONNECTION_REFUSED, F.CONNECTION_REFUSED),
        (WireError(F.DEADLINE), F.DEADLINE, F.DEADLINE),
        (RuntimeError("never seen before"), F.RESET, F.CLOSED),
    ],
    ids=repr,
)
def test_the_table(exc: Exception, before: Failure, after: Failure) -> None:
    assert wire_error(exc, sent=False, proxied=False).failure is before
    assert wire_error(exc, sent=True, proxied=False).failure is after


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (os_error(errno.ECONNREFUSED), F.PROXY_UNREACHABLE),
        (os_error(errno.ENETUNREACH), F.PROXY_UNREACHABLE),
        (os_error(errno.ECONNRESET), F.RESET),
        (httpcore2.ProxyError("407 Proxy Authentication Required"), F.PROXY_AUTH),
        (httpcore2.ProxyError("403 Forbidden"), F.PROXY_REFUSED),
        (httpcore2.ProxyError("502 Bad Gateway"), F.PROXY_UNREACHABLE),
        (httpcore2.ProxyError("302 Found"), F.PROXY_PROTOCOL),
        (httpcore2.RemoteProtocolError("illegal status line"), F.PROXY_PROTOCOL),
        (AssertionError(), F.PROXY_PROTOCOL),
    ],
    ids=repr,
)
def test_before_the_request_is_sent_it_is_the_proxy_s_doing(exc: Exception, failure: Failure) -> None:
    assert wire_error(exc, sent=False, proxied=True).failure is failure


def test_what_was_being_handled_when_it_happened_is_not_its_cause() -> None:
    exc = RuntimeError()
    exc.__context__ = os_error(errno.ECONNREFUSED)
    assert wire_error(exc, sent=True, proxied=False).failure is Failure.CLOSED


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_no_error_of_the_system_is_something_that_cannot_happen_once_the_request_is_sent(code: int) -> None:
    failure = wire_error(os_error(code), sent=True, proxied=True).failure
    if failure is not Failure.CONNECTION_REFUSED:  # which a standing connection cannot raise
        assert verdict(failure, Phase.PRELUDE) is Verdict.REPLAY


@pytest.mark.parametrize(
    ("exc", "detail"),
    [
        (httpcore2.LocalProtocolError("Illegal header value b'Bearer sk-secret '"), "Illegal header value"),
        (httpcore2.RemoteProtocolError("illegal chunk header: bytearray(b'sk-secret')"), "illegal chunk header"),
        (httpcore2.RemoteProtocolError('illegal status line: bytearray(b"it\'s secret")'), "illegal status line"),
        (httpcore2.LocalProtocolError("Can't send data now"), "Can't send data now"),
    ],
)
def test_what_was_quoted_is_not_handed_on(exc: Exception, detail: str) -> None:
    error = wire_error(exc, sent=True, proxied=False)
    assert error.detail == detail
    assert "secret" not in str(error)
