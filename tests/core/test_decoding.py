"""Servers that compress although identity was asked for."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.decoding import ContentDecoder, decoder_for
from unbroken.core.http import Head

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
    "identity": ("identity", bytes),
    "none": ("", bytes),
}


def decoder(encoding: str) -> ContentDecoder:
    found = decoder_for(Head(200, ((b"Content-Encoding", encoding.encode()),)))
    assert found is not None
    return found


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
    assert found is not None
    assert not found.changes
    assert found.decode(b"as it is") == b"as it is"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "unknown"])
def test_what_cannot_be_decoded(encoding: str) -> None:
    assert decoder_for(Head(200, ((b"content-encoding", encoding.encode()),))) is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(st.binary(min_size=4))
def test_what_is_not_so_encoded_is_one_kind_of_error(encoding: str, data: bytes) -> None:
    found = decoder(encoding)
    with contextlib.suppress(zlib.error):
        found.decode(data)
