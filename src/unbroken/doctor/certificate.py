"""A server's certificate: who signed it, and whether that is a program that reads TLS on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_ORGANIZATION, _COMMON_NAME = b"\x55\x04\x0a", b"\x55\x04\x03"
"""Types of a name's attributes (RFC 5280, appendix A.1: ``id-at 10`` and ``id-at 3``), in DER."""

_CONTEXT_0, _SEQUENCE, _OBJECT = 0xA0, 0x30, 0x06

_INTERCEPTING = (
    ("mitmproxy", "mitmproxy"),
    ("charles proxy", "Charles"),
    ("fiddler", "Fiddler"),
    ("portswigger", "Burp"),
    ("proxyman", "Proxyman"),
    ("http toolkit", "HTTP Toolkit"),
    ("zscaler", "Zscaler"),
    ("netskope", "Netskope"),
    ("goskope", "Netskope"),
    ("fortinet", "FortiGate"),
    ("fortigate", "FortiGate"),
    ("palo alto", "Palo Alto Networks"),
    ("blue coat", "Blue Coat"),
    ("bluecoat", "Blue Coat"),
    ("cisco umbrella", "Cisco Umbrella"),
    ("sophos", "Sophos"),
    ("check point", "Check Point"),
    ("forcepoint", "Forcepoint"),
    ("websense", "Forcepoint"),
    ("mcafee", "McAfee Web Gateway"),
    ("skyhigh", "Skyhigh"),
    ("barracuda", "Barracuda"),
    ("watchguard", "WatchGuard"),
    ("sonicwall", "SonicWall"),
    ("iboss", "iboss"),
    ("menlo security", "Menlo Security"),
    ("gateway ca - cloudflare", "Cloudflare Gateway"),
    ("kaspersky", "Kaspersky"),
    ("bitdefender", "Bitdefender"),
    ("eset ssl filter", "ESET"),
    ("avast", "Avast"),
    ("avg web", "AVG"),
    ("adguard", "AdGuard"),
)
"""What stands in the names of authorities with which programs on the way sign, and the name of the program."""


class Signer(NamedTuple):
    """The authority that signed a certificate.

    Attributes:
        organization: its organization, ``""`` if it names none.
        name: its common name, ``""`` if it has none.
    """

    organization: str
    name: str

    def __str__(self) -> str:
        if self.organization and self.name and self.organization not in self.name:
            return f"{self.organization} ({self.name})"
        return self.name or self.organization or "an authority without a name"

    @property
    def intercepting(self) -> str:
        """The name of the program that intercepts TLS and signs with this authority, ``""`` if none is known."""
        words = f"{self.organization} {self.name}".lower()
        return next((program for sign, program in _INTERCEPTING if sign in words), "")


def signer_of(certificate: bytes) -> Signer:
    """Return the issuer of a certificate in DER (RFC 5280, section 4.1); an empty one if it cannot be read."""
    try:
        fields = list(_elements(_content(_content(certificate))))
        if fields and fields[0][0] == _CONTEXT_0:  # the version
            fields = fields[1:]
        named = dict(_attributes(fields[2][1]))  # after the serial number and the algorithm
    except (IndexError, ValueError, StopIteration):
        return Signer("", "")
    return Signer(named.get(_ORGANIZATION, ""), named.get(_COMMON_NAME, ""))


def _attributes(name: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield the type and the value of each attribute of a name."""
    for _, relative in _elements(name):
        for tag, attribute in _elements(relative):
            (kind, key), (_, value) = list(_elements(attribute))[:2]
            if tag == _SEQUENCE and kind == _OBJECT:
                yield key, value.decode("utf-8", "replace")[:100]


def _content(data: bytes) -> bytes:
    """Return the content of the first element.

    Raises:
        StopIteration: there is none.
    """
    return next(_elements(data))[1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element (X.690, section 8.1).

    Raises:
        IndexError: the data ends early.
    """
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise IndexError("an element is longer than what holds it")
        yield tag, data[at : at + length]
        at += length
