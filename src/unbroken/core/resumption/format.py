"""What a dialect contributes to resuming: where an event stands in its response, and the requests about a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from unbroken.core.http import Request
from unbroken.core.sse import Event


class Bookmark(Protocol):
    """A reader of the events of one response, in order, over all of its streams.

    Attributes:
        response: the response's id at the server, ``""`` before it is known.
        position: the place of the last event, as a request to resume names it; ``""`` before the first.
        problem: why the events read so far do not follow one another, or cannot be told to; ``""`` if they do.
    """

    response: str
    position: str
    problem: str

    def read(self, event: Event) -> bool:
        """Take the next event; return whether it moves the position: keepalives do not, nor do errors."""


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """How responses of one dialect are resumed.

    Attributes:
        bookmark: makes a :class:`Bookmark` for one response.
        resume: takes the request that asked for the response, the response's id and a position; returns the request for
            a stream of the events behind it.
    """

    bookmark: Callable[[], Bookmark]
    resume: Callable[[Request, str, str], Request]
