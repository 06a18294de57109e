"""The path to a provider as data: what would be used, what was measured of it; for a person and for a program."""

from __future__ import annotations

import msgspec

from unbroken.doctor.silences import IdleReport


class ProxyPlace(msgspec.Struct, frozen=True):
    """A place that names a proxy.

    Attributes:
        source: the place, such as ``"--proxy"`` or ``"HTTPS_PROXY"``.
        url: what it names, without credentials; ``"direct"`` for none, ``""`` where it cannot be read.
        used: whether it is the one that counts.
    """

    source: str
    url: str
    used: bool


class CertificateReport(msgspec.Struct, frozen=True):
    """The server's certificate.

    Attributes:
        signer: the authority that signed it.
        trusted: whether it is accepted, by ``--ca-file`` or by this system.
        by_system: whether this system trusts it; ``None`` if that was not tried.
        intercepted_by: the program on the way that signs in the server's name; ``""`` if none is known to.
    """

    signer: str
    trusted: bool
    by_system: bool | None = None
    intercepted_by: str = ""


class KeyReport(msgspec.Struct, frozen=True):
    """The provider's key, which is never shown.

    Attributes:
        source: the variable or the file that holds it, ``""`` if none is needed.
        present: whether there is one.
        accepted: whether the provider accepts it; ``None`` if that is not known.
        status: the HTTP status of the list of models, ``None`` if it did not come.
    """

    source: str = ""
    present: bool = False
    accepted: bool | None = None
    status: int | None = None


class PathReport(msgspec.Struct, kw_only=True):
    """The path to a provider.

    Attributes:
        url: the base URL, without its query.
        host: the provider's host, with its port unless that is the scheme's own.
        proxy: the proxy's URL without credentials, ``""`` for a direct connection.
        proxies: every place that names a proxy, the one that counts first.
        exception: the entry of ``NO_PROXY`` that takes the host out, ``""`` if none does.
        addresses: what the name of the first hop (the proxy's, if there is one) stands for.
        peer: the address that was connected to.
        seconds: what each step took: ``dns``, ``tcp``, ``proxy``, ``tls``.
        http_version: ``"HTTP/1.1"``, ``"HTTP/2"``, or ``""`` if the provider was not reached.
        direct_http_version: the same without the proxy, if that was tried.
        certificate: the server's certificate, ``None`` without TLS.
        clock_skew: seconds by which this machine's clock is ahead of the server's; ``None`` if it does not tell.
        key: the provider's key.
        idle: what the idle test found, ``None`` if there was none.
    """

    url: str
    host: str
    proxy: str = ""
    proxies: list[ProxyPlace] = msgspec.field(default_factory=list)
    exception: str = ""
    addresses: list[str] = msgspec.field(default_factory=list)
    peer: str = ""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    http_version: str = ""
    direct_http_version: str = ""
    certificate: CertificateReport | None = None
    clock_skew: float | None = None
    key: KeyReport = KeyReport()
    idle: IdleReport | None = None
