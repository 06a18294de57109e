"""What is still owed behind a finish, on sockets, through every face: it is waited for, but not for ever."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterable

import pytest

from differential.streams import EVENT_STREAM
from relay.serving import Served, settings_to
from servers.faces import FACES, POLICY, Ask, Said
from wire.servers import RawServer, read_head

ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}\n\n'
HELLO = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": null}]}\n\n'
THERE = HELLO.replace(b"Hello", b" there")
STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}\n\n'
DONE = b"data: [DONE]\n\n"
REQUEST = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
PATIENCE = 5.0
LIKE_OTHERS = ("client-trio", "httpx", "httpx-async")
"""Faces over the same drivers as others."""


@pytest.fixture(params=[pytest.param(face, marks=[pytest.mark.slow] if face in LIKE_OTHERS else []) for face in FACES])
def ask(request: pytest.FixtureRequest) -> Callable[[Iterable[bytes | float]], Said]:
    """``ask(steps)``: bytes of a body, and pauses between them; the server then waits for the client to leave."""

    def run(steps: Iterable[bytes | float]) -> Said:
        def answer(sock: socket.socket) -> None:
            read_head(sock)
            fields = {**EVENT_STREAM, "transfer-encoding": "chunked"}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            sock.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
            for step in steps:
                if isinstance(step, bytes):
                    sock.sendall(b"%x\r\n%s\r\n" % (len(step), step))
                else:
                    time.sleep(step)  # a server that pauses: it is what is tested
            while sock.recv(65536):
                pass

        with RawServer(answer) as server, Served(settings_to(server.url, policy=POLICY)) as relay:
            origin = f"{relay.origin}/lab" if request.param == "relay" else server.url
            return FACES[request.param](
                Ask(dialect="openai-chat", request=REQUEST, origin=origin, case="x", policy=POLICY)
            )

    return run


def is_whole(said: Said, *pieces: bytes) -> bool:
    if said.answer is None:
        return said.error is None and said.data == b"".join(pieces)
    return said.error is None and said.answer.text == "Hello there"


def test_usage_that_comes_late_arrives(ask: Callable[..., Said]) -> None:
    said = ask([ROLE, HELLO, THERE, STOP, POLICY.settle_timeout / 2, USAGE, DONE])
    assert is_whole(said, ROLE, HELLO, THERE, STOP, USAGE, DONE)
    assert said.answer is None or said.answer.usage.total == 3


@pytest.mark.parametrize("rest", [[], [USAGE], [USAGE, DONE], [DONE]], ids=["finish", "usage", "both", "terminator"])
def test_a_server_that_never_closes_holds_nobody_up(ask: Callable[..., Said], rest: list[bytes]) -> None:
    started = time.monotonic()
    said = ask([ROLE, HELLO, THERE, STOP, *rest])
    assert time.monotonic() - started < PATIENCE
    assert is_whole(said, ROLE, HELLO, THERE, STOP, *rest)


def test_comments_keep_no_finished_turn_open(ask: Callable[..., Said]) -> None:
    started = time.monotonic()
    comments = itertools.chain.from_iterable(itertools.repeat((0.05, b": ping\n\n"), 200))
    said = ask([ROLE, HELLO, THERE, STOP, *comments])
    assert time.monotonic() - started < PATIENCE
    assert said.error is None


def test_a_pause_behind_a_finish_that_is_none_cuts_nothing(ask: Callable[..., Said]) -> None:
    hello, there = (piece.replace(b"null", b'"stop"') for piece in (HELLO, THERE))
    said = ask([hello, POLICY.settle_timeout * 2, there, POLICY.settle_timeout * 2, DONE])
    assert is_whole(said, hello, there, DONE)
