"""Upstreams over each transport, and whom to trust."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from conformance.faces import Ask
from unbroken.lab import Fault, Upstream

TRANSPORTS = ("http1", "http1-tls", "http2")


@dataclasses.dataclass(frozen=True)
class Tls:
    """Both sides of it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


@dataclasses.dataclass
class Setting:
    """Where a scenario happens: one transport, and upstreams over it."""

    transport: str
    tls: Tls
    upstreams: list[Upstream]

    def serve(self, *faults: Fault | None, **arguments: Any) -> Upstream:
        """An upstream that is closed with the test."""
        if self.transport != "http1":
            arguments["ssl_context"] = self.tls.server
        upstream = Upstream(faults=faults, http2=self.transport == "http2", **arguments).start()
        self.upstreams.append(upstream)
        return upstream

    def ask(self, upstream: Upstream, **arguments: Any) -> Ask:
        return Ask(url=upstream.url, tls=self.tls.client, **arguments)

    @property
    def http_version(self) -> str:
        return "HTTP/2" if self.transport == "http2" else "HTTP/1.1"


@pytest.fixture
def settings(tls: Tls) -> Iterator[Callable[[str], Setting]]:
    upstreams: list[Upstream] = []
    yield lambda transport: Setting(transport, tls, upstreams)
    for upstream in upstreams:
        upstream.close()
