"""Resumption of a response that a relay keeps: the bytes behind those that have come are asked for by their position.

A relay with ``--keep`` names such a response in its head. Its body goes on at the relay while nobody reads it, and the
bytes behind any position are those that would have followed: no event need be whole, and none is read for it.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.resumption.events import ResumableEvents
from unbroken.core.resumption.format import Bookmark, Resumption
from unbroken.core.resumption.requests import without_body
from unbroken.core.resumption.resumer import Resumer
from unbroken.core.sse import Event

TURNS = "_unbroken/turns"
"""Where a relay hands over what it keeps."""


def kept_turn(head: Head) -> str:
    """Return the id under which a relay keeps this response, ``""`` if it keeps none."""
    fields = head.fields
    keeps = head.status == 200 and "x-unbroken-keep" in fields and "content-encoding" not in fields
    return fields.get("x-unbroken-turn", "") if keeps else ""


class KeptBytes(ResumableEvents):
    """The bytes of one response, which are passed on as they come.

    Attributes:
        came: how many have come.
        is_resumed: whether the present stream is a resumed one.
        cut: ``""``: no event is read.
    """

    def __init__(self) -> None:
        self.came = 0
        self.is_resumed = False
        self.cut = ""
        self._turn = ""

    @property
    def response(self) -> str:
        """The response's id, ``""`` if the relay does not keep it."""
        return self._turn

    @property
    def position(self) -> str:
        """Behind which byte it is taken up."""
        return f"byte {self.came}"

    @property
    def problem(self) -> str:
        """Why the response cannot be taken up, ``""`` if it can."""
        return "" if self._turn else "the relay does not keep it"

    @property
    def misfit(self) -> str:
        """``""``: the relay answers for the position."""
        return ""

    def note_head(self, head: Head) -> None:
        """Take the head of a response, or of what follows a position of it."""
        self._turn = kept_turn(head) or self._turn

    def hand_on(self, data: bytes) -> bytes:
        """Take the next bytes; return them."""
        self.came += len(data)
        return data

    def take_up(self) -> None:
        """Begin a stream that goes on behind the last byte."""
        self.is_resumed = True

    def last_event(self) -> Event | None:
        """Return ``None``: nothing is held back."""
        return None

    def end(self) -> bytes:
        """Return what is held: nothing."""
        return b""


class NoBookmark(Bookmark):
    """A bookmark that reads nothing: positions are bytes."""

    def read(self, event: Event) -> bool:  # noqa: ARG002 - a bookmark's signature
        """Return false."""
        return False


class KeptResumer(Resumer):
    """What resuming at a relay needs over a turn.

    Args:
        request: the request of the first attempt.
        relay: the relay's URL; ``""`` for the root of the server that was asked.
        policy: the limits.
        random: uniform in [0, 1), for jitter.
    """

    def __init__(self, request: Request, relay: str, policy: Policy, random: Callable[[], float]) -> None:
        self._relay = relay or "{0.scheme}://{0.netloc}".format(urlsplit(request.url))
        super().__init__(request, Resumption(bookmark=NoBookmark, resume=self._behind), policy, random)

    def note_head(self, head: Head) -> None:
        """Take the head of a response: it says whether the relay keeps it."""
        if isinstance(self.events, KeptBytes) and head.status == 200:
            self.events.note_head(head)

    def _new_events(self) -> ResumableEvents:
        return KeptBytes()

    def _behind(self, request: Request, turn: str, position: str) -> Request:
        """Return the request for what follows a position. A key in the query is sent as the first request sent it."""
        query = "&".join(filter(None, [request.parts.query, f"after={position.rpartition(' ')[2]}"]))
        url = f"{self._relay.rstrip('/')}/{TURNS}/{quote(turn, safe='')}?{query}"
        return Request("GET", url, without_body(request.headers))
