"""One response of several turns: each byte once, and none of another answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from unbroken.relay import asgi
from unbroken.relay.kept.joined import MAX_WITHHELD, JoinedResponse

START = {"type": "http.response.start", "status": 200, "headers": []}
REFUSED = {"type": "http.response.start", "status": 502, "headers": []}


def body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Client:
    """What is sent to a client."""

    def __init__(self) -> None:
        self.messages: list[asgi.Message] = []
        self.response = JoinedResponse(self._take)

    async def _take(self, message: asgi.Message) -> None:
        self.messages.append(message)

    def send(self, *messages: asgi.Message) -> None:
        async def main() -> None:
            for message in messages:
                await self.response(message)

        asyncio.run(main())

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def heads(self) -> int:
        return sum(message["type"] == "http.response.start" for message in self.messages)


@pytest.mark.parametrize("cut", range(8))
def test_what_the_client_has_is_not_sent_again(cut: int) -> None:
    whole = b"onetwothree"
    client = Client()
    client.send(START, body(whole[:cut]))
    for at in range(len(whole)):
        client.response.repeat()
        client.send(START, body(whole[:at]), body(whole[at : max(at, cut)]))
    client.response.repeat()
    client.send(START, *(body(bytes([byte])) for byte in whole), body(b"", more=False))
    assert (client.heads, client.body) == (1, whole)
    assert client.messages[-1]["more_body"] is False


@pytest.mark.parametrize("other", [b"onetw!three", b"!netwothree"])
def test_other_bytes_than_the_client_has_break_it(other: bytes) -> None:
    client = Client()
    client.send(START, body(b"onetwo"))
    client.response.repeat()
    with pytest.raises(asgi.Broken):
        client.send(START, body(other), body(b"", more=False))
    assert client.body == b"onetwo"


def test_so_does_a_response_that_ends_before() -> None:
    client = Client()
    client.send(START, body(b"onetwo"))
    client.response.repeat()
    with pytest.raises(asgi.Broken):
        client.send(START, body(b"one", more=False))
    assert client.body == b"onetwo"


def test_and_another_status() -> None:
    client = Client()
    client.send(START)
    client.response.repeat()
    with pytest.raises(asgi.Broken):
        client.send(REFUSED, body(b"no", more=False))
    assert client.body == b""


def test_it_goes_on_behind_what_was_sent() -> None:
    client = Client()
    client.send(START, body(b": heartbeat\n\n"))
    client.response.go_on()
    client.send(START, body(b"answer"), body(b"", more=False))
    assert (client.heads, client.body) == (1, b": heartbeat\n\nanswer")


def test_what_is_withheld_is_sent_once_it_may_be() -> None:
    client, may = Client(), []
    client.response.withhold(lambda: bool(may))
    client.send(START, body(b"one"))
    assert client.messages == []
    assert client.response.is_withheld
    may.append(True)
    client.send(body(b"two"))
    assert (client.heads, client.body, client.response.is_withheld) == (1, b"onetwo", False)


@pytest.mark.parametrize("last", [body(b"", more=False), body(b"x" * MAX_WITHHELD)])
def test_or_at_its_end_or_when_it_is_too_much(last: asgi.Message) -> None:
    client = Client()
    client.response.withhold(lambda: False)
    client.send(START, body(b"one"), last)
    assert client.body == b"one" + last["body"]


def test_or_never() -> None:
    client = Client()
    client.response.withhold(lambda: False)
    client.send(START, body(b"one"))
    client.response.drop_withheld()
    client.send(START, body(b"another"), body(b"", more=False))
    assert (client.heads, client.body) == (1, b"another")


def test_what_has_begun_is_not_withheld() -> None:
    client = Client()
    client.send(START)
    client.response.withhold(lambda: False)
    client.send(body(b"one"))
    assert client.body == b"one"
