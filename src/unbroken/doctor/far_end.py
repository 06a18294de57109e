"""The far ends of silent connections: a lab of the user's, a server on this machine, the provider itself."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from unbroken.core.http import Request
from unbroken.doctor.silences import FarEndKind
from unbroken.lab.certificate import Authority
from unbroken.lab.echo import EchoServer
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination
from unbroken.wire.tls import client_context


class FarEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One far end.

    Attributes:
        kind: which one.
        destination: where connections lead, and by which proxy.
        context: returns the context for TLS.
        url: what is asked for silence, ``""`` for a far end that is not ours: nothing is requested there.
        token: what its answer must repeat.
    """

    kind: FarEndKind
    destination: Destination
    context: Callable[[], ssl.SSLContext]
    url: str = ""
    token: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is an echo server of the lab, which is silent or sends comments as the request says."""
        return bool(self.url)

    def request(self, seconds: float, comments: float) -> Request:
        """Return the request for so many seconds of silence, with a comment every ``comments`` seconds (0: none)."""
        query = f"seconds={seconds:g}&comments={comments:g}&token={self.token}"
        return Request("GET", f"{self.url}?{query}", ((b"Accept", b"text/event-stream"),))


def echo(url: str, proxy: Proxy | None) -> FarEnd:
    """Return the user's ``unbroken lab echo`` at this URL. Its certificate is not verified: no secret is sent there."""
    silence = f"{url.rstrip('/')}/silence"
    token = secrets.token_urlsafe(12)
    destination = Destination.of(Request("GET", silence), proxy)
    return FarEnd(
        kind=FarEndKind.ECHO, destination=destination, context=lambda: client_context(False), url=silence, token=token
    )


@contextlib.contextmanager
def here(proxy: Proxy, local: str, *, secure: bool) -> Iterator[FarEnd]:
    """Serve silence on this machine while the block runs; yield it as a far end behind the proxy.

    Args:
        proxy: the proxy.
        local: this machine's own address on a connection to the proxy, by which the proxy can reach it.
        secure: whether to speak TLS: what goes to ``http://`` is not tunnelled by a proxy, but forwarded.

    Raises:
        OSError: the address cannot be served at.
    """
    with tempfile.TemporaryDirectory(prefix="unbroken-doctor-") as folder:
        authority = Authority(Path(folder)) if secure else None
        context = authority.server_context() if authority else None
        with EchoServer(ssl_context=context, host=local) as server:
            token = secrets.token_urlsafe(12)
            url = f"{server.url}/{token}/silence"
            yield FarEnd(
                kind=FarEndKind.HERE,
                destination=Destination.of(Request("GET", url), proxy),
                context=lambda: _trusting(authority),
                url=url,
                token=token,
            )


def _trusting(authority: Authority | None) -> ssl.SSLContext:
    """Return a context that accepts the authority's certificate alone, at whatever address."""
    context = client_context(authority.file if authority else True)
    context.check_hostname = False
    return context


def provider(destination: Destination, context: Callable[[], ssl.SSLContext]) -> FarEnd:
    """Return the provider itself, to which connections are made without a request."""
    return FarEnd(kind=FarEndKind.PROVIDER, destination=destination, context=context)


def direct(destination: Destination, context: Callable[[], ssl.SSLContext]) -> FarEnd:
    """Return the provider without the proxy."""
    return FarEnd(kind=FarEndKind.DIRECT, destination=destination._replace(proxy=None), context=context)
