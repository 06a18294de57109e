"""Content decoding, for servers that compress although identity was asked for."""

from __future__ import annotations

import zlib

from unbroken.core.http import Head

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


SLICE = 256 * 1024
"""How many bytes one step of decoding returns at most: 64 KiB of gzip can hold 64 MiB."""


class ContentDecoder:
    """A decoder that leaves the bytes as they are; base class of the others."""

    changes = False
    """Whether decoding changes the bytes."""
    whole = True
    """Whether the body may end here."""
    has_more = False
    """Whether ``decode(b"")`` may return further bytes of the input that it has."""

    def decode(self, chunk: bytes) -> bytes:
        """Take the next input, and return the next decoded bytes, at most :data:`SLICE` of them.

        Raises:
            zlib.error: the bytes are not in this encoding.
        """
        return chunk


class _Inflating(ContentDecoder):
    """Base of the decoders on zlib: decodes a slice at a time, and keeps the input of the next ones."""

    changes = True

    def __init__(self) -> None:
        self._input = b""
        self._stream: zlib._Decompress | None = None

    def decode(self, chunk: bytes) -> bytes:
        self._input += chunk
        decoded = bytearray()
        while len(decoded) < SLICE and (stream := self._next_stream()):
            piece = stream.decompress(self._input, SLICE - len(decoded))
            self._input = stream.unused_data if stream.eof else stream.unconsumed_tail
            self.whole = stream.eof
            decoded += piece
            if not piece and not self._input:
                break
        self.has_more = len(decoded) == SLICE
        return bytes(decoded)

    def _next_stream(self) -> zlib._Decompress | None:
        """Return the stream that decodes the next input, ``None`` if there is nothing to decode."""
        raise NotImplementedError


class _Gzip(_Inflating):
    """A gzip decoder: one or more members (RFC 1952, section 2.2), optionally padded with zeros."""

    def _next_stream(self) -> zlib._Decompress | None:
        if self._stream is None or self._stream.eof:
            if self._stream:
                self._input = self._input.lstrip(b"\0")
            if not self._input:
                return None
            self._stream = zlib.decompressobj(_GZIP)
        return self._stream


class _Deflate(_Inflating):
    """A deflate decoder: zlib's format (RFC 9110, section 8.4.1.2); some servers omit its header."""

    def _next_stream(self) -> zlib._Decompress | None:
        if self._stream is None and self._input:
            is_zlib = self._input[0] & 0x0F == zlib.DEFLATED
            self._stream = zlib.decompressobj(_ZLIB if is_zlib else _RAW_DEFLATE)
        return None if self._stream is None or self._stream.eof else self._stream


_DECODERS = {"": ContentDecoder, "identity": ContentDecoder, "gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}


def decoder_for(head: Head) -> ContentDecoder | None:
    """Return an incremental decoder for a response's content encoding, or ``None`` if unsupported (``br``)."""
    decoder = _DECODERS.get(head.fields.get("content-encoding", "").strip().lower())
    return decoder() if decoder else None
