"""Every rule of the WHATWG's event streams: each case whole, byte by byte, at every split, and with more to come."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.core.sse import Blocks, Event, Parser, comment, encode
from unbroken.errors import EventTooLarge

BOM = b"\xef\xbb\xbf"

CASES: dict[str, tuple[bytes, list[Event]]] = {
    # https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    "the specification's stock ticker": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [Event(b"YHOO\n+2\n10")],
    ),
    "the specification's four blocks: comment, id, empty id, leading space": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [Event(b"first event", id="1"), Event(b"second event", id=""), Event(b" third event", id="")],
    ),
    "the specification's empty data: one, two, and one that never ends": (
        b"data\n\ndata\ndata\n\ndata:",
        [Event(b""), Event(b"\n")],
    ),
    "the specification's optional space": (b"data:test\n\ndata: test\n\n", [Event(b"test"), Event(b"test")]),
    # line ends
    "LF": (b"event: a\ndata: 1\n\n", [Event(b"1", "a")]),
    "CR": (b"event: a\rdata: 1\r\rdata: 2\r\r", [Event(b"1", "a"), Event(b"2")]),
    "CRLF": (b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [Event(b"1", "a"), Event(b"2")]),
    "mixed": (b"data: 1\r\n\ndata: 2\n\rdata: 3\r\r\n", [Event(b"1"), Event(b"2"), Event(b"3")]),
    "CRLF is one line end, so no blank line": (b"data: 1\r\ndata: 2\r\n\r\n", [Event(b"1\n2")]),
    "other separators are text": (
        "data: a\x0bb\x0cc\x85d\u2028e\u2029f\n\n".encode(),
        [Event("a\x0bb\x0cc\x85d\u2028e\u2029f".encode())],
    ),
    # the byte order mark
    "a byte order mark at the start is dropped": (BOM + b"data: 1\n\n", [Event(b"1")]),
    "only one": (BOM + BOM + b"data: 1\n\ndata: 2\n\n", [Event(b"2")]),
    "and only at the start": (b"data: 1\n\n" + BOM + b"data: 2\n\n", [Event(b"1")]),
    "the beginning of one is none": (b"\xef\xbbdata: 1\n\ndata: 2\n\n", [Event(b"2")]),
    # fields
    "comments": (b": hello\n:\n\ndata: 1\n: between\ndata: 2\n\n", [Event(b"1\n2")]),
    "event": (b"event: delta\ndata: 1\n\n", [Event(b"1", "delta")]),
    "the last event wins, an empty one is a message": (b"event: a\nevent:\ndata: 1\n\n", [Event(b"1")]),
    "the event's name is forgotten with its block": (b"event: a\n\ndata: 1\n\n", [Event(b"1")]),
    "retry in digits": (b"retry: 1500\ndata: 1\n\n", [Event(b"1", retry=1500)]),
    "retry in anything else is ignored": (
        b"retry: 1.5\nretry: -1\nretry: +1\nretry:  7\nretry: 1e3\nretry:\nretry: \xd9\xa3\ndata: 1\n\n",
        [Event(b"1")],
    ),
    "retry beyond all reason is ignored": (b"retry: " + b"9" * 5000 + b"\ndata: 1\n\n", [Event(b"1")]),
    "id": (b"id: a b\ndata: 1\n\n", [Event(b"1", id="a b")]),
    "an id without data is that of the next event, and of every later one": (
        b"id: 7\n\ndata: 1\n\ndata: 2\n\nid\n\ndata: 3\n\n",
        [Event(b"1", id="7"), Event(b"2", id="7"), Event(b"3", id="")],
    ),
    "id with NUL is ignored": (b"id: a\nid: b\0c\ndata: 1\n\n", [Event(b"1", id="a")]),
    "unknown fields, wrong case, blanks in the name": (
        b"Data: 1\ndata : 2\n data: 3\nfoo: 4\nerror: {}\ndata: 5\n\n",
        [Event(b"5")],
    ),
    "a line without a colon is a field without a value": (b"data\nevent\ndata: 1\n\n", [Event(b"\n1")]),
    "colons in the value": (b'data: {"a": "b: c"}\n\n', [Event(b'{"a": "b: c"}')]),
    # dispatching
    "a block without data is no event": (b"event: a\nid: 1\nretry: 5\n\n", []),
    "data with an empty value is one": (b"data:\n\n", [Event(b"")]),
    "blank lines before, between and after": (b"\n\n\ndata: 1\n\n\n\ndata: 2\n\n\n", [Event(b"1"), Event(b"2")]),
    "an unfinished block at the end is no event": (b"data: 1\n\ndata: 2\n", [Event(b"1")]),
    "nor is an unfinished line": (b"data: 1\n\ndata: [DO", [Event(b"1")]),
    "nothing at all": (b"", []),
    # UTF-8
    "any UTF-8": ("data: Zürich 😀\n\n".encode(), [Event("Zürich 😀".encode())]),
    "invalid UTF-8 in names of events and in ids is replaced": (
        b"event: \xff\nid: \xc3\ndata: 1\n\n",
        [Event(b"1", "\ufffd", "\ufffd")],
    ),
}


def events(pieces: Iterable[bytes]) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def bytewise(stream: bytes) -> Iterator[bytes]:
    return (stream[i : i + 1] for i in range(len(stream)))


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES)
class TestEveryRule:
    def test_fed_whole(self, stream: bytes, expected: list[Event]) -> None:
        assert events([stream]) == expected

    def test_fed_byte_by_byte(self, stream: bytes, expected: list[Event]) -> None:
        assert events(bytewise(stream)) == expected

    def test_fed_in_two_pieces_and_nothing_between(self, stream: bytes, expected: list[Event]) -> None:
        for split in range(min(len(stream), 200) + 1):
            assert events([stream[:split], b"", stream[split:]]) == expected, split

    def test_with_the_beginning_of_another_event_behind(self, stream: bytes, expected: list[Event]) -> None:
        whole = stream + b"\n\n" if expected else b": " + stream + b"\n\n"
        known = events([whole])
        assert events([whole + b"data: unfinished"]) == known
        assert events(bytewise(whole + b"data: unfinished")) == known


def test_invalid_utf8_in_data_is_kept_as_bytes_and_replaced_in_the_text() -> None:
    [event] = events([b"data: Z\xc3rich \xff\n\n"])
    assert event.data == b"Z\xc3rich \xff"
    assert event.text == "Z\ufffdrich \ufffd"


def test_an_event_is_there_with_the_first_byte_of_its_blank_line_that_proves_it() -> None:
    parser = Parser()
    assert list(parser.feed(b"data: 1\r\n\r")) == [Event(b"1")]  # the LF that may follow is of the same line end
    assert list(parser.feed(b"\ndata: 2\n\n")) == [Event(b"2")]


# The cap


def read_all(parser: Parser, chunk: bytes) -> list[Event | EventTooLarge]:
    """Everything that a chunk brings, errors included."""
    found: list[Event | EventTooLarge] = []
    try:
        iterator = parser.feed(chunk)
    except EventTooLarge as exc:
        return [exc]
    while True:
        try:
            if (event := next(iterator, None)) is None:
                return found
            found.append(event)
        except EventTooLarge as exc:
            found.append(exc)


class TestCap:
    STREAM = b"data: ok\n\n" + b"data: " + b"x" * 60 + b"\n\n" + b"data: fine\n\n"

    @pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
    def test_an_event_over_the_cap_is_an_error_and_reading_resumes_at_the_next(self, size: int) -> None:
        parser = Parser(max_event=40)
        pieces = [self.STREAM[i : i + size] for i in range(0, len(self.STREAM), size)]
        found = [item for piece in pieces for item in read_all(parser, piece)]
        assert [type(item) for item in found] == [Event, EventTooLarge, Event]
        assert [item.data for item in found if isinstance(item, Event)] == [b"ok", b"fine"]

    def test_the_error_is_clear(self) -> None:
        with pytest.raises(EventTooLarge, match="grew over 40 bytes") as caught:
            Parser(max_event=40).feed(b"data: " + b"x" * 60)
        assert caught.value.limit == 40

    @pytest.mark.parametrize("feed", [lambda stream: [stream], bytewise], ids=["whole", "bytewise"])
    def test_an_event_at_the_cap_passes_whichever_way_it_comes(self, feed: object) -> None:
        stream = b"data: " + b"x" * 33 + b"\n\n"  # 40 bytes without the blank line
        parser = Parser(max_event=40)
        pieces = feed(stream)  # type: ignore[operator]
        assert [event.data for piece in pieces for event in parser.feed(piece)] == [b"x" * 33]
        parser = Parser(max_event=39)
        found = [item for piece in feed(stream) for item in read_all(parser, piece)]  # type: ignore[operator]
        assert [type(item) for item in found] == [EventTooLarge]

    def test_nothing_is_held_of_what_is_skipped(self) -> None:
        blocks = Blocks(max_event=40)
        with pytest.raises(EventTooLarge):
            blocks.feed(b"x" * 41)
        for _ in range(100):
            assert blocks.feed(b"y" * 1000) == b""
        assert len(blocks.unfinished) == 1
        assert blocks.feed(b"\n\ndata: 1\n\n") == b"data: 1\n\n"


# The raw bytes


@given(st.lists(st.binary(max_size=40)))
def test_take_returns_exactly_the_bytes_fed(pieces: list[bytes]) -> None:
    parser = Parser(keep_raw=True)
    for piece in pieces:
        list(parser.feed(piece))
    assert parser.held == sum(map(len, pieces))
    assert parser.take() == b"".join(pieces)
    assert parser.take() == b""
    parser.feed(b"data: later")
    assert (parser.held, parser.take()) == (0, b"")


def test_without_keep_raw_nothing_is_held_beyond_an_unfinished_event() -> None:
    parser = Parser()
    list(parser.feed(b"data: 1\n\ndata: 2"))
    assert parser.held == 0
    assert parser.blocks.unfinished == b"data: 2"


# The encoder

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))
ID = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))


@given(st.text(st.characters(codec="utf-8")), LINE, st.none() | ID, st.none() | st.integers(0, 10**17))
def test_what_is_encoded_is_read_back(data: str, event: str, id: str | None, retry: int | None) -> None:
    lines = data.replace("\r\n", "\n").replace("\r", "\n")  # line ends become LF, as the format demands
    [found] = events([encode(data, event=event, id=id, retry=retry)])
    assert (found.text, found.type, found.id, found.retry) == (lines, event or "message", id, retry)


@given(LINE)
def test_a_comment_is_no_event(text: str) -> None:
    assert events([comment(text), encode("1")]) == [Event(b"1")]


@pytest.mark.parametrize("breaking", ["a\nb", "a\rb", "a\r\ndata: forged"])
def test_nothing_can_be_forged_by_line_breaks(breaking: str) -> None:
    for forging in (lambda: encode("", event=breaking), lambda: encode("", id=breaking), lambda: comment(breaking)):
        with pytest.raises(ValueError, match="cannot contain"):
            forging()
    with pytest.raises(ValueError, match="NUL"):
        encode("", id="a\0b")
    assert events([encode(breaking)])[0].data.count(b"\n") == 1  # in data they are data


# The specification, word for word


def reference(stream: bytes) -> list[Event]:
    """WHATWG HTML 9.2.6, naively: decode, split into lines, interpret each.

    Bytes are mapped to code points one to one, so that data stay bytes; none of the rules looks beyond ASCII.
    """
    text = stream.removeprefix(BOM).decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
    dispatched: list[Event] = []
    data = event_type = ""
    event_id: str | None = None  # the last event ID buffer, which is not reset
    retry: int | None = None
    for line in text.split("\n")[:-1]:  # what follows the last line end is an unfinished line
        if line == "":
            if data:
                decoded = event_type.encode("latin-1").decode("utf-8", "replace")
                dispatched.append(Event(data[:-1].encode("latin-1"), decoded or "message", event_id, retry))
            data, event_type, retry = "", "", None
            continue
        if line.startswith(":"):
            continue
        field, colon, value = line.partition(":")
        value = value[1:] if colon and value.startswith(" ") else value
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            event_id = value.encode("latin-1").decode("utf-8", "replace")
        elif field == "retry" and value and set(value) <= set("0123456789"):
            retry = int(value)
    return dispatched


PIECES = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"7", b"x", BOM, b"\xff"]
)


@given(st.lists(PIECES | st.binary(max_size=4)).map(b"".join), st.lists(st.integers(0, 60)))
def test_the_parser_is_the_specification(stream: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    assert events(pieces) == reference(stream)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_the_tail_is_the_end_of_what_is_unfinished(size: int) -> None:
    blocks = Blocks()
    blocks.feed(b"data: 1\n\ndata: 2")
    assert blocks.tail(size) == blocks.unfinished[-size:]


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"event: x\n", b"id: 7\n", b": c\n"]), st.booleans()), min_size=2),
    st.lists(st.integers(0, 300)),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_blank_lines_may_be_missing_between_documents_however_they_are_split(
    written: list[tuple[bytes, bool]], cuts: list[int], line_end: bytes
) -> None:
    documents = [b'{"number": %d}' % number for number in range(len(written))]
    lines = [
        before + b"data: " + document + (b"\n" if is_missing else b"\n\n")
        for document, (before, is_missing) in zip(documents, written, strict=True)
    ]
    stream = (b"".join(lines) + b"\n").replace(b"\n", line_end)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert [event.data for event in events([stream[a:b] for a, b in itertools.pairwise(bounds)])] == documents
