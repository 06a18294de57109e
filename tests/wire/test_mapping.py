from __future__ import annotations

import errno
import os
import socket
import ssl

import h2.exceptions
import pytest

from unbroken.core.failures import Failure, Phase, Verdict, verdict
from unbroken.errors import WireError
from unbroken.wire.mapping import wire_error

F = Failure


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


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
        (h2.exceptions.InvalidBodyLengthError(5, 3), F.TRUNCATED, F.TRUNCATED),
        (h2.exceptions.FlowControlError("too much"), F.BROKEN_FRAMING, F.BROKEN_FRAMING),
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
        (
            h2.exceptions.ProtocolError("Received header value surrounded by whitespace b' sk-secret '"),
            "Received header",
        ),
        (h2.exceptions.ProtocolError("Received uppercase header name b'SECRET'."), "Received uppercase header name"),
        (
            h2.exceptions.ProtocolError('Invalid content-length header: b"it\'s secret"'),
            "Invalid content-length header",
        ),
        (h2.exceptions.ProtocolError("Invalid input 3 in state 4"), "Invalid input 3 in state 4"),
    ],
)
def test_what_was_quoted_is_not_handed_on(exc: Exception, detail: str) -> None:
    error = wire_error(exc, sent=True, proxied=False)
    assert error.detail.startswith(detail)
    assert "secret" not in str(error).lower()
