"""A client's request as it comes in: its body by pieces or whole, in time, and not without end.

The waiting is tested in virtual time; what a client is told in the end, on bare sockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.abc
import pytest
import trio
import trio.testing

from relay.serving import Call, Serve, Served, ServeRaw, chunked, poll
from unbroken.lab import Upstream as Lab
from unbroken.relay import asgi
from unbroken.relay.client_request import MIN_RATE, ClientLeft, ClientRequest, Rejection
from wire.servers import read_head, silence

END = {"type": "http.request"}
LEFT = {"type": "http.disconnect"}

CHAT = "/v1/chat/completions"


class Sent:
    """What a client sends: pieces, and seconds of silence; then the end of the body, or for ever nothing."""

    def __init__(self, *script: bytes | float | dict[str, Any], ends: bool = True) -> None:
        self._script = list(script)
        self._ends = ends

    async def receive(self) -> dict[str, Any]:
        while self._script:
            match self._script.pop(0):
                case bytes(data):
                    more = bool(self._script) or not self._ends
                    return {"type": "http.request", "body": data, "more_body": more}
                case dict(message):
                    return message
                case seconds:
                    await anyio.sleep(seconds)
        if not self._ends:
            await anyio.sleep_forever()
        return END


def incoming(sent: Sent, timeout: float = 10, **headers: str) -> ClientRequest:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"method": "POST", "path": "/v1/x", "query_string": b"", "headers": fields, "http_version": "1.1"}
    return ClientRequest(scope, sent.receive, timeout, clock=trio.current_time)


class Leaving:
    """The callback that a server offers; the client leaves 5 s after it was registered."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self.registered: list[Callable[[], None] | None] = []

    def __call__(self, on_left: Callable[[], None] | None) -> None:
        self.registered.append(on_left)
        if on_left:
            self._tasks.start_soon(self._leave)

    async def _leave(self) -> None:
        await anyio.sleep(5)
        if on_left := self.registered[-1]:
            on_left()


def in_virtual_time(test: Callable[[], Awaitable[Any]]) -> Any:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(test, backend="trio", backend_options={"clock": clock})


def whole(sent: Sent, *, limit: int = 100, timeout: float = 10, **headers: str) -> bytes:
    """The whole body."""
    return in_virtual_time(lambda: incoming(sent, timeout, **headers).whole(limit))


class TestARequest:
    def test_its_parts(self) -> None:
        scope = {
            "method": "PUT", "path": "/a b", "raw_path": b"/a%20b", "query_string": b"c=%20", "http_version": "1.1",
            "headers": [(b"X-A", b" 1 "), (b"x-b", b"\xff")],
        }  # fmt: skip
        request = ClientRequest(scope, Sent().receive, 1)
        assert (request.method, request.path, request.query) == ("PUT", "/a%20b", "c=%20")
        assert request.headers == ((b"x-a", b"1"), (b"x-b", b"\xff"))

    @pytest.mark.parametrize(
        ("headers", "has"),
        [
            ({}, False),
            ({"content_length": "0"}, False),
            ({"content_length": "5"}, True),
            ({"transfer_encoding": "chunked"}, True),
        ],
    )
    def test_whether_it_has_a_body(self, headers: dict[str, str], has: bool) -> None:
        async def ask() -> bool:
            return incoming(Sent(), **headers).has_body

        assert in_virtual_time(ask) is has


class TestItsBody:
    def test_comes_in_pieces(self) -> None:
        async def read() -> tuple[list[bytes], int]:
            request = incoming(Sent(b"a", b"", 3.0, b"bc", b""))
            return [piece async for piece in request.chunks()], request.received

        assert in_virtual_time(read) == ([b"a", b"bc"], 3)

    def test_or_whole(self) -> None:
        assert whole(Sent(b"a", b"bc")) == b"abc"
        assert whole(Sent(b"")) == b""

    def test_up_to_a_limit(self) -> None:
        assert whole(Sent(b"ab", b"c"), limit=3) == b"abc"
        with pytest.raises(Rejection, match="over 3 bytes") as caught:
            whole(Sent(b"ab", b"cd"), limit=3)
        assert caught.value.error.status == 413

    def test_a_length_over_the_limit_is_refused_unread(self) -> None:
        with pytest.raises(Rejection) as caught:
            whole(Sent(ends=False), limit=3, content_length="4")
        assert caught.value.error.status == 413

    def test_a_client_that_leaves_before_its_end(self) -> None:
        with pytest.raises(ClientLeft):
            whole(Sent(b"a", LEFT))

    def test_silence_ends_it(self) -> None:
        with pytest.raises(Rejection) as caught:
            whole(Sent(b"a", ends=False), timeout=10)
        assert caught.value.error.status == 408

    def test_pieces_far_between_do_not_prolong_it(self) -> None:
        with pytest.raises(Rejection) as caught:
            whole(Sent(*[b"a", 3.0] * 5), timeout=10)
        assert caught.value.error.status == 408

    def test_a_large_one_may_take_as_long_as_it_needs_at_a_fair_pace(self) -> None:
        """An hour of it, as fast as the slowest that is taken."""
        piece = b"a" * MIN_RATE * 60
        assert len(whole(Sent(*[60.0, piece] * 60), limit=len(piece) * 60, timeout=61)) == len(piece) * 60

    def test_the_client_is_not_to_blame_for_what_the_upstream_takes_long_for(self) -> None:
        async def read_slowly() -> bytes:
            body = b""
            async with aclosing(incoming(Sent(b"a", 1.0, b"b", 1.0, b"c"), timeout=10).chunks()) as pieces:
                async for piece in pieces:
                    body += piece
                    await anyio.sleep(100)
            return body

        assert in_virtual_time(read_slowly) == b"abc"

    def test_that_a_client_leaves_is_noticed_after_it(self) -> None:
        async def wait() -> float:
            request = incoming(Sent(b"a", END, 5.0, LEFT))
            await request.whole(10)
            await request.left()
            return trio.current_time()

        assert in_virtual_time(wait) == pytest.approx(5)

    @pytest.mark.parametrize("seconds", [4, 100])
    @pytest.mark.parametrize("offered", [True, False], ids=["by a callback", "by receive"])
    def test_what_is_done_for_it_is_cancelled_then_and_not_later(self, offered: bool, seconds: float) -> None:
        left: list[float] = []

        async def work() -> float:
            async with anyio.create_task_group() as tasks:
                request = incoming(Sent(b"a", END, 5.0, LEFT))
                if offered:
                    request._scope[asgi.ON_LEFT] = leaving = Leaving(tasks)
                await request.whole(10)
                async with request.cancelled_by_leaving(lambda: left.append(trio.current_time())):
                    await anyio.sleep(seconds)
                ended = trio.current_time()
            assert not offered or leaving.registered[-1] is None
            return ended

        assert in_virtual_time(work) == pytest.approx(min(seconds, 5))
        assert left == ([pytest.approx(5)] if seconds > 5 else [])

    def test_a_failure_of_what_is_done_for_it_is_its_own(self) -> None:
        async def fail() -> None:
            request = incoming(Sent(b"a", END))
            request._scope[asgi.ON_LEFT] = lambda on_left: None
            async with request.cancelled_by_leaving(lambda: None):
                raise KeyError("x")

        with pytest.raises(KeyError):
            in_virtual_time(fail)


class TestOnTheWire:
    @pytest.mark.parametrize("target", [CHAT, "/v1/files"])
    def test_a_body_that_does_not_come(self, serve: Serve, lab: Lab, call: Call, target: str) -> None:
        """Neither of a generation call nor of anything else."""
        relay = serve(lab.url, receive_timeout=0.1)
        client = call(relay)
        client.begin("POST", target, [("Content-Length", "3")], b"a")
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (408, "request_timeout", "close")
        assert client.ended()
        assert (relay.entry()["outcome"], relay.entry()["status"]) == ("rejected", 408)
        assert not lab.requests

    def test_what_is_refused_for_its_length_is_not_even_asked_for(self, serve: Serve, lab: Lab, call: Call) -> None:
        client = call(serve(lab.url, max_body=1000))
        client.begin("POST", CHAT, [("Content-Length", "1001"), ("Expect", "100-continue")])
        answer = client.answer()
        assert (answer.status, answer.code) == (413, "request_too_large")

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_a_body_too_large_is_refused_and_its_client_hears_why(
        self, serve: Serve, lab: Lab, call: Call, framing: str
    ) -> None:
        """Even one that writes all of it before it reads, as Python's own does: unread bytes would cost the answer."""
        client = call(serve(lab.url, max_body=1000))
        if framing == "length":
            client.begin("POST", CHAT, body=b"a" * 8_000_000)
        else:
            client.begin("POST", CHAT, [("Transfer-Encoding", "chunked")], chunked(*[b"a" * 65536] * 128))
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (413, "request_too_large", "close")
        assert not lab.requests

    def test_a_body_of_just_the_limit_is_taken(self, serve: Serve, lab: Lab, call: Call) -> None:
        client = call(serve(lab.url, max_body=1000))
        body = b'{"stream": true}'.ljust(1000)
        assert client.ask("POST", CHAT, body=body).status == 200
        assert (
            client.ask("POST", CHAT, [("Transfer-Encoding", "chunked")], chunked(body[:500], body[500:])).status == 200
        )
        assert [request.body for request in lab.requests] == [body, body]

    def test_what_is_no_generation_call_has_no_limit(self, serve: Serve, lab: Lab, call: Call) -> None:
        body = b"a" * 100_000
        assert call(serve(lab.url, max_body=1000)).ask("POST", "/v1/files", body=body).status == 404
        assert lab.requests[0].body == body

    @pytest.mark.parametrize("target", [CHAT, "/v1/files"])
    def test_a_body_that_breaks_its_framing(self, served: Served, lab: Lab, call: Call, target: str) -> None:
        client, before = call(served), served.tasks()
        client.begin("POST", target, [("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n")
        poll(lambda: served.tasks() > before)
        client.send(b"no chunk\r\n")
        answer = client.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert poll(lambda: served.entries, 2)[0]["outcome"] == "left"  # at once, however long the client stays
        assert not lab.requests

    def test_continue_is_said_when_the_upstream_is_there_to_take_it(
        self, serve: Serve, serve_raw: ServeRaw, call: Call
    ) -> None:
        got = []

        def script(sock: Any) -> None:
            body = read_head(sock).partition(b"\r\n\r\n")[2]
            while len(body) < 3:
                body += sock.recv(100)
            got.append(body)
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            silence(sock)

        client = call(serve(serve_raw(script).url))
        client.begin("PUT", "/v1/files/1", [("Content-Length", "3"), ("Expect", "100-continue")])
        assert client.head().status == 100
        assert got == []
        client.send(b"abc")
        assert client.answer().status == 201
        assert got == [b"abc"]
