"""Content decoding, for servers that compress although identity was asked for."""

from __future__ import annotations

import zlib

from unbroken.core.http import Head

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class ContentDecoder:
    """No encoding: the bytes as they are. The encodings are its children."""

    changes = False
    """Whether what comes out differs from what goes in."""
    whole = True
    """Whether what was decoded so far may be the whole of it."""

    def decode(self, chunk: bytes) -> bytes:
        """The decoded bytes of the next chunk, as far as they are known.

        Raises:
            zlib.error: bytes that are not so encoded.
        """
        return chunk


class _Gzip(ContentDecoder):
    """RFC 1952: members that follow one another, and perhaps padding."""

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
    """RFC 9110, section 8.4.1.2: zlib's format; some servers leave its header out."""

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
    """An incremental decoder for a response's content encoding, or ``None`` where we cannot decode it (``br``)."""
    decoder = _DECODERS.get(head.fields.get("content-encoding", "").strip().lower())
    return decoder() if decoder else None
