"""The shape of a stream's events: an event is covered only if nothing but its text differs."""

from __future__ import annotations

import json

import pytest

from core.corpus import recordings
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS
from unbroken.core.sse import Blocks
from unbroken.core.template import MAX_LESSONS, Template


def chat(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return b"data: %b\n\n" % json.dumps({"id": "1", "choices": [choice]}).encode()


def learned(block: bytes) -> Template:
    template = Template()
    template.learn(block)
    return template


CHAT = learned(chat("Hello"))


@pytest.mark.parametrize(
    "text", ["", "a", "ü", "a\nb", "a\tb\\c", "[DONE]", "event: error", "finish_reason", "x" * 5000]
)
def test_an_event_that_differs_in_its_text_alone_is_covered(text: str) -> None:
    assert CHAT.covers(chat(text))
    assert CHAT.covers(chat(text) * 3 + chat("a"))


@pytest.mark.parametrize(
    "blocks",
    [
        chat("a", finish_reason="stop"),
        chat("a", index=1),
        chat("a") + chat("", finish_reason="stop"),
        chat("a") + b"data: [DONE]\n\n",
        b"data: [DONE]\n\n",
        b": keep-alive\n\n",
        chat("a")[:-1],
        chat("a")[:-2] + b"\ndata: more\n\n",
        chat("a").replace(b'"a"', b'"a\\"'),  # the quotation mark is escaped: the text goes on
        chat("a").replace(b"a", b'a","finish_reason":"stop'),
        chat("a").replace(b'"a"', b'"a\n\nevent: error\ndata: b"'),
        b'{"error": {}}\n\n' + chat("a"),
    ],
)
def test_any_other_is_not(blocks: bytes) -> None:
    assert not CHAT.covers(blocks)


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"type": "abc"}\n\n',
        b'data: {"content": "abc"\n\n',  # no JSON
        b'data: {"a": "{\\"content\\": \\"abc\\"}"}\n\n',  # in a string of another field
        b'data: {"content": null}\n\n',
        b": content\n\n",
    ],
)
def test_nothing_is_learned_of_an_event_without_text(block: bytes) -> None:
    assert not learned(block).covers(block)


def test_it_gives_up_where_no_shape_lasts() -> None:
    template = Template()
    blocks = [chat("a", index=number) for number in range(MAX_LESSONS + 1)]
    for block in blocks:
        assert not template.covers(block)
        template.learn(block)
    assert template.covers(blocks[-2])
    assert not template.covers(blocks[-1])


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_no_notable_event_of_any_recording_is_covered(dialect: Dialect) -> None:
    covered = 0
    for recording in recordings(dialect.name.replace("-", "_")):
        whole = Blocks().feed(recording.body).split(b"\n\n")
        blocks = list(dict.fromkeys(block + b"\n\n" for block in whole if block))
        plain = [block for block in blocks if not dialect.notable.search(block)]
        for template in map(learned, plain[:20]):
            found = list(filter(template.covers, blocks))
            assert not list(filter(dialect.notable.search, found)), recording.name
            covered += len(found) > 1
    assert covered
