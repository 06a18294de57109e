"""One response to one client, although what is sent of it comes from more than one turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from unbroken.relay import asgi

MAX_WITHHELD = 1024 * 1024
"""How many bytes are withheld until it is known that a turn goes on, at most."""


class JoinedResponse:
    """ASGI's ``send`` to a client to which several turns send their response, one after the other.

    Of each turn behind the first one the head is not sent, and the bytes that the client has are not: they must be the
    same. Otherwise the response is broken off.

    Args:
        send: ASGI's, to the client.

    Attributes:
        status: the status that was sent, ``None`` before.
        sent: how many bytes of the body were sent.
    """

    def __init__(self, send: asgi.Send) -> None:
        self.status: int | None = None
        self.sent = 0
        self._send = send
        self._digest = hashlib.sha256()
        self._repeated = hashlib.sha256()
        self._owed = 0
        self._withheld: list[asgi.Message] | None = None
        self._size = 0
        self._may_be_sent: Callable[[], bool] = lambda: True

    def repeat(self) -> None:
        """Take that what is sent next is the response from its first byte."""
        self._owed, self._repeated = self.sent, hashlib.sha256()

    def go_on(self) -> None:
        """Take that what is sent next is another head, and then what follows the bytes that were sent."""
        self._owed = 0

    def withhold(self, until: Callable[[], bool]) -> None:
        """Send nothing before a condition is true, or the response ends; where nothing was sent yet."""
        if self.status is None:
            self._withheld, self._may_be_sent = [], until

    @property
    def is_withheld(self) -> bool:
        """Whether a response has begun of which nothing was sent."""
        return self._withheld is not None

    def drop_withheld(self) -> None:
        """Forget what was withheld: another response follows."""
        self._withheld, self._size = None, 0

    async def __call__(self, message: asgi.Message) -> None:
        """Send a message.

        Raises:
            asgi.Broken: the client has other bytes than those that this response begins with.
        """
        if self._withheld is None:
            await self._pass_on(message)
            return
        self._withheld.append(message)
        self._size += len(message.get("body", b""))
        is_end = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_end or self._size > MAX_WITHHELD or self._may_be_sent():
            withheld, self._withheld = self._withheld, None
            for one in withheld:
                await self._pass_on(one)

    async def _pass_on(self, message: asgi.Message) -> None:
        if message["type"] == "http.response.start":
            if self.status not in (None, message["status"]):
                raise asgi.Broken
            if self.status is None:
                self.status = message["status"]
                await self._send(message)
            return
        data, more = self._unsent(message["body"]), message.get("more_body", False)
        if self._owed and not more:
            raise asgi.Broken
        if data or not more:
            self.sent += len(data)
            self._digest.update(data)
            await self._send({**message, "body": data})

    def _unsent(self, data: bytes) -> bytes:
        """Return those of the next bytes that were not sent."""
        if not self._owed:
            return data
        has, data = data[: self._owed], data[self._owed :]
        self._repeated.update(has)
        self._owed -= len(has)
        if not self._owed and self._repeated.digest() != self._digest.digest():
            raise asgi.Broken
        return data
