"""Server-sent events: an incremental reader and an encoder.

Source: WHATWG HTML, section 9.2 "Server-sent events" (parsing and interpreting an event stream).

Reading has two layers. :class:`Blocks` only finds where events end, which is a copy and a search; most blocks after the
first output need no more. :func:`parse` turns whole blocks into :class:`Event` objects. :class:`Parser` combines both.

Servers of models depart from the format, and so does the reader, in two places where the specification reads nothing of
use: blank lines may be missing between events whose data are JSON documents (:class:`Blocks`), and a JSON document may
come without ``data:`` (:attr:`Event.is_bare`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from unbroken.core.payload import is_document, is_done
from unbroken.errors import EventTooLarge

MAX_EVENT = 16 * 1024 * 1024
"""Default cap of one event, in bytes."""

BOM = b"\xef\xbb\xbf"
"""A byte order mark, with which a stream may begin."""

_BARE = ""  # a type that no event of the format can have

_KEEPALIVE = re.compile(rb"\s*(?::.*|\W*(?:ping|keep[-_ ]?alive|heart[-_ ]?beat)\W*)?", re.I | re.S)

_DOCUMENT_GOES_ON = re.compile(rb"\}[ \t]*\n[dei:]")
"""Matches where another line of a block (``data``, ``event``, ``id``, a comment) follows the end of a JSON object."""
_DATA_LINE = b"\ndata:"
_MAX_DIGITS = 18  # for ``retry``: a longer time is nonsense, and Python refuses to parse very long integers


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    Attributes:
        data: the ``data`` fields joined by LF, as bytes; :attr:`text` decodes them.
        type: the ``event`` field, ``"message"`` if it is missing.
        id: the last ``id`` field of the stream so far, in this block or before it, ``None`` before the first.
        retry: the ``retry`` field in milliseconds, ``None`` if it is missing.
    """

    data: bytes
    type: str = "message"
    id: str | None = None
    retry: int | None = None

    @property
    def text(self) -> str:
        """The data as text; invalid UTF-8 becomes U+FFFD, as the specification asks."""
        return self.data.decode("utf-8", "replace")

    @property
    def is_bare(self) -> bool:
        """Whether this is a JSON document without ``data:``, as some servers report an error inside a stream."""
        return self.type == _BARE

    @property
    def is_keepalive(self) -> bool:
        """Whether the data carry nothing: they are empty, the word of a ping, or a comment that is sent as data."""
        return not self.data or (not self.data.startswith(b"{") and _KEEPALIVE.fullmatch(self.data) is not None)


class Blocks:
    """A splitter of a byte stream into whole blocks (an event and the blank line that ends it).

    Line ends may be LF, CR or CRLF, mixed, and may be split over chunks; the blocks have LF only. A leading byte order
    mark is dropped. Once a block was seen that goes on with another ``data`` line behind a JSON document, blank lines
    are missing: from there each ``data`` line that is a document ends an event, and gets the blank line that it lacks.

    Args:
        max_event: cap of one block, in bytes.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._pending = bytearray()
        self._at_start = True
        self._after_cr = False
        self._skipping = False
        self._lacks_blank_lines = False
        self._document_end = 0  # of the document in the unfinished block that other lines follow; 0 without one

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the blocks that are now whole, joined, possibly ``b""``.

        Raises:
            EventTooLarge: a block exceeds the cap. It is dropped; feeding may go on and resumes at the next block.
        """
        if self._at_start and not (chunk := self._without_bom(chunk)):
            return b""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        pending, is_suspect = self._pending, self._lacks_blank_lines or self._document_end
        is_whole = chunk.endswith(b"\n\n") and not (pending or is_suspect or self._skipping)
        if is_whole and not _DOCUMENT_GOES_ON.search(chunk):
            return chunk  # whole blocks behind whole blocks, as nearly always: no copy
        searched = max(len(pending) - 1, 0)
        pending += chunk
        blank_line = pending.rfind(b"\n\n", searched)
        end = blank_line + 2 if blank_line >= 0 else 0
        if is_suspect or _DOCUMENT_GOES_ON.search(pending, max(0, searched - 8)):
            end = self._end_without_blank_line(end, searched)
        if not end:
            self._guard()
            return b""
        whole = bytes(memoryview(pending)[:end])
        del pending[:end]
        if self._lacks_blank_lines:
            whole = _separated(whole)
        if self._skipping:
            self._skipping = False
            whole = whole[whole.index(b"\n\n") + 2 :]
        return whole

    @property
    def has_unfinished(self) -> bool:
        """Whether the beginning of a block has come that is not whole yet."""
        return bool(self._pending)

    @property
    def unfinished(self) -> bytes:
        """The beginning of a block that is not whole yet."""
        return bytes(self._pending)

    def rest(self) -> bytes:
        """Return the last block if it only lacks its blank line: its data are a whole document; else ``b""``."""
        lines = self.unfinished.strip(b"\n").split(b"\n")
        data = b"\n".join(line.removeprefix(b"data:") for line in lines if line.startswith(b"data:"))
        document = (data or b"\n".join(lines)).strip()
        whole = is_done(document) or (document[:1] in (b"{", b"[") and is_document(document))
        return b"\n".join(lines) if whole and not self._skipping else b""

    def tail(self, size: int) -> bytes:
        """Return the last ``size`` bytes of :attr:`unfinished`, without copying the rest."""
        return bytes(self._pending[-size:])

    def _end_without_blank_line(self, end: int, searched: int) -> int:
        """Return where the last whole event ends: at ``end``, or behind a later document if blank lines are missing."""
        pending, since = self._pending, max(end, searched)
        if not self._lacks_blank_lines:
            self._lacks_blank_lines, since = self._misses_blank_line(end, searched), end
        line_end = pending.rfind(b"\n", since) if self._lacks_blank_lines else -1
        while line_end >= 0:
            line_start = pending.rfind(b"\n", 0, line_end) + 1
            if is_whole_event(bytes(pending[line_start:line_end])):
                return line_end + 1
            line_end = pending.rfind(b"\n", since, line_end)
        return end

    def _misses_blank_line(self, end: int, searched: int) -> bool:
        """Return whether in a block a ``data`` line follows one that is a document. Each document is read once."""
        pending = self._pending
        if self._document_end and not end:
            return pending.find(_DATA_LINE, max(self._document_end, searched - len(_DATA_LINE))) >= 0
        self._document_end = 0
        blocks = bytes(pending[:end]).split(b"\n\n")
        if any((stop := _end_of_document(block, 0)) and block.find(_DATA_LINE, stop) >= 0 for block in blocks):
            return True
        stop = _end_of_document(pending, end)
        self._document_end = max(0, stop - end)
        return stop > 0 and pending.find(_DATA_LINE, stop) >= 0

    def _guard(self) -> None:
        if self._skipping:
            del self._pending[:-1]  # the last byte may be the first half of the blank line
        elif len(self._pending) > self._max_event:
            self._skipping, self._document_end = True, 0
            del self._pending[:-1]
            raise EventTooLarge(self._max_event)

    def _without_bom(self, chunk: bytes) -> bytes:
        """Drop a leading byte order mark; hold back the first bytes while they may still become one."""
        head = bytes(self._pending) + chunk
        self._pending.clear()
        if len(head) < len(BOM) and BOM.startswith(head):
            self._pending += head
            return b""
        self._at_start = False
        return head.removeprefix(BOM)

    def _with_lf(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF whose CR has already ended its line
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _end_of_document(buffer: bytes | bytearray, start: int) -> int:
    """Return where the first ``data`` line of a block, which begins at ``start``, ends if it is a document; else 0."""
    first = start if buffer.startswith(b"data:", start) else buffer.find(_DATA_LINE, start) + 1
    stop = buffer.find(b"\n", first) if first or start == 0 else -1
    return stop if stop > 0 and is_whole_event(bytes(buffer[first:stop])) else 0


def is_whole_event(line: bytes) -> bool:
    """Return whether a line is an event by itself: ``data`` and a JSON document or a terminator."""
    data = line.removeprefix(b"data:").strip()
    return line.startswith(b"data:") and (is_done(data) or (data[:1] in (b"{", b"[") and is_document(data)))


def _separated(blocks: bytes) -> bytes:
    """Add a blank line after each line that is a whole event."""
    lines = (line + b"\n" if is_whole_event(line) else line for line in blocks.split(b"\n"))
    return b"\n".join(lines)


class _Ids:
    """The last id of a stream, which every later event inherits (WHATWG HTML, "last event ID buffer")."""

    def __init__(self) -> None:
        self.last: str | None = None


def begins_as_events(body: bytes | bytearray) -> bool | None:
    """Return whether a body begins as an event stream begins: with a field or a comment, perhaps after blank lines.

    Returns:
        ``None`` if that cannot be told yet.
    """
    start = bytes(body[: _MAX_BLANK + 16]).removeprefix(BOM).lstrip(b"\r\n")
    if not start or BOM.startswith(start):
        return None if len(body) <= _MAX_BLANK else False
    line, ended, _ = start.replace(b"\r", b"\n").partition(b"\n")
    name, colon, _ = line.partition(b":")
    if colon or ended:
        return name in _FIELDS
    return None if any(field.startswith(name) for field in _FIELDS) else False


_FIELDS = (b"", b"data", b"event", b"id", b"retry")
_MAX_BLANK = 4096  # blank lines at the start of a body of another media type


def parse(blocks: bytes, max_event: int = MAX_EVENT, ids: _Ids | None = None) -> Iterator[Event]:
    """Return the events of whole blocks, as :meth:`Blocks.feed` returns them. Comments and empty blocks give none.

    Raises:
        EventTooLarge: from the iterator, for a block over the cap. It is dropped; iterating may go on after it.
    """
    ids = ids or _Ids()
    if blocks.startswith(b"data: ") and blocks.endswith(b"\n\n") and blocks.find(b"\n") == len(blocks) - 2 < max_event:
        return iter((Event(blocks[6:-2], id=ids.last),))  # one event of one line, as tokens come

    def within_cap(block: bytes) -> Event | None:
        if len(block) >= max_event:  # Blocks counts the last line's end too
            raise EventTooLarge(max_event)
        return _interpret(block, ids)

    return filter(None, map(within_cap, blocks.split(b"\n\n")))  # unlike a generator, these continue after an error


def _interpret(block: bytes, ids: _Ids) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of a model's stream
        return Event(block[6:], id=ids.last)
    if block.startswith(b"event: ") and block.count(b"\n") == 1:
        name, has_data, data_line = block[7:].partition(b"\ndata: ")
        if has_data:
            return Event(data_line, name.decode("utf-8", "replace") or "message", ids.last)
    data: list[bytes] = []
    event_type = ""
    retry: int | None = None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event_type = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            ids.last = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_DIGITS:
            retry = int(value)
    if data:
        return Event(b"\n".join(data), event_type or "message", ids.last, retry)
    bare = block.strip()
    return Event(bare, _BARE) if bare[:1] in (b"{", b"[") and is_document(bare) else None


class Parser:
    """An incremental parser that keeps the raw bytes it read until they are taken.

    An unfinished block at the end of the stream is not an event for the specification; :meth:`end` returns it.

    Args:
        max_event: cap of one event, in bytes.
        keep_raw: keep the bytes for :meth:`take`; without it nothing is held beyond an unfinished event.
    """

    def __init__(self, max_event: int = MAX_EVENT, *, keep_raw: bool = False) -> None:
        self.blocks = Blocks(max_event)
        self._max_event = max_event
        self._keep_raw = keep_raw
        self._raw = bytearray()
        self._ids = _Ids()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes; return the events that they complete.

        Raises:
            EventTooLarge: an event exceeds the cap, here or (if it is whole) when the iterator reaches it. It is
                dropped; iterating, or feeding, may go on and resumes at the next event.
        """
        if self._keep_raw:
            self._raw += chunk
        return parse(self.blocks.feed(chunk), self._max_event, self._ids)

    def end(self) -> Iterator[Event]:
        """Take the end of the stream; return the event that only lacks its blank line, if there is one."""
        return parse(self.blocks.rest(), self._max_event, self._ids)

    def whole(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the blocks that they complete, as :meth:`Blocks.feed` does."""
        if self._keep_raw:
            self._raw += chunk
        return self.blocks.feed(chunk)

    @property
    def held(self) -> int:
        """How many raw bytes are kept."""
        return len(self._raw)

    def take(self) -> bytes:
        """Return all raw bytes kept so far, events or not, and stop keeping them."""
        raw = bytes(self._raw)
        self._raw.clear()
        self._keep_raw = False
        return raw


def encode(data: str, *, event: str = "", id: str | None = None, retry: int | None = None) -> bytes:
    """Encode one event; line breaks in the data (LF, CR or CRLF) make several ``data`` lines.

    Raises:
        ValueError: a line break in ``event``, or a line break or NUL in ``id``: they would forge other fields.
    """
    if set(event) & {"\n", "\r"}:
        raise ValueError("an event type cannot contain a line break")
    if set(id or "") & {"\n", "\r", "\0"}:
        raise ValueError("an event id cannot contain a line break or NUL")
    lines = [f"event: {event}"] if event else []
    lines += [f"id: {id}"] if id is not None else []
    lines += [f"retry: {retry:d}"] if retry is not None else []
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def comment(text: str = "") -> bytes:
    """Encode one comment block: a heartbeat that readers do not see as an event.

    Raises:
        ValueError: a line break in ``text``.
    """
    if set(text) & {"\n", "\r"}:
        raise ValueError("a comment cannot contain a line break")
    return f": {text}\n\n".encode() if text else b":\n\n"
