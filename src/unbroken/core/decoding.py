"""Content decoding, for servers that compress although identity was asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from unbroken.core.http import Head

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def identity(chunk: bytes) -> bytes:
    """No encoding: the bytes as they are."""
    return chunk


def decoder_for(head: Head) -> Callable[[bytes], bytes] | None:
    """An incremental decoder for a response's content encoding, or ``None`` where we cannot decode it (``br``).

    The decoder raises :class:`zlib.error` for bytes that are not so encoded.
    """
    encoding = head.fields.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return identity
    window = _WINDOW.get(encoding)
    return None if window is None else zlib.decompressobj(window).decompress
