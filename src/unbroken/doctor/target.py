"""What is examined: a provider, the key for it, and the options of the way there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from unbroken.core.dialect import Dialect
from unbroken.core.http import Request
from unbroken.core.providers import Provider
from unbroken.wire.proxies import ProxyRules, ProxySetting
from unbroken.wire.requests import Destination

if TYPE_CHECKING:
    import ssl


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A provider to examine the path to.

    Attributes:
        provider: who it is, with the base URL.
        dialect: the dialect that it speaks.
        key: its key, ``None`` if there is none.
        key_source: where the key is, or would have to be; ``""`` if none is needed.
        proxy: as for :class:`unbroken.wire.proxies.ProxyRules`.
        ca_file: PEM file of authorities, ``None`` for the system's.
        connect: seconds for a connection.
        ping: seconds between two PINGs, as configured; 0 for none.
        environ: where proxies are looked up.
    """

    provider: Provider
    dialect: Dialect
    key: str | None = None
    key_source: str = ""
    proxy: ProxySetting = None
    ca_file: str | None = None
    connect: float = 10.0
    ping: float = 10.0
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: os.environ)

    @property
    def rules(self) -> ProxyRules:
        """The choice of the proxy.

        Raises:
            UsageError: an explicit proxy is malformed.
        """
        return ProxyRules(self.proxy, self.environ)

    @property
    def models(self) -> Request:
        """The request for the list of models, without a key; it costs nothing."""
        return Request("GET", self.dialect.models_url(self.provider.base_url), self._headers({}))

    def models_with_key(self, key: str) -> Request:
        """Return the same request with a key."""
        return Request("GET", self.models.url, self._headers(self.dialect.credentials(key)))

    def destination(self) -> Destination:
        """Return where a request goes, and by which proxy: the first one, if paths are named.

        Raises:
            UsageError: the environment names a malformed proxy.
        """
        return Destination.of(self.models, self.rules.all(self.models.url)[0])

    def context(self) -> ssl.SSLContext:
        """Return the context for TLS.

        Raises:
            UsageError: the CA file cannot be used.
        """
        from unbroken.wire.tls import client_context

        return client_context(self.ca_file or True)

    def _headers(self, credentials: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
        fields = {"Accept": "application/json", **self.dialect.headers, **credentials}
        return tuple((name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in fields.items())
