"""Who asks, and what is asked: as digests, so that no store ever has a credential."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

import msgspec

from unbroken.core.dialect import Call, is_sdk_retry
from unbroken.core.dialects import credential_headers, credential_parameters
from unbroken.core.http import Request
from unbroken.core.payload import UNREADABLE
from unbroken.relay.client_request import ClientRequest
from unbroken.relay.headers import KEY_FIELDS, values
from unbroken.relay.settings import Settings

PLACEHOLDERS = frozenset(
    (
        b"anything api-key apikey changeme dummy dummy-key empty fake fake-key lm-studio lmstudio na no-key"
        b" no-key-required no-key-needed nokey none not-needed not-required not-used null ollama placeholder unused"
        b" your-api-key"
    ).split()
)
"""What programs send to servers that need no key, without a leading ``sk-``: the same for everybody."""

_FILLER = re.compile(rb"[x*.0-]*")


class Identity(msgspec.Struct, frozen=True):
    """Who asks, and what is asked.

    Attributes:
        owner: digest of the credential, ``""`` if the request carries none that tells its client from others.
        request: digest of owner and request, ``""`` without an owner.
        key: digest of owner and idempotency key, ``""`` without either.
        is_retry: whether the client marks the request as a retry.
    """

    owner: str
    request: str
    key: str
    is_retry: bool


def owner_of(incoming: ClientRequest, settings: Settings) -> str:
    """Return the digest of the credential of a request, ``""`` if it carries none that tells its client from others.

    It is the client's own key; where the relay replaces that, or where there is none, it is the relay's token.
    """
    if settings.inject_key:
        return _digest("token", settings.token.encode())
    carriers, parameters = credential_headers(), credential_parameters()
    shown = {(name, _bare(value)) for name, value in incoming.headers if name in carriers}
    shown |= {(b"?", value.encode()) for name, value in parse_qsl(incoming.query) if name in parameters}
    secrets = sorted(value for _, value in shown if not _is_placeholder(value) and value != settings.token.encode())
    if secrets:
        return _digest("key", *secrets)
    return _digest("token", settings.token.encode()) if settings.token else ""


def identify(incoming: ClientRequest, settings: Settings, upstream: str, outgoing: Request, call: Call) -> Identity:
    """Return who asks, and what.

    Args:
        incoming: the client's request.
        settings: the relay's.
        upstream: name of the upstream.
        outgoing: the request to it, with its body.
        call: the same as its dialect recognised it.
    """
    owner = owner_of(incoming, settings)
    if not owner:
        return Identity("", "", "", is_retry=False)
    named = call.dialect.request_headers
    fields = sorted((name, value) for name, value in incoming.headers if name.decode("latin-1") in named)
    what = _digest(
        "request",
        *(part.encode("latin-1", "replace") for part in (owner, upstream, outgoing.method, outgoing.url)),
        *_unordered(outgoing.body),
        *(part for field in fields for part in field),
    )
    keys = [value for name in KEY_FIELDS for value in values(incoming.headers, name)]
    key = _digest("idempotency", owner.encode(), *keys) if any(keys) else ""
    return Identity(owner, what, key, is_retry=is_sdk_retry(outgoing))


def _bare(value: bytes) -> bytes:
    """Return a key without the scheme before it (RFC 6750, section 2.1)."""
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else value


def _is_placeholder(key: bytes) -> bool:
    word = key.strip().lower().removeprefix(b"sk-").replace(b"_", b"-")
    return word in PLACEHOLDERS or bool(_FILLER.fullmatch(word))


def _unordered(body: bytes) -> tuple[bytes, bytes]:
    """Return a body as it is told from others: its length, and itself without the order of its objects' members.

    Codex orders the members of ``client_metadata`` at random each time it asks.
    """
    try:
        same = msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except UNREADABLE:
        same = body
    return b"%d" % len(body), same


def _digest(purpose: str, *parts: bytes) -> str:
    return _hex((purpose.encode(), *parts))


def _hex(parts: Iterable[bytes]) -> str:
    """Return a digest of parts, each with its length before it, so that no two lists of parts have the same."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()
