"""The paths of a request: explicit ones for every host, or the environment's proxy.

The environment is read as curl and Go read it: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, the
lower-case name first; ``HTTP_PROXY`` in upper case is ignored in a CGI program, where a client could set it (httpoxy).
``NO_PROXY`` is a list of hosts (with their subdomains), ``host:port``, addresses, networks in CIDR form, or ``*``. On
Windows and macOS, if the environment names no proxy, the system's settings are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from unbroken.core.http import HOST_AND_PORT
from unbroken.core.paths import DIRECT, PathMemory, PathName, Paths
from unbroken.errors import UsageError

SCHEMES = ("http", "https", "socks5", "socks5h")

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

_PROVEN = PathMemory()
"""The paths that proved better in this process."""

_proving = threading.Lock()

_LONGEST_IN_SOCKS = 255
"""Bytes of a user or password (RFC 1929, section 2)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """A validated proxy.

    Attributes:
        scheme: one of :data:`SCHEMES`. With both SOCKS schemes the proxy resolves names.
        host: name or address, without brackets.
        port: TCP port.
        auth: user and password, or ``None``. Never shown by ``repr``.
        source: where it was set, such as ``"HTTPS_PROXY"``, or ``""`` if that is not known.
    """

    scheme: str
    host: str
    port: int
    auth: tuple[str, str] | None = dataclasses.field(default=None, repr=False)
    source: str = dataclasses.field(default="", compare=False)

    @property
    def address(self) -> str:
        """Host and port, as in a URL."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The proxy's URL without credentials, fit for a message."""
        return f"{self.scheme}://{self.address}"

    @property
    def title(self) -> str:
        """The proxy in a sentence: its URL, and where it was set."""
        return f"the proxy at {self.url}" + (f" ({self.source})" if self.source else "")

    @property
    def url_with_credentials(self) -> str:
        """The whole URL, for another library, never for a message."""
        credentials = f"{quote(self.auth[0], safe='')}:{quote(self.auth[1], safe='')}@" if self.auth else ""
        return self.url.replace("://", f"://{credentials}", 1)


class GivenProxy(str):
    """A proxy's URL, or ``"direct"``, with the place where it was set.

    Attributes:
        source: the place, for messages, such as ``"--proxy"``.
    """

    source: str

    def __new__(cls, url: str, source: str) -> Self:
        """Return the URL under its source."""
        given = super().__new__(cls, url)
        given.source = source
        return given

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """Return what a copy is made of: the settings are sent to the relay's workers by pickle."""
        return type(self), (str(self), self.source)


ProxySetting = str | Sequence[str] | None
"""The proxy of a wire: a URL, ``None`` for the environment's, ``""`` for none, or a list of paths."""


def parse_proxy(url: str, source: str = "") -> Proxy:
    """Read a proxy's URL; ``host:port`` means ``http://host:port``, as for curl.

    Args:
        url: the URL. Its path is ignored.
        source: where it comes from, such as the name of a variable, for messages; by default that of a
            :class:`GivenProxy`.

    Raises:
        UsageError: not a URL, an unknown scheme, an invalid host or port, or credentials that cannot be sent; the
            message quotes none of them. There is no fallback to a direct connection: it could leak what the proxy
            protects.
    """
    set_in = source or (url.source if isinstance(url, GivenProxy) else "")
    source = set_in or "the proxy"
    no_url = UsageError(f"{source} is no URL; write http://host:port")
    if "://" not in url and ":/" in url:
        raise no_url
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        raise no_url from None
    if parts.scheme not in SCHEMES:
        hint = "; write socks5h:// (names are resolved by the proxy)" if parts.scheme.startswith("socks") else ""
        raise UsageError(f"{source} has the unknown scheme {parts.scheme}://; use one of {', '.join(SCHEMES)}{hint}")
    if "@" in parts.path + parts.query + parts.fragment:
        raise UsageError(f"{source} has a user or password with / ? or #: write them %2F, %3F and %23")
    host, port = _address_of(parts, source)
    return Proxy(parts.scheme, host, port, _credentials(parts, source), set_in)


def parse_paths(paths: str | Sequence[str], source: str = "") -> tuple[Proxy | None, ...]:
    """Read paths in the order of preference: proxies, and ``"direct"`` (``None`` in the result).

    Args:
        paths: a list, or a single path; ``""`` is ``"direct"``, too.
        source: as for :func:`parse_proxy`.

    Raises:
        UsageError: there is none, or as for :func:`parse_proxy`.
    """
    given = [paths] if isinstance(paths, str) else paths
    found = dict.fromkeys(None if one in ("", DIRECT) else parse_proxy(one, source) for one in given)
    if not found:
        raise UsageError(f"{source or 'the proxy'} is an empty list: name a proxy, or {DIRECT}")
    return tuple(found)


def _address_of(parts: SplitResult, source: str) -> tuple[str, int]:
    host_and_port = parts.netloc.rpartition("@")[2]
    if not parts.hostname or host_and_port.startswith(":"):
        raise UsageError(f"{source} names no host; write {parts.scheme}://host:port")
    if not host_and_port.isascii():
        raise UsageError(f"{source} has a host that is not ASCII; use its xn-- form")
    if not HOST_AND_PORT.fullmatch(re.sub(r":[^]:]*\Z", "", host_and_port)):
        raise UsageError(f"{source} has a host with characters that no host name has")
    with contextlib.suppress(ValueError):
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        if port:
            return parts.hostname, port
    raise UsageError(f"{source} has an invalid port")


def _credentials(parts: SplitResult, source: str) -> tuple[str, str] | None:
    if not (parts.username or parts.password):
        return None
    try:
        user, password = (unquote(part or "", errors="strict") for part in (parts.username, parts.password))
        longest = max(len(user.encode()), len(password.encode()))
    except UnicodeError:
        raise UsageError(f"{source} has a user or password that is not UTF-8; percent-encode it as UTF-8") from None
    if parts.scheme.startswith("socks") and longest > _LONGEST_IN_SOCKS:
        raise UsageError(f"{source} has a user or password over {_LONGEST_IN_SOCKS} bytes, which SOCKS cannot carry")
    if parts.scheme.startswith("http") and ":" in user:
        raise UsageError(f"{source} has a user with a colon, which HTTP cannot carry")
    return user, password


class Surroundings(NamedTuple):
    """What environment and system say of the proxy for a URL.

    Attributes:
        named: the places that name a proxy, and what they name, the one that counts first.
        exception: the entry of ``NO_PROXY`` that takes the URL out, ``""`` if none does.
    """

    named: tuple[tuple[str, str], ...]
    exception: str


class ProxyRules:
    """The choice of the paths of a URL.

    Args:
        proxy: an explicit proxy for every host, which takes precedence over the environment and ``NO_PROXY``;
            ``None`` to read the environment; ``""`` for none at all; a list of proxies and ``"direct"`` in the order
            of preference.
        environ: the environment, such as ``os.environ``.
        memory: the paths that proved better, by default those of this process.
        clock: monotonic seconds.

    Raises:
        UsageError: an explicit proxy is malformed.
    """

    def __init__(
        self,
        proxy: ProxySetting,
        environ: Mapping[str, str],
        *,
        memory: PathMemory = _PROVEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._explicit = None if proxy is None else parse_paths(proxy)
        self._environ = environ
        self._memory = memory
        self._clock = clock

    def all(self, url: str) -> tuple[Proxy | None, ...]:
        """Return the proxies for ``url`` in the order of preference; ``None`` among them is a direct connection.

        Raises:
            UsageError: the environment names a malformed proxy.
        """
        return self._explicit or (self._from_surroundings(urlsplit(url)),)

    def choose(self, url: str) -> Proxy | None:
        """Return the proxy to begin with for ``url``, or ``None`` for a direct connection.

        Raises:
            UsageError: the environment names a malformed proxy.
        """
        return self.all(url)[self.paths(url).first]

    def paths(self, url: str) -> Paths:
        """Return the names of the paths for ``url``, and which one to begin with.

        Raises:
            UsageError: the environment names a malformed proxy.
        """
        proxies = self.all(url)
        names = tuple(PathName(proxy.url, proxy.source) if proxy else PathName(DIRECT) for proxy in proxies)
        first = self._memory.first(self._server(url), self._clock()) if len(names) > 1 else 0
        return Paths(names, first)

    def prefer(self, url: str, path: int) -> None:
        """Begin with this path from now on, for :data:`unbroken.core.paths.REMEMBERED` seconds."""
        with _proving:
            self._memory.prefer(self._server(url), path, self._clock())

    def _server(self, url: str) -> Hashable:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port, self.all(url)

    def surroundings(self, url: str) -> Surroundings:
        """Return all that environment and system say of the proxy for ``url``, whether or not an explicit one wins."""
        parts = urlsplit(url)
        return Surroundings(tuple(self._named(parts)), self._exception(parts))

    def _from_surroundings(self, parts: SplitResult) -> Proxy | None:
        found = next(self._named(parts), None)
        if found is None or self._exception(parts):
            return None
        name, value = found
        return parse_proxy(value, name)

    def _named(self, parts: SplitResult) -> Iterator[tuple[str, str]]:
        """Yield the places that name a proxy, in the order of precedence."""
        for name in (f"{parts.scheme}_proxy", "all_proxy"):
            for spelled in (name, name.upper()):
                if spelled == "HTTP_PROXY" and "REQUEST_METHOD" in self._environ:
                    continue
                if value := self._environ.get(spelled, "").strip():
                    yield spelled, value
        yield from self._in_system(parts)

    def _in_system(self, parts: SplitResult) -> Iterator[tuple[str, str]]:
        if sys.platform not in ("win32", "darwin"):
            return
        from urllib.request import getproxies, proxy_bypass  # slow to import, and only needed there

        value = getproxies().get(parts.scheme)
        if value and not proxy_bypass(parts.hostname or ""):
            yield "the system's proxy setting", value

    def _exception(self, parts: SplitResult) -> str:
        entries = self._environ.get("no_proxy") or self._environ.get("NO_PROXY") or ""
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or _PORTS.get(parts.scheme, 0)
        listed = (entry.strip() for entry in entries.replace(" ", ",").split(","))
        return next((entry for entry in listed if _covers(entry.lower(), host, port)), "")


def _covers(entry: str, host: str, port: int) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        address = _address(host)
        return address is not None and address in network
    name, _, wanted_port = entry.rpartition(":") if entry.count(":") == 1 or "]:" in entry else (entry, "", "")
    if wanted_port:
        return wanted_port == str(port) and _covers(name, host, port)
    name = name.removeprefix("*").lstrip(".").rstrip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
