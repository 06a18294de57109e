"""Bodies that are compressed although nobody asked for it, on sockets, through every face."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd

from core.corpus import recordings
from differential.streams import EVENT_STREAM, Stream
from servers.conftest import Asking
from unbroken.errors import StreamCut, UnexpectedResponse

WHOLE, HALF = (
    next(item for item in recordings("openai_chat") if item.name == name) for name in ("coding-none", "coding-none-cut")
)
REQUEST = json.loads(WHOLE.facts["request"])


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's header": ("Deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "beside one that is none": ("none, gzip", gzip.compress),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_whole_answer(asking: Asking, coding: str, size: int) -> None:
    name, compress = CODINGS[coding]
    body = compress(WHOLE.body)
    pieces = tuple(body[at : at + size] for at in range(0, len(body), size))
    said, requests = asking("openai-chat", REQUEST, Stream(pieces, {**EVENT_STREAM, "content-encoding": name}))
    assert said.error is None
    assert len(requests) == 1
    assert said.data == WHOLE.body if said.answer is None else said.answer.text == WHOLE.expect["text"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("whole", [True, False], ids=["compressed whole", "compressed half"])
def test_half_an_answer(asking: Asking, coding: str, whole: bool) -> None:
    name, compress = CODINGS[coding]
    body = compress(HALF.body) if whole else compress(WHOLE.body)[: len(compress(WHOLE.body)) // 2]
    said, _ = asking("openai-chat", REQUEST, Stream((body,), {**EVENT_STREAM, "content-encoding": name}))
    if said.answer is None:
        assert said.error is not None or said.status == 502
    else:
        assert isinstance(said.error, StreamCut)


@pytest.mark.parametrize("coding", ["compress", "bzip2", "gzip, br", "dcb"])
def test_one_that_cannot_be_decoded_is_named_before_anything_is_handed_on(asking: Asking, coding: str) -> None:
    said, requests = asking(
        "openai-chat", REQUEST, Stream((b"\x1f\x9d\x90",), {**EVENT_STREAM, "content-encoding": coding})
    )
    assert len(requests) == 1
    if said.answer is not None:
        assert isinstance(said.error, UnexpectedResponse)
        assert coding in str(said.error)
    elif said.error is not None:
        assert coding in str(said.error)
        assert said.data == b""
    else:
        assert said.status == 502
        assert coding.encode() in (said.data or b"")
