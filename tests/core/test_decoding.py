"""Servers that compress although identity was asked for."""

from __future__ import annotations

import contextlib
import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core import decoding
from unbroken.core.decoding import SLICE, ContentDecoder, UnsupportedEncoding, decoder_for
from unbroken.core.http import Head
from unbroken.errors import DecodeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"data: one\n\ndata: two\n\n" * 50


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def flushed_gzip(pieces: list[bytes]) -> list[bytes]:
    """As a streaming server compresses: each piece can be decoded as soon as it has come."""
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    sent = [compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*sent, compressor.flush()]


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "gzip in two members": ("gzip", lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:])),
    "gzip with padding": ("gzip", lambda data: gzip.compress(data) + bytes(10)),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd in two frames": ("ZSTD", lambda data: zstd.compress(data[:30]) + zstd.compress(data[30:])),
    "gzip beside names that are no encoding": ("none, gzip", gzip.compress),
    "identity": ("identity", bytes),
    "no name": ("", bytes),
    "the name of no encoding": ("none", bytes),
    "a character set": ("utf-8", bytes),
    "a word": ("binary, text", bytes),
}


def decoder(encoding: str) -> ContentDecoder:
    return decoder_for(Head(200, ((b"Content-Encoding", encoding.encode()),)))


@pytest.mark.parametrize(("encoding", "encode"), ENCODINGS.values(), ids=ENCODINGS)
class TestEncodings:
    def test_whole(self, encoding: str, encode: Callable[[bytes], bytes]) -> None:
        found = decoder(encoding)
        assert found.decode(encode(TEXT)) == TEXT
        assert found.whole

    def test_byte_by_byte(self, encoding: str, encode: Callable[[bytes], bytes]) -> None:
        found = decoder(encoding)
        assert b"".join(found.decode(bytes([byte])) for byte in encode(TEXT)) == TEXT
        assert found.whole

    def test_an_empty_body_is_whole(self, encoding: str, encode: Callable[[bytes], bytes]) -> None:
        found = decoder(encoding)
        assert found.decode(b"") == b""
        assert found.whole

    def test_whether_it_is_cut_is_known(self, encoding: str, encode: Callable[[bytes], bytes]) -> None:
        found = decoder(encoding)
        assert TEXT.startswith(found.decode(encode(TEXT)[:20]))
        assert found.whole is not found.changes


def test_each_piece_is_decoded_as_it_comes() -> None:
    pieces = [b"data: one\n\n", b"data: two\n\n"]
    found = decoder("gzip")
    decoded = [found.decode(sent) for sent in flushed_gzip(pieces)]
    assert decoded == [*pieces, b""]


def test_no_header_means_no_encoding() -> None:
    found = decoder_for(Head(200))
    assert not found.changes
    assert found.decode(b"as it is") == b"as it is"


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "xz"])
def test_what_cannot_be_decoded_is_named(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match=encoding):
        decoder(encoding)


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_without_its_library_the_extra_is_named(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(decoding.importlib, "import_module", missing)
    with pytest.raises(UnsupportedEncoding, match=rf"{encoding}.*pip install 'unbroken\[compression\]'"):
        decoder(encoding)


@pytest.mark.parametrize("encode", [brotli.compress, zstd.compress, gzip.compress], ids=["br", "zstd", "gzip"])
def test_a_bomb_is_decoded_a_slice_at_a_time(encode: Callable[[bytes], bytes]) -> None:
    size = 40 * SLICE
    found = decoder({brotli.compress: "br", zstd.compress: "zstd"}.get(encode, "gzip"))
    slices = [found.decode(encode(bytes(size)))]
    while found.has_more:
        slices.append(found.decode(b""))
    assert sum(map(len, slices)) == size
    assert max(map(len, slices)) <= 2 * SLICE
    assert found.whole


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@given(st.binary(min_size=4))
def test_what_is_not_so_encoded_is_one_kind_of_error(encoding: str, data: bytes) -> None:
    found = decoder(encoding)
    with contextlib.suppress(DecodeError):
        found.decode(data)
