"""Recorded streams with the relay's heartbeats between their events, with ids and without."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import anyio

from core.corpus import Recording
from differential.mutations import split
from differential.recorded import every_recording
from unbroken.core.dialects import find_dialect
from unbroken.relay.reply import Reply

BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Beating:
    """A stream as it came, and as a client of the relay gets it.

    Attributes:
        name: for a person.
        dialect: of the stream.
        events: as they came.
        pieces: the same with heartbeats before, between and behind them.
    """

    name: str
    dialect: str
    events: tuple[bytes, ...]
    pieces: tuple[bytes, ...]


def every_stream() -> Iterator[Beating]:
    """Each recording that a client gets as a stream: as it is, and with an id in every event."""
    for dialect, recording in every_recording():
        if not recording.body.startswith(BOM) and recording.expect["complete"]:
            for name, events in (("", split(recording)), (" with ids", list(with_ids(recording)))):
                yield Beating(f"{dialect} {recording}{name}", dialect, tuple(events), beaten(dialect, events))


def with_ids(recording: Recording) -> Iterator[bytes]:
    for number, event in enumerate(split(recording)):
        line_end = re.search(rb"\r\n|\r|\n", event)
        yield b"id: %d%s" % (number, line_end[0] if line_end else b"\n") + event


def beaten(dialect: str, events: list[bytes]) -> tuple[bytes, ...]:
    """What the relay sends if it sends a heartbeat whenever it may."""
    sent: list[bytes] = []

    async def send(message: dict) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])

    async def main() -> None:
        reply = Reply(send, find_dialect(dialect), "turn", streaming=True, clock=lambda: 0.0)
        for event in events:
            await reply.heartbeat()
            await reply.heartbeat()
            await reply.hand_on(event)
        await reply.heartbeat()
        await reply.end()

    anyio.run(main)
    return tuple(sent)
