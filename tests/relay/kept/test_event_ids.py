"""Positions as ids of events."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from unbroken.core.sse import Parser
from unbroken.relay.kept.event_ids import EventIds


def with_ids(*pieces: bytes, position: int = 0) -> bytes:
    ids = EventIds(position)
    return b"".join(map(ids.feed, pieces)) + ids.end()


def test_each_event_has_its_position() -> None:
    assert with_ids(b"data: a\n\nevent: x\ndata: b\n\n") == b"data: a\nid: 9\n\nevent: x\ndata: b\nid: 27\n\n"
    assert with_ids(b"data: a\n\n", position=100) == b"data: a\nid: 109\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_every_end_of_a_line_counts(end: bytes) -> None:
    stream = end.join([b"data: a", b"", b"data: b", b"", b""])
    first, second = len(b"data: a") + 2 * len(end), len(stream)
    expected = b"data: a\nid: %d\n\ndata: b\nid: %d\n\n" % (first, second)
    assert with_ids(stream) == expected


def test_ids_and_comments_of_the_upstream_are_replaced() -> None:
    stream = b": hello\nid: 7\ndata: a\n\n: keep-alive\n\nid\n\nidea: 1\n\n"
    at = stream.index(b"\n\n") + 2
    assert with_ids(stream) == b": unbroken\ndata: a\nid: %d\n\n: unbroken\nidea: 1\nid: %d\n\n" % (at, len(stream))


def test_a_long_line_is_not_held() -> None:
    ids = EventIds()
    sent = ids.feed(b"data: " + b"x" * 100_000)
    assert len(sent) > 90_000
    assert ids.feed(b"yyy") == b"yyy"
    assert ids.feed(b"z\n\n") == b"z\nid: 100012\n\n"


LINES = [b"data: a\n", b"data: b\r\n", b"\n", b"\r\n", b": c\n", b"id: 1\n", b"event: e\n", b"x" * 9 + b"\n"]
EVENTS = st.lists(st.sampled_from(LINES))


@hypothesis.given(EVENTS, st.data())
def test_the_pieces_in_which_it_comes_make_no_difference(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = with_ids(stream)
    assert with_ids(*pieces) == whole
    assert [event.data for event in Parser().feed(whole)] == [event.data for event in Parser().feed(stream)]
