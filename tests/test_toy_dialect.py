"""One home per dialect: a format that is defined here alone works in client, transport and relay.

``toy`` says one word an event (``data: WORD``), ends with ``data: .`` and reports an error as ``data: !WORDS``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import pytest

import unbroken
from relay.serving import Caller, Served
from unbroken.core.answer import Answer
from unbroken.core.dialect import Dialect, FinishMeaning, GatewayError, Generation, Message, Signal
from unbroken.core.dialects import DIALECTS
from unbroken.core.events import Failed, Finish, Text, TypedEvent
from unbroken.core.http import Request
from unbroken.core.policy import Policy
from unbroken.core.sse import Event, encode
from unbroken.relay.settings import Settings, UpstreamSettings
from wire.servers import RawServer, read_head, reset


class ToyReader:
    finish_reason = ""
    runs_tool = False

    def __init__(self, generation: Generation) -> None:
        pass

    def read(self, event: Event) -> Signal:
        if event.text.startswith("!"):
            return Signal.PERMANENT_ERROR
        return Signal.SETTLES | Signal.ENDS if event.text == "." else Signal.OUTPUT


class ToyDecoder:
    def decode(self, event: Event) -> Sequence[TypedEvent]:
        if event.text.startswith("!"):
            return [Failed(event.text[1:])]
        return [Finish("full stop")] if event.text == "." else [Text(event.text)]

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        return [Text(body.decode()), Finish("full stop")]

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        return [{"said": answer.text}]


def read_request(request: Request, body: Mapping[str, Any]) -> Generation | None:
    return Generation(streaming=True) if "ask" in body else None


def ask(model: str, messages: Sequence[Message], tools: Sequence[Message], counts: bool) -> dict[str, Any]:
    return {"ask": [message["content"] for message in messages], "of": model}


TOY = Dialect(
    name="toy",
    serves=lambda path: path.endswith("/toy"),
    read_request=read_request,
    reader=ToyReader,
    notable=re.compile(rb"data: (?:\.|!)"),
    finish_reasons={"full stop": FinishMeaning.WHOLE},
    decoder=ToyDecoder,
    read_error=lambda status, body: Failed(body.decode() or f"HTTP {status}"),
    error_body=lambda error: error.message.encode(),
    error_event=lambda error: encode(f"!{error.code}"),
    path=lambda model: "/toy",
    body=ask,
    credentials=lambda key: {"x-toy-key": key},
    credential_headers=frozenset({"x-toy-key"}),
    heartbeat=b": still playing\n\n",
)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
BODY = b"data: Hello\n\ndata: world\n\ndata: .\n\n"
KEY = "toy-key-0123456789"
QUICK = Policy(backoff_initial=0.01)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    DIALECTS.append(TOY)
    yield
    DIALECTS.remove(TOY)


class ToyServer(RawServer):
    """Cuts the first request before any output, and the others where it is told to."""

    def __init__(self, body: bytes = BODY) -> None:
        self.heads: list[bytes] = []
        self._body = body
        super().__init__(self._play)

    def _play(self, sock: socket.socket) -> None:
        self.heads.append(read_head(sock))
        if len(self.heads) == 1:
            reset(sock)
            return
        sock.sendall(HEAD + self._body)


@pytest.fixture
def server() -> Iterator[ToyServer]:
    with ToyServer() as server:
        yield server


def test_in_the_client(server: ToyServer) -> None:
    with unbroken.Client(base_url=server.url, dialect="toy", api_key=KEY, model="m", policy=QUICK, proxy="") as client:
        answer = client.stream("Hi").__enter__().read()
    assert (answer.text, answer.finish_reason, answer.messages) == ("Helloworld", "full stop", [{"said": "Helloworld"}])
    assert answer.finish_meaning is FinishMeaning.WHOLE
    assert len(server.heads) == 2
    assert f"x-toy-key: {KEY}".encode() in server.heads[1].lower()


def test_in_a_transport(server: ToyServer) -> None:
    with httpx2.Client(transport=unbroken.Transport(policy=QUICK, proxy="")) as client:
        response = client.post(f"{server.url}/toy", json={"ask": ["Hi"]})
    assert response.content == BODY
    assert response.extensions["unbroken"].replays == 1


@pytest.fixture
def relayed(server: ToyServer) -> Iterator[Callable[[], Caller]]:
    upstream = UpstreamSettings("play", server.url, "toy", key=KEY)
    settings = Settings(upstreams={"play": upstream}, policy=QUICK, inject_key=True, token="t", heartbeat=0)
    with Served(settings) as served:
        yield lambda: Caller(served.port)


def post(client: Caller, *headers: tuple[str, str]) -> Any:
    with client:
        return client.ask("POST", "/play/toy", [("content-type", "application/json"), *headers], b'{"ask": ["Hi"]}')


def test_in_the_relay(server: ToyServer, relayed: Callable[[], Caller]) -> None:
    answer = post(relayed(), ("x-toy-key", "t"))
    assert (answer.status, answer.body, answer.value("x-unbroken-replays")) == (200, BODY, "1")
    assert f"x-toy-key: {KEY}".encode() in server.heads[1].lower()


def test_the_relays_own_errors_are_in_its_form(relayed: Callable[[], Caller]) -> None:
    answer = post(relayed())
    assert answer.status == 401
    assert answer.body.startswith(b"this relay demands its token")


def test_a_cut_after_output_is_told_in_its_form() -> None:
    with ToyServer(b"data: Hello\n\n") as server:
        settings = Settings(upstreams={"play": UpstreamSettings("play", server.url, "toy")}, policy=QUICK, heartbeat=0)
        with Served(settings) as served:
            answer = post(Caller(served.port))
    assert not answer.whole
    assert answer.body == b"data: Hello\n\ndata: !stream_cut\n\n"


def test_a_gateway_error_has_a_body_and_an_event() -> None:
    error = GatewayError(502, "stream_cut", "cut")
    assert (TOY.error_body(error), TOY.error_event(error)) == (b"cut", b"data: !stream_cut\n\n")
