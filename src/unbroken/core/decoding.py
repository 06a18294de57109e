"""Content decoding, for servers that compress although identity was asked for."""

from __future__ import annotations

import zlib

from unbroken.core.http import Head

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class ContentDecoder:
    """A decoder that leaves the bytes as they are; base class of the others."""

    changes = False
    """Whether decoding changes the bytes."""
    whole = True
    """Whether the body may end here."""

    def decode(self, chunk: bytes) -> bytes:
        """Return the decoded bytes of the next chunk, as far as they are known.

        Raises:
            zlib.error: the bytes are not in this encoding.
        """
        return chunk


class _Gzip(ContentDecoder):
    """A gzip decoder: one or more members (RFC 1952, section 2.2), optionally padded with zeros."""

    changes = True

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    def decode(self, chunk: bytes) -> bytes:
        decoded = b""
        while chunk := chunk.lstrip(b"\0") if self._member.eof else chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP)
            decoded += self._member.decompress(chunk)
            self.whole = self._member.eof
            chunk = self._member.unused_data
        return decoded


class _Deflate(ContentDecoder):
    """A deflate decoder: zlib's format (RFC 9110, section 8.4.1.2); some servers omit its header."""

    changes = True

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def decode(self, chunk: bytes) -> bytes:
        if self._stream is None:
            if not chunk:
                return b""
            self._stream = zlib.decompressobj(_ZLIB if chunk[0] & 0x0F == zlib.DEFLATED else _RAW_DEFLATE)
        decoded = self._stream.decompress(chunk)
        self.whole = self._stream.eof
        return decoded


_DECODERS = {"": ContentDecoder, "identity": ContentDecoder, "gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}


def decoder_for(head: Head) -> ContentDecoder | None:
    """Return an incremental decoder for a response's content encoding, or ``None`` if unsupported (``br``)."""
    decoder = _DECODERS.get(head.fields.get("content-encoding", "").strip().lower())
    return decoder() if decoder else None
