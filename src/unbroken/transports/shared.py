"""Parts of the transports of every library: reading a request, errors as the library's, options of the wire.

httpx2 and httpx have the same interface; the module is an argument. The rule applies to a request that is a generation
call of a known dialect, with its body in memory. Every other request goes through the library's own transport,
untouched.
"""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from unbroken.core.actions import CallerTimeouts
from unbroken.core.continuation.format import Style, style_named
from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy, hold_named, refuse_restart
from unbroken.core.report import Report
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.notices import RetryCallback
from unbroken.drivers.synchronous import Driver
from unbroken.errors import (
    CallerTimeout,
    FirstOutputTimeout,
    MalformedStream,
    StreamCut,
    TurnError,
    UnexpectedResponse,
    Unreachable,
    UsageError,
)
from unbroken.wire.proxies import ProxyRules
from unbroken.wire.tls import client_context

EXTENSION = "unbroken"
"""The key of the report on a response, ``response.extensions["unbroken"]``, and of what a request asks for."""


class LiveReport:
    """The report of a turn that may still be running; complete once the response has been read or closed.

    Attributes:
        error: the error with which the body ended, ``None`` if it has not failed. SDKs put words of their own in front
            of it: openai says "Connection error.".
    """

    def __init__(self, driver: Driver | AsyncDriver) -> None:
        self.error: TurnError | None = None
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver.report, name)

    @property
    def now(self) -> Report:
        """The current report."""
        return self._driver.report

    def __repr__(self) -> str:
        return repr(self._driver.report)


class Rule:
    """The rule for the transports of one library.

    Args:
        library: the module, ``httpx2`` or ``httpx``.
        policy: the limits.
        on_retry: called at every retry and replay.
        continuation: the style in which servers continue an answer, ``None`` for what is known of each.

    Raises:
        UsageError: a style that is not known, or a policy that has answers begin again.
    """

    def __init__(
        self,
        library: ModuleType,
        policy: Policy | None,
        on_retry: RetryCallback | None,
        continuation: Style | None = None,
    ) -> None:
        self.library = library
        self.continuation = style_named(continuation)
        self.refused = RefusedBackgrounds()
        self.policy = policy or Policy()
        refuse_restart(self.policy, "a transport")
        self.on_retry = on_retry

    def read(self, request: Any) -> tuple[Request, Call] | None:
        """Return the generation call that a request makes, or ``None`` for the library's own transport."""
        try:
            body = request.content
        except self.library.RequestNotRead:
            return None
        if request.url.scheme not in ("http", "https"):
            return None
        try:
            ours = Request(request.method, str(request.url), tuple(request.headers.raw), body)
        except UsageError:
            return None  # the library's own transport reports the error
        call = recognise(ours)
        return (ours, call) if call else None

    def timeouts(self, request: Any) -> CallerTimeouts:
        """Return the caller's own timeouts, which keep their meaning."""
        given: Mapping[str, float | None] = request.extensions.get("timeout", {})
        return CallerTimeouts(connect=given.get("connect"), read=given.get("read"), write=given.get("write"))

    def policy_of(self, request: Any) -> Policy:
        """Return the limits of a request, which may ask for some itself: ``extensions={"unbroken": {...}}``.

        Raises:
            UsageError: it asks for something that is not known.
        """
        wanted = request.extensions.get(EXTENSION)
        if wanted is None:
            return self.policy
        if not isinstance(wanted, Mapping) or wanted.keys() - {"hold", "background"}:
            raise UsageError(
                f'a request\'s extensions may say {{"{EXTENSION}": {{"hold": ..., "background": ...}}}}, and nothing'
                " else of it"
            )
        hold, background = (wanted.get(name, getattr(self.policy, name)) for name in ("hold", "background"))
        if not isinstance(background, bool):
            raise UsageError(f"background cannot be {background!r}: it must be True or False")
        return dataclasses.replace(self.policy, hold=hold_named(hold), background=background)

    def response(self, head: Head, stream: Any, report: LiveReport) -> Any:
        """Build the library's response."""
        return self.library.Response(
            head.status,
            headers=list(head.headers),
            stream=stream,
            extensions={"http_version": head.http_version.encode(), EXTENSION: report},
        )

    def error(self, error: TurnError, request: Any) -> Exception:
        """Convert an error to the library's exception for it, which an SDK knows how to treat."""
        library = self.library
        kind: type[Exception] = library.NetworkError
        match error:
            case CallerTimeout():
                kind = {"connect": library.ConnectTimeout, "write": library.WriteTimeout}.get(
                    error.which, library.ReadTimeout
                )
            case FirstOutputTimeout():
                kind = library.ReadTimeout
            case Unreachable():
                kind = library.ConnectError
            case StreamCut():
                kind = library.ReadError
            case MalformedStream():
                kind = library.RemoteProtocolError
            case UnexpectedResponse():
                kind = library.DecodingError
        return kind(str(error), request=request)  # type: ignore[call-arg]  # the libraries' errors take it


class LibraryTransports:
    """The library's own transports, for requests that are not generation calls: one for each proxy in use.

    They are made on demand: loading a trust store takes tens of milliseconds.

    Args:
        make: ``HTTPTransport`` or ``AsyncHTTPTransport``.
        options: the wire's options; see :func:`wire_options`.
        limits: limits of their pools.
    """

    def __init__(self, make: Callable[..., Any], options: Mapping[str, Any], limits: Any) -> None:
        self._make = make
        self._options = {"http2": options["http2"], **({"limits": limits} if limits is not None else {})}
        self._verify = options["verify"]
        self._proxies = ProxyRules(options.get("proxy"), os.environ)
        self._made: dict[str, Any] = {}

    def choose(self, request: Any) -> Any:
        """Return the transport for a request."""
        proxy = self._proxies.choose(str(request.url))
        url = proxy.url_with_credentials if proxy else ""
        if url not in self._made:
            self._verify = client_context(self._verify)
            self._made[url] = self._make(proxy=url or None, verify=self._verify, **self._options)
        return self._made[url]

    @property
    def all(self) -> list[Any]:
        """Every transport made so far."""
        return list(self._made.values())


def wire_options(
    verify: ssl.SSLContext | str | bool,
    cert: Any,
    trust_env: bool,
    http2: bool,
    proxy: Any,
) -> dict[str, Any]:
    """Convert a transport's options to those of the wire.

    Raises:
        UsageError: an option that the wire does not support.
    """
    options: dict[str, Any] = {"verify": _with_certificate(verify, cert), "http2": http2}
    if proxy is not None:
        options["proxy"] = [_proxy_url(one) for one in proxy] if isinstance(proxy, list | tuple) else _proxy_url(proxy)
    elif not trust_env:
        options["proxy"] = ""
    return options


def _with_certificate(verify: ssl.SSLContext | str | bool, cert: Any) -> ssl.SSLContext | str | bool:
    if cert is None:
        return verify if isinstance(verify, bool) else client_context(verify)  # fail now if it cannot be used
    context = client_context(verify)
    files = (cert,) if isinstance(cert, str) else tuple(cert)
    try:
        context.load_cert_chain(*files)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"cannot use the client certificate: {exc}") from None
    return context


def _proxy_url(proxy: Any) -> str:
    """Return the URL, with credentials, of a proxy given as text, as the library's URL or as its ``Proxy``."""
    url = getattr(proxy, "url", proxy)
    if getattr(proxy, "headers", None):
        raise UsageError("proxy headers cannot be sent: give credentials in the proxy's URL")
    if getattr(proxy, "ssl_context", None):
        raise UsageError("a proxy's own ssl_context is not supported: give verify, which holds for the proxy too")
    text = str(url)
    auth = getattr(proxy, "raw_auth", None)
    if auth and "@" not in text:
        from urllib.parse import quote

        user, password = (quote(part.decode(), safe="") for part in auth)
        text = text.replace("://", f"://{user}:{password}@", 1)
    return text


def refuse(**unsupported: Any) -> None:
    """Refuse options that the wire does not support, rather than ignore them.

    Raises:
        UsageError: one of them was given.
    """
    for name, value in unsupported.items():
        if value:
            raise UsageError(
                f"{name} is not supported by Unbroken's transport: hand a transport of your own in, as inner="
            )
