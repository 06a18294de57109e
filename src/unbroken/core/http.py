"""A request and the head of a response, as every layer passes them on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

import msgspec

from unbroken.errors import UsageError

Headers = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names as they were written."""

HOST_AND_PORT = re.compile(r"(\[[\w:.%~-]+\]|[\w.~-]*)(:\d*)?", re.ASCII)
"""A host (a name, or an address in brackets) and perhaps a port, as they stand in a URL."""

_SIGNATURES = frozenset(
    {b"content-md5", b"content-digest", b"digest", b"repr-digest", b"x-amz-content-sha256", b"signature"}
)
"""Headers that hold for the request as it is (RFC 9530, RFC 9421, AWS Signature Version 4): no other can have them."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_FORBIDDEN_IN_VALUE = re.compile(rb"[\0\r\n]")  # RFC 9110, section 5.5
_QUERY = re.compile(r"[?#]")
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f]")


class Request(msgspec.Struct, frozen=True, dict=True):
    """One HTTP request with its body in memory, so that it can be sent again.

    Attributes:
        method: such as ``"POST"``.
        url: absolute ``http`` or ``https`` URL, already percent-encoded.
        headers: fields in order; ``Host`` and ``Content-Length`` are added by the wire.
        body: the whole body.

    Raises:
        UsageError: an invalid method or URL, or a field that would inject another one.
    """

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Request({self.method} {redacted(self.url)})"

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method.encode("latin-1", "replace")):
            raise UsageError(f"{self.method!r} is not an HTTP method")
        check_url(self.url)
        for name, value in self.headers:
            if not _TOKEN.fullmatch(name):
                raise UsageError("a header has a name with characters that no name may contain")
            if _FORBIDDEN_IN_VALUE.search(value):
                raise UsageError(f"the value of header {name.decode()} contains a line break or NUL")

    @cached_property
    def parts(self) -> SplitResult:
        """The parsed URL."""
        return urlsplit(self.url)

    @property
    def path(self) -> str:
        """The URL's path without the query."""
        return self.parts.path or "/"

    @property
    def is_signed(self) -> bool:
        """Whether its headers hold for this request alone, so that none like it can be made."""
        return any(name.lower() in _SIGNATURES or value.startswith(b"AWS4-") for name, value in self.headers)

    def with_headers(self, **replaced: str) -> Request:
        """Return a copy with these fields set (``accept_encoding="identity"``), replacing all of the same name."""
        names = {name.replace("_", "-").encode(): value.encode() for name, value in replaced.items()}
        kept = tuple(field for field in self.headers if field[0].lower() not in names)
        return msgspec.structs.replace(self, headers=kept + tuple(names.items()))

    def with_body(self, body: bytes) -> Request:
        """Return a copy with this body."""
        return msgspec.structs.replace(self, body=body)


class Head(msgspec.Struct, frozen=True, dict=True):
    """Status and headers of a response.

    Attributes:
        status: HTTP status.
        headers: fields in order.
        http_version: ``"HTTP/1.1"`` or ``"HTTP/2"``.
    """

    status: int
    headers: Headers = ()
    http_version: str = "HTTP/1.1"

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """The headers by lower-case name, values as Latin-1 text; a repeated field is joined by ``, ``."""
        fields: dict[str, str] = {}
        for raw_name, raw_value in self.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return fields

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters, the first if there are several; ``""`` without any."""
        return self.fields.get("content-type", "").partition(",")[0].partition(";")[0].strip().lower()

    def without(self, *names: str) -> Head:
        """Return a copy without these fields (lower-case names)."""
        kept = tuple(field for field in self.headers if field[0].decode("latin-1").lower() not in names)
        return Head(self.status, kept, self.http_version)


def check_url(url: str) -> None:
    """Refuse a URL that cannot be requested.

    Raises:
        UsageError: not an absolute http(s) URL with a valid host and port. The message quotes no credentials.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its message may quote a password
        raise UsageError("not a valid URL: its host or port cannot be read") from None
    if _FORBIDDEN_IN_URL.search(url):
        raise UsageError("a URL cannot contain spaces or control characters")
    if not url.isascii():
        raise UsageError("a URL must be ASCII; percent-encode its path and use the xn-- form of its host")
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{redacted(url)!r} is not an http:// or https:// URL")
    if not parts.hostname or port == 0:
        raise UsageError(f"{redacted(url)!r} names no host to connect to")
    if not HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
        raise UsageError(f"{redacted(url)!r} has a host with characters that no host name has")


def redacted(url: str) -> str:
    """Return the URL without credentials and query, for a message; ``"..."`` if the credentials cannot be found."""
    shown = _QUERY.split(url, maxsplit=1)[0]
    if "@" not in url:
        return shown
    try:
        parts = urlsplit(shown)
        _ = parts.port  # fails if part of a password is parsed as the port
    except ValueError:
        return "..."
    if "@" in shown and not parts.netloc:
        return "..."
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
