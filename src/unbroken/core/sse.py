"""Server-sent events: an incremental reader and an encoder.

Source: WHATWG HTML, section 9.2 "Server-sent events" (parsing and interpreting an event stream).

Reading has two layers. :class:`Blocks` only finds where events end, which is a copy and a search; most blocks after the
first output need no more. :func:`parse` turns whole blocks into :class:`Event` objects. :class:`Parser` combines both.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from unbroken.errors import EventTooLarge

MAX_EVENT = 16 * 1024 * 1024
"""Default cap of one event, in bytes."""

_BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = 18  # for ``retry``: a longer time is nonsense, and Python refuses to parse very long integers


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    Attributes:
        data: the ``data`` fields joined by LF, as bytes; :attr:`text` decodes them.
        type: the ``event`` field, ``"message"`` if it is missing.
        id: the ``id`` field of this event, ``None`` if it is missing.
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


class Blocks:
    """A splitter of a byte stream into whole blocks (an event and the blank line that ends it).

    Line ends may be LF, CR or CRLF, mixed, and may be split over chunks; the blocks have LF only. A leading byte order
    mark is dropped.

    Args:
        max_event: cap of one block, in bytes.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._pending = bytearray()
        self._at_start = True
        self._after_cr = False
        self._skipping = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return the blocks that are now whole, joined, possibly ``b""``.

        Raises:
            EventTooLarge: a block exceeds the cap. It is dropped; feeding may go on and resumes at the next block.
        """
        if self._at_start and not (chunk := self._without_bom(chunk)):
            return b""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        pending = self._pending
        searched = max(len(pending) - 1, 0)
        pending += chunk
        end = pending.rfind(b"\n\n", searched)
        if end < 0:
            self._guard()
            return b""
        whole = bytes(memoryview(pending)[: end + 2])
        del pending[: end + 2]
        if self._skipping:
            self._skipping = False
            whole = whole[whole.index(b"\n\n") + 2 :]
        return whole

    @property
    def unfinished(self) -> bytes:
        """The beginning of a block that is not whole yet."""
        return bytes(self._pending)

    def tail(self, size: int) -> bytes:
        """Return the last ``size`` bytes of :attr:`unfinished`, without copying the rest."""
        return bytes(self._pending[-size:])

    def _guard(self) -> None:
        if self._skipping:
            del self._pending[:-1]  # the last byte may be the first half of the blank line
        elif len(self._pending) > self._max_event:
            self._skipping = True
            del self._pending[:-1]
            raise EventTooLarge(self._max_event)

    def _without_bom(self, chunk: bytes) -> bytes:
        """Drop a leading byte order mark; hold back the first bytes while they may still become one."""
        head = bytes(self._pending) + chunk
        self._pending.clear()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._pending += head
            return b""
        self._at_start = False
        return head.removeprefix(_BOM)

    def _with_lf(self, chunk: bytes) -> bytes:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF whose CR has already ended its line
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def parse(blocks: bytes, max_event: int = MAX_EVENT) -> Iterator[Event]:
    """Return the events of whole blocks, as :meth:`Blocks.feed` returns them. Comments and empty blocks give none.

    Raises:
        EventTooLarge: from the iterator, for a block over the cap. It is dropped; iterating may go on after it.
    """

    def within_cap(block: bytes) -> Event | None:
        if len(block) >= max_event:  # Blocks counts the last line's end too
            raise EventTooLarge(max_event)
        return _interpret(block)

    return filter(None, map(within_cap, blocks.split(b"\n\n")))  # unlike a generator, these continue after an error


def _interpret(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:  # nearly every event of a model's stream
        return Event(block[6:])
    data: list[bytes] = []
    event_type = ""
    event_id: str | None = None
    retry: int | None = None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event_type = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            event_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_DIGITS:
            retry = int(value)
    if not data:
        return None
    return Event(b"\n".join(data), event_type or "message", event_id, retry)


class Parser:
    """An incremental parser that keeps the raw bytes it read until they are taken.

    An unfinished block at the end of the stream is not an event; there is nothing to call at the end.

    Args:
        max_event: cap of one event, in bytes.
        keep_raw: keep the bytes for :meth:`take`; without it nothing is held beyond an unfinished event.
    """

    def __init__(self, max_event: int = MAX_EVENT, *, keep_raw: bool = False) -> None:
        self.blocks = Blocks(max_event)
        self._max_event = max_event
        self._keep_raw = keep_raw
        self._raw = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes; return the events that they complete.

        Raises:
            EventTooLarge: an event exceeds the cap, here or (if it is whole) when the iterator reaches it. It is
                dropped; iterating, or feeding, may go on and resumes at the next event.
        """
        return parse(self.whole(chunk), self._max_event)

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
