"""What a dialect contributes to resuming: where an event stands in its response, and the requests about a response."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from unbroken.core.http import Request
from unbroken.core.payload import RequestBody
from unbroken.core.sse import Event


class Bookmark:
    """A reader of the events of one response, in order, over all of its streams.

    Attributes:
        response: the response's id at the server, ``""`` before it is known.
        position: the place of the last event, as a request to resume names it; ``""`` before the first.
        problem: why the events read so far do not follow one another, or cannot be told to; ``""`` if they do.
        obstacle: why the response cannot be taken up behind the last event, until a later one has come.
        has_come_before: whether the last event is one that came before the stream was taken up: it is dropped.
    """

    response = ""
    position = ""
    problem = ""
    obstacle = ""
    has_come_before = False

    def read(self, event: Event) -> bool:
        """Take the next event; return whether it moves the position: keepalives do not, nor do errors."""
        raise NotImplementedError

    def take_up(self) -> None:
        """Take that the next event comes of a stream that goes on behind the position."""

    def cut_by(self, event: Event) -> str:  # noqa: ARG002 - in most dialects by none
        """Return why the stream ends with an event, although the response goes on; ``""`` if it does not."""
        return ""


class BackgroundFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How a call of one dialect is made one whose response goes on at the server, and how that is ended.

    Attributes:
        fields: the fields with which a call asks for it.
        refusal: matches in the body of an error that refuses those fields, or another that they need.
        storage: takes the body of a call; returns what it says of keeping the response, as text: a server may refuse
            for one such choice and not for another.
        is_private: takes the body of a call; says whether the caller wants nothing of the response kept.
        cancel: takes the request that asked for the response, and the response's id; returns the request that ends it.
        delete: likewise; returns the request that deletes it.
    """

    fields: dict[str, bool]
    refusal: Callable[[bytes], bool]
    storage: Callable[[RequestBody], str]
    is_private: Callable[[RequestBody], bool]
    cancel: Callable[[Request, str], Request]
    delete: Callable[[Request, str], Request]


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """How responses of one dialect are resumed.

    Attributes:
        bookmark: makes a :class:`Bookmark` for one response.
        resume: takes the request that asked for the response, the response's id and a position; returns the request for
            a stream of the events behind it.
        background: how a call is made one that can be resumed; ``None`` where only the caller can.
    """

    bookmark: Callable[[], Bookmark]
    resume: Callable[[Request, str, str], Request]
    background: BackgroundFormat | None = None
