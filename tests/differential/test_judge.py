"""The judge can complain: each way to be wrong, and each way to be right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from differential.judge import complaints
from differential.streams import Case, Found, Read, Stream

DONE = b"data: [DONE]\n\n"


def said(text: str = "", finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def read(*objects: dict[str, Any], error: str | None = None, requests: int = 1) -> Read:
    return Read(tuple(json.dumps(item) for item in objects), error, requests)


A, B, STOP, OTHER = said("a"), said("b"), said(finish="stop"), said("x")
WHOLE, CUT = read(A, B, STOP), read(A)
BROKEN = read(A, error="incomplete")


@pytest.mark.parametrize(
    ("plain", "ours"),
    [
        (WHOLE, WHOLE),
        (CUT, read(A, error="cut")),
        (CUT, read(error="cut", requests=2)),
        (CUT, read(A, B, STOP, requests=2)),
        (BROKEN, read(A, error="cut")),
        (BROKEN, read(A, B, STOP, requests=2)),
        (BROKEN, read(A, STOP)),
    ],
)
def test_what_is_right(plain: Read, ours: Read) -> None:
    assert list(judged(plain, ours)) == []


@pytest.mark.parametrize(
    ("plain", "ours", "complaint"),
    [
        (WHOLE, read(A, B, STOP, error="cut"), "plain reads it whole"),
        (WHOLE, read(A, STOP), "other objects"),
        (WHOLE, read(A, B, STOP, STOP), "other objects"),
        (WHOLE, read(), "other objects"),
        (CUT, CUT, "silent about a cut"),
        (CUT, read(A, B, STOP), "other objects"),
        (CUT, read(OTHER, error="cut"), "other objects"),
        (BROKEN, read(OTHER), "other objects"),
        (BROKEN, read(B, A, error="cut"), "other objects"),
    ],
)
def test_what_is_wrong(plain: Read, ours: Read, complaint: str) -> None:
    told = judged(plain, ours)
    assert [words.partition(":")[0] for words in told] == ["transport", "relay"]
    assert all(complaint in words for words in told)


def test_a_second_answer_may_not_be_half_of_one_either() -> None:
    half = read(A, B)
    case = Case("x", "openai-chat", {}, Stream(()), Stream(()))
    found = Found(read(), read(A, B, requests=2), read(A, error="cut", requests=2))
    assert list(complaints(case, found, half)) == ["transport: silent about a cut of the second answer"]


def judged(plain: Read, ours: Read) -> list[str]:
    stream = Stream((DONE,))
    return list(complaints(Case("x", "openai-chat", {}, stream, stream), Found(plain, ours, ours), WHOLE))
