"""What a dialect has to tell the core, and nothing more.

A dialect is one wire format of generation calls. It recognises a request as one of its own (:class:`Call`), says of
each event what it means for the rule (:class:`Signal`), and for the typed client it decodes events
(:mod:`unbroken.core.events`). Dialects live in :mod:`unbroken.core.dialects` and do not know one another.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Sequence
from typing import Any, Protocol

from unbroken.core.events import Failed, TypedEvent
from unbroken.core.http import Head, Request
from unbroken.core.sse import Event


class Signal(enum.Flag):
    """What one event means for the rule; an event may mean several things at once."""

    SILENT = 0
    """Nothing that the model produced."""
    OUTPUT = enum.auto()
    """Something that the model produced."""
    SETTLES = enum.auto()
    """With this event the attempt has said how it ended."""
    ENDS = enum.auto()
    """The terminator: nothing comes after it."""
    TRANSIENT_ERROR = enum.auto()
    """An error that may pass. Errors outrank the rest and end the attempt."""
    PERMANENT_ERROR = enum.auto()
    """An error that will not pass."""
    ERROR = TRANSIENT_ERROR | PERMANENT_ERROR


class EventReader(Protocol):
    """Reads the events of one attempt, in order, for what they mean to the rule."""

    def read(self, event: Event) -> Signal:
        """What ``event`` means.

        Raises:
            MalformedEvent: it is not what the dialect says.
        """


class EventDecoder(Protocol):
    """Decodes the events of one attempt, in order, into typed events."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """The typed events of one SSE event, possibly none.

        Raises:
            MalformedEvent: it is not what the dialect says.
        """

    def messages(self) -> list[dict[str, Any]]:
        """What has come, in the dialect's own form, to be appended to the conversation so that it can go on.

        Signatures, ids and encrypted reasoning that the provider wants back are in it. Tool calls are in it as far as
        they are complete.
        """

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """The typed events of a whole, non-streaming answer; none where ``body`` is no answer of this dialect."""


class Dialect(Protocol):
    """One wire format.

    Attributes:
        name: its name in reports, such as ``"openai-chat"``.
        notable: finds the bytes without which an event can neither settle, nor end, nor be an error. Once an attempt
            has spoken, only blocks in which it matches are parsed.
    """

    name: str
    notable: re.Pattern[bytes]

    def serves(self, path: str) -> bool:
        """Whether generation calls of this dialect are made at this path; what else is made there, the body tells."""

    def recognise(self, request: Request) -> Call | None:
        """The call that a request makes, or ``None`` where it is not one of this dialect."""

    def reader(self, call: Call) -> EventReader:
        """A fresh reader for one attempt."""

    def decoder(self) -> EventDecoder:
        """A fresh decoder for one attempt."""

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says; ``transient`` is false where waiting would not help (an exhausted quota)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A generation call, as its dialect recognised it.

    Attributes:
        dialect: who recognised it.
        streaming: whether a stream of events was asked for.
        choices: how many answers were asked for (``n``).
        acts: server-side tools of the call act on the world, or it leaves state behind: it is not replayed once sent.
        single_attempt: the request already is somebody's retry: it gets one attempt.
    """

    dialect: Dialect
    streaming: bool
    choices: int = 1
    acts: bool = False
    single_attempt: bool = False

    def expects(self, head: Head) -> bool:
        """Whether a 2xx response is of the content type that was asked for."""
        wanted = "text/event-stream" if self.streaming else "application/json"
        return head.content_type == wanted


def is_sdk_retry(request: Request) -> bool:
    """Whether an SDK says that it is already retrying (OpenAI's and Anthropic's send ``x-stainless-retry-count``)."""
    for name, value in request.headers:
        if name.lower() == b"x-stainless-retry-count":
            return value.strip() not in (b"", b"0")
    return False
