"""A certificate authority that lives as long as one run: it lets the lab speak TLS to any program.

Everything is made anew each time, and no key is shipped. The arithmetic is not in constant time: these keys are for
connections within one machine, with nothing to guard. Sources: RFC 5280 (certificates), RFC 5915 (the private key), RFC
5480 (P-256), FIPS 186-5 (ECDSA).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import ssl
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
"""What the server's certificate is for."""

_BEFORE, _BEHIND = timedelta(hours=1), timedelta(days=2)  # a clock may be wrong by a little

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int]


class _KeyPair(NamedTuple):
    """A private key on P-256, and its point."""

    secret: int
    point: _Point

    @property
    def public(self) -> bytes:
        """The point, uncompressed."""
        return b"\x04" + b"".join(part.to_bytes(32, "big") for part in self.point)

    @property
    def identifier(self) -> bytes:
        """The key's identifier (RFC 5280, section 4.2.1.2)."""
        return hashlib.sha1(self.public, usedforsecurity=False).digest()


class Authority:
    """A certificate authority with one server, for this machine.

    Args:
        folder: where its files are written: ``ca.pem``, which clients are to trust, and ``server.pem``.
    """

    def __init__(self, folder: Path) -> None:
        ca, server = _new_key(), _new_key()
        self.file = folder / "ca.pem"
        self.file.write_text(_pem("CERTIFICATE", _certificate(ca, ca, is_ca=True)))
        self._chain = folder / "server.pem"
        self._chain.touch(mode=0o600)
        self._chain.write_text(_pem("EC PRIVATE KEY", _private(server)) + _pem("CERTIFICATE", _certificate(server, ca)))

    def server_context(self) -> ssl.SSLContext:
        """Return a context for one server: an upstream sets the protocols that its context offers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain)
        return context

    def environment(self) -> Mapping[str, str]:
        """Return the variables by which programs are told to trust it: OpenSSL, requests, curl, Node, Deno."""
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "DENO_CERT")
        return dict.fromkeys(names, str(self.file))


def _new_key() -> _KeyPair:
    secret = 1 + secrets.randbelow(_ORDER - 1)
    return _KeyPair(secret, _times(secret, _BASE))


def _times(factor: int, point: _Point) -> _Point:
    """Multiply a point by a number that is not zero."""
    found: _Point | None = None
    while factor:
        if factor & 1:
            found = point if found is None else _plus(found, point)
        point = _plus(point, point)
        factor >>= 1
    assert found is not None
    return found


def _plus(one: _Point, other: _Point) -> _Point:
    """Add two points whose sum is not the point at infinity."""
    if one == other:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _signature(key: _KeyPair, data: bytes) -> bytes:
    """Return the ECDSA signature with SHA-256."""
    digest = int.from_bytes(hashlib.sha256(data).digest(), "big")
    once = _new_key()
    r = once.point[0] % _ORDER
    s = pow(once.secret, -1, _ORDER) * (digest + r * key.secret) % _ORDER
    return _sequence(_integer(r), _integer(s))


def _certificate(key: _KeyPair, issuer: _KeyPair, *, is_ca: bool = False) -> bytes:
    """Return the certificate of a key, signed by its issuer."""
    now = datetime.now(UTC)
    algorithm = _sequence(_oid("1.2.840.10045.4.3.2"))  # ecdsa-with-SHA256
    content = _sequence(
        _tagged(0xA0, _integer(2)),
        _integer(secrets.randbits(63) + 1),
        algorithm,
        _name("Unbroken lab"),
        _sequence(_time(now - _BEFORE), _time(now + _BEHIND)),
        _name("Unbroken lab" if is_ca else "Unbroken lab, server"),
        _sequence(_sequence(_oid("1.2.840.10045.2.1"), _oid("1.2.840.10045.3.1.7")), _bits(key.public)),
        _tagged(0xA3, _sequence(*(_ca_extensions(key) if is_ca else _server_extensions(key, issuer)))),
    )
    return _sequence(content, algorithm, _bits(_signature(issuer, content)))


def _ca_extensions(key: _KeyPair) -> Sequence[bytes]:
    return (
        _extension("2.5.29.19", _sequence(_tagged(0x01, b"\xff")), critical=True),  # basicConstraints: a CA
        _extension("2.5.29.15", _tagged(0x03, b"\x02\x04"), critical=True),  # keyUsage: keyCertSign
        _extension("2.5.29.14", _tagged(0x04, key.identifier)),  # subjectKeyIdentifier
    )


def _server_extensions(key: _KeyPair, issuer: _KeyPair) -> Sequence[bytes]:
    names = [_tagged(0x82, name.encode()) for name in NAMES]
    addresses = [_tagged(0x87, ipaddress.ip_address(address).packed) for address in ADDRESSES]
    return (
        _extension("2.5.29.19", _sequence(), critical=True),  # basicConstraints: no CA
        _extension("2.5.29.15", _tagged(0x03, b"\x07\x80"), critical=True),  # keyUsage: digitalSignature
        _extension("2.5.29.37", _sequence(_oid("1.3.6.1.5.5.7.3.1"))),  # extKeyUsage: serverAuth
        _extension("2.5.29.17", _sequence(*names, *addresses)),  # subjectAltName
        _extension("2.5.29.14", _tagged(0x04, key.identifier)),
        _extension("2.5.29.35", _sequence(_tagged(0x80, issuer.identifier))),  # authorityKeyIdentifier
    )


def _private(key: _KeyPair) -> bytes:
    return _sequence(
        _integer(1),
        _tagged(0x04, key.secret.to_bytes(32, "big")),
        _tagged(0xA0, _oid("1.2.840.10045.3.1.7")),
        _tagged(0xA1, _bits(key.public)),
    )


def _pem(label: str, data: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


# DER (X.690)


def _tagged(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _tagged(0x03, b"\x00" + content)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return _tagged(0x06, bytes([40 * first + second]) + b"".join(map(_in_base_128, rest)))


def _in_base_128(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.insert(0, 0x80 | value & 0x7F)
    return bytes(digits)


def _name(common: str) -> bytes:
    return _sequence(_tagged(0x31, _sequence(_oid("2.5.4.3"), _tagged(0x0C, common.encode()))))


def _time(moment: datetime) -> bytes:
    return _tagged(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())  # until 2049 (RFC 5280, section 4.1.2.5)


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return _sequence(_oid(oid), *([_tagged(0x01, b"\xff")] if critical else []), _tagged(0x04, value))
