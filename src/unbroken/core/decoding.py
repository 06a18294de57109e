"""Content decoding, for servers that compress although identity was asked for."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from typing import Any

from unbroken.core.http import Head
from unbroken.errors import DecodeError

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


SLICE = 256 * 1024
"""About how many bytes one step of decoding returns at most: 64 KiB of gzip can hold 64 MiB."""


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
            DecodeError: the bytes are not in this encoding.
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
            try:
                piece = stream.decompress(self._input, SLICE - len(decoded))
            except zlib.error:
                raise DecodeError(_BROKEN) from None
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


class _Brotli(ContentDecoder):
    """A decoder of Brotli (RFC 7932) with Google's ``brotli``."""

    changes = True

    def __init__(self) -> None:
        library: Any = _import("brotli")
        self._stream = library.Decompressor()
        self._error: type[Exception] = library.error
        self._input = b""
        self._begun = False
        if not hasattr(self._stream, "can_accept_more_data"):
            raise ImportError("brotli before 1.2 cannot limit its output")

    def decode(self, chunk: bytes) -> bytes:
        self._input += chunk
        self._begun = self._begun or bool(chunk)
        decoded = bytearray()
        while len(decoded) < SLICE and self._begun and not self._stream.is_finished():
            given = b""
            if self._stream.can_accept_more_data():
                given, self._input = self._input, b""
            piece = self._process(given)
            decoded += piece
            self.whole = self._stream.is_finished()
            if not piece and not self._input:  # only then has it nothing more to say
                break
        self.has_more = len(decoded) >= SLICE
        return bytes(decoded)

    def _process(self, given: bytes) -> bytes:
        try:
            piece: bytes = self._stream.process(given, output_buffer_limit=SLICE // 8)
        except self._error:
            raise DecodeError(_BROKEN) from None
        return piece


class _Zstandard(ContentDecoder):
    """A decoder of Zstandard (RFC 8878): one or more frames."""

    changes = True

    def __init__(self) -> None:
        library: Any = _import("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
        self._make: Callable[[], Any] = library.ZstdDecompressor
        self._error: type[Exception] = library.ZstdError
        self._stream = self._make()
        self._input = b""

    def decode(self, chunk: bytes) -> bytes:
        self._input += chunk
        decoded = bytearray()
        while len(decoded) < SLICE:
            if self._stream.eof:
                self._input, self._stream = self._stream.unused_data + self._input, self._make()
            given, self._input = (self._input, b"") if self._stream.needs_input else (b"", self._input)
            if self._stream.needs_input and not given:
                break
            try:
                decoded += self._stream.decompress(given, SLICE - len(decoded))
            except self._error:
                raise DecodeError(_BROKEN) from None
            self.whole = self._stream.eof
        self.has_more = len(decoded) == SLICE
        return bytes(decoded)


_BROKEN = "the content encoding is broken"

_DECODERS: dict[str, Callable[[], ContentDecoder]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstandard,
}

_UNSUPPORTED = frozenset(
    {"compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "aes128gcm"}  # IANA, "HTTP Content Coding Registry"
    | {"lzma", "xz", "x-xz", "bzip2", "x-bzip2", "lz4", "snappy"}
)
"""Encodings that change the bytes and cannot be decoded. Any other unknown name (``none``, ``utf-8``) changes none."""


class UnsupportedEncoding(Exception):
    """A body is in an encoding that cannot be decoded here; the message says why and what helps."""


def decoder_for(head: Head) -> ContentDecoder:
    """Return an incremental decoder for a response's content encoding (RFC 9110, section 8.4).

    Raises:
        UnsupportedEncoding: the encoding cannot be decoded, or its library is not installed.
    """
    changing = _changing(head)
    if not changing:
        return ContentDecoder()
    if len(changing) > 1 or changing[0] in _UNSUPPORTED:
        raise UnsupportedEncoding(f"its content encoding is {', '.join(changing)}, which cannot be decoded")
    try:
        return _DECODERS[changing[0]]()
    except ImportError:
        raise UnsupportedEncoding(
            f"its content encoding is {changing[0]}, although identity was asked for;"
            " to decode it: pip install 'unbroken[compression]'"
        ) from None


def _changing(head: Head) -> list[str]:
    """Return those of a body's encodings that change its bytes; ``none`` and its like do not."""
    names = (name.strip().lower() for name in head.fields.get("content-encoding", "").split(","))
    return [name for name in names if name in _DECODERS or name in _UNSUPPORTED]


def _import(name: str) -> Any:
    """Import an optional library only if a body needs it."""
    return importlib.import_module(name)
