"""Streams as an upstream sends them: recorded ones, whole or cut, and what is made of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

CASE = "x-case"
"""The header by which the upstream knows what to answer."""

WAYS = ("plain", "transport", "relay")
"""How an SDK asks: the upstream itself, the same through ``unbroken.Transport``, and the relay."""

EVENT_STREAM = {"content-type": "text/event-stream"}

Ending = Literal["clean", "broken"]
"""How a body ends: as HTTP's framing says, or with the connection in the middle of it."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """One response.

    Attributes:
        pieces: the body, each piece a chunk.
        headers: of the response.
        ending: of the body.
        status: of the response.
    """

    pieces: tuple[bytes, ...]
    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: EVENT_STREAM)
    ending: Ending = "clean"
    status: int = 200

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked, and what the upstream answers.

    Attributes:
        name: for a person.
        dialect: of the SDK that asks.
        request: the body that it sends.
        stream: the answer to the first request.
        again: the answer to any later one.
    """

    name: str
    dialect: str
    request: Mapping[str, Any]
    stream: Stream
    again: Stream


@dataclasses.dataclass(frozen=True)
class Read:
    """What a program read.

    Attributes:
        objects: the SDK's objects, as JSON.
        error: the error that it got after them, ``None`` if they ended normally.
        requests: how many requests the upstream got.
    """

    objects: tuple[str, ...]
    error: str | None
    requests: int = 0

    @property
    def is_loud(self) -> bool:
        return self.error is not None

    @property
    def values(self) -> list[Any]:
        return [json.loads(item) for item in self.objects]


@dataclasses.dataclass(frozen=True)
class Found:
    """What was read in each way."""

    plain: Read
    transport: Read
    relay: Read
