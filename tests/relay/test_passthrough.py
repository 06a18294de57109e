"""Everything that is no generation call: it passes both ways, byte for byte, and whoever leaves ends it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from ports import free_port
from relay.serving import Call, Caller, RunRelay, Serve, Served, ServeRaw, chunked, request
from timing import Control
from unbroken.core.policy import Policy
from unbroken.lab import Fault, Upstream
from unbroken.relay.settings import UpstreamSettings
from wire.servers import RawServer, Script, read_head, reset, saying, silence

OK = b"HTTP/1.1 200 OK\r\n"

SANDBOX = [("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox")]
"""What every forwarded response has."""


class Heard:
    """A script that takes a request of known length and remembers it, as it came, and then answers."""

    def __init__(self, answer: bytes) -> None:
        self.data = b""
        self._answer = answer

    def __call__(self, sock: socket.socket) -> None:
        while not self._is_whole():
            self.data += sock.recv(65536)
        sock.sendall(self._answer)
        silence(sock)

    @property
    def head(self) -> list[bytes]:
        return self.data.partition(b"\r\n\r\n")[0].split(b"\r\n")

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    def _is_whole(self) -> bool:
        head, end, body = self.data.partition(b"\r\n\r\n")
        head = head.lower()
        if b"transfer-encoding: chunked" in head:
            return body.endswith(b"0\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return bool(end) and len(body) >= int(length or 0)


class TestRequests:
    @pytest.mark.parametrize(
        ("method", "framing", "body", "framed"),
        [
            ("GET", [], b"", b""),
            ("OPTIONS", [], b"", b""),
            ("DELETE", [], b"", b""),
            ("PURGE", [], b"", b""),
            ("POST", [], b"", b"content-length: 0"),
            ("POST", [("Content-Length", "0")], b"", b"content-length: 0"),
            ("PUT", [], b"abc", b"content-length: 3"),
            ("PATCH", [], b"abc", b"content-length: 3"),
            ("DELETE", [], b"abc", b"content-length: 3"),
            ("GET", [], b"abc", b"content-length: 3"),
            ("POST", [("Transfer-Encoding", "chunked")], chunked(b"ab", b"c"), b"transfer-encoding: chunked"),
            ("PUT", [("Transfer-Encoding", "Chunked")], chunked(), b"transfer-encoding: chunked"),
        ],
    )
    def test_pass_with_the_framing_that_they_have(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, method: str, framing: list, body: bytes, framed: bytes
    ) -> None:
        heard = Heard(OK + b"Content-Length: 2\r\n\r\nok")
        answer = call(serve(serve_raw(heard).url)).ask(method, "/v1/x", framing, body)
        assert (answer.status, answer.body) == (200, b"ok")
        assert heard.head[0] == f"{method} /v1/x HTTP/1.1".encode()
        about_length = (b"content-length", b"transfer-encoding")
        assert [line.lower() for line in heard.head if line.lower().startswith(about_length)] == (
            [framed] if framed else []
        )
        assert _unchunked(heard.body) == _unchunked(body)

    def test_a_body_passes_byte_for_byte_and_so_does_its_answer(
        self, serve: Serve, serve_raw: ServeRaw, call: Call
    ) -> None:
        every = bytes(range(256)) * 100
        squeezed, answered = gzip.compress(every), gzip.compress(every[::-1])
        heard = Heard(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(answered) + answered)
        fields = [("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip, deflate, br, zstd")]
        answer = call(serve(serve_raw(heard).url)).ask("PUT", "/v1/x", fields, squeezed)
        assert heard.body == squeezed
        assert b"accept-encoding: gzip, deflate, br, zstd" in heard.head
        assert (answer.body, answer.value("content-encoding")) == (answered, "gzip")

    def test_a_body_at_a_path_of_calls_that_makes_none_passes_too(
        self, served: Served, lab: Upstream, call: Call
    ) -> None:
        client = call(served)
        assert client.ask("POST", "/v1/chat/completions", body=b"no JSON").status == 400
        assert client.ask("POST", "/v1/chat/completions", [("Transfer-Encoding", "chunked")], chunked()).status == 400
        assert [(request.body, request.header("content-length")) for request in lab.requests] == [
            (b"no JSON", "7"),
            (b"", "0"),
        ]
        assert served.entry(1)["outcome"] == "passed"

    def test_one_connection_serves_many_on_either_side(self, served: Served, lab: Upstream, call: Call) -> None:
        client = call(served)
        for method in ("GET", "PUT", "POST", "DELETE") * 3:
            assert client.ask(method, "/v1/models", body=b"{}" if method == "POST" else b"").whole
        assert (len(lab.requests), lab.connections) == (12, 1)

    def test_each_client_may_ask_while_others_wait(self, served: Served, lab: Upstream, call: Call) -> None:
        clients = [call(served) for _ in range(20)]
        for client in clients:
            client.begin("PUT", "/v1/models", [("Content-Length", "1")])
        for client in reversed(clients):
            client.send(b"x")
            assert client.answer().status == 404


class TestResponses:
    @pytest.mark.parametrize("length", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
    def test_to_head_has_no_body(self, serve: Serve, serve_raw: ServeRaw, call: Call, length: bytes) -> None:
        answer = call(serve(serve_raw(saying(OK + b"ETag: x\r\n" + length + b"\r\n")).url)).ask("HEAD", "/v1/x")
        assert (answer.status, answer.value("etag")) == (200, "x")
        assert answer.value("content-length") == ("5" if b"5" in length else None)

    @pytest.mark.parametrize("status", [204, 304])
    def test_without_a_body(self, serve: Serve, serve_raw: ServeRaw, call: Call, status: int) -> None:
        """Where a length stands there nevertheless, it is that of another response."""
        head = b"HTTP/1.1 %d Odd\r\nConnection: close\r\nContent-Length: 5\r\nETag: x\r\n\r\n" % status
        upstream = serve_raw(saying(head))
        client = call(serve(upstream.url))
        for _ in range(2):
            client.begin("GET", "/v1/x")
            answer = client.head()
            assert (answer.status, answer.headers) == (status, [("etag", "x"), *SANDBOX])

    @pytest.mark.parametrize("status", [200, 206, 299, 301, 302, 307, 401, 407, 418, 451, 500, 504, 529, 599, 600, 999])
    def test_of_any_status_pass(self, serve: Serve, serve_raw: ServeRaw, call: Call, status: int) -> None:
        upstream = serve_raw(
            saying(b"HTTP/1.1 %d Oh no: it's odd\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nok" % status)
        )
        answer = call(serve(upstream.url)).ask("GET", "/v1/x")
        assert (answer.status, answer.value("location"), answer.body) == (status, "/elsewhere", b"ok")
        assert upstream.connections == 1

    def test_interim_ones_do_not(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        upstream = serve_raw(
            saying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok")
        )
        answer = call(serve(upstream.url)).ask("GET", "/v1/x")
        assert (answer.status, answer.values("link"), answer.body) == (200, [], b"ok")

    @pytest.mark.parametrize(
        "reply",
        [
            OK + b"Connection: close\r\nContent-Length: 6\r\n\r\nfoobar",
            OK
            + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nfoo\r\n3\r\nbar\r\n0\r\nX: 1\r\n\r\n",
            OK + b"\r\nfoobar",
            b"HTTP/1.0 200 OK\r\n\r\nfoobar",
        ],
        ids=["by length", "in chunks", "by the end", "1.0"],
    )
    def test_are_whole_however_they_are_framed(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, reply: bytes
    ) -> None:
        client = call(serve(serve_raw(saying(reply)).url))
        for _ in range(2):
            answer = client.ask("GET", "/v1/x")
            assert (answer.status, answer.body, answer.whole) == (200, b"foobar", True)

    def test_what_comes_after_one_is_not_taken_for_the_next(
        self, serve: Serve, serve_raw: ServeRaw, call: Call
    ) -> None:
        upstream = serve_raw(saying(OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 6\r\n\r\nforged"))
        client = call(serve(upstream.url))
        assert [client.ask("GET", "/v1/x").body for _ in range(3)] == [b"ok"] * 3
        assert upstream.connections == 3

    def test_arrive_as_they_come(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        told = threading.Event()

        def script(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(OK + b"Content-Type: text/event-stream\r\n\r\n: hello\n\n")
            assert told.wait(5)
            sock.sendall(b"data: 1\n\n")

        client = call(serve(serve_raw(script).url))
        client.begin("GET", "/v1/x")
        assert client.head().status == 200
        assert client.until(b": hello\n\n")
        told.set()
        assert client.until(b"data: 1\n\n")


class TestFailures:
    def test_an_upstream_that_is_not_there(self, serve: Serve, call: Call) -> None:
        relay = serve(f"http://127.0.0.1:{free_port()}")
        client = call(relay)
        answer = client.ask("GET", "/v1/models")
        assert (answer.status, answer.code) == (502, "connection_refused")
        assert answer.whole
        entry = relay.entry()
        assert (entry["outcome"], entry["status"], entry["upstream"]) == ("unreachable", 502, "lab")
        assert entry["detail"].startswith("connection refused")
        assert client.ask("GET", "/v1/models").status == 502  # on the same connection

    def test_is_told_of_in_the_words_of_its_dialect(self, serve: Serve, call: Call) -> None:
        upstream = UpstreamSettings("claude", f"http://127.0.0.1:{free_port()}", "anthropic-messages")
        answer = call(serve({"claude": upstream})).ask("GET", "/v1/models")
        assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (502, "error", "api_error")

    def test_nor_for_a_body_whose_client_hears_of_it(self, serve: Serve, call: Call) -> None:
        client = call(serve(f"http://127.0.0.1:{free_port()}"))
        client.begin("PUT", "/v1/files", body=b"a" * 8_000_000)
        answer = client.answer()
        assert (answer.status, answer.value("connection")) == (502, "close")

    def test_an_upstream_that_is_misconfigured(self, serve: Serve, call: Call) -> None:
        answer = call(serve("https://127.0.0.1:1", verify="/nowhere.pem")).ask("GET", "/v1/models")
        assert (answer.status, answer.code) == (500, "misconfigured")

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            (saying(), "closed"),
            (saying(b"SSH-2.0-odd\r\n\r\n"), "broken_framing"),
            (
                saying(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
                "broken_framing",
            ),
            (saying(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"), "broken_framing"),
            (saying(OK + b"X: " + b"a" * 200_000), "broken_framing"),
            (reset, "reset"),
        ],
        ids=["nothing", "another protocol", "an upgrade", "two lengths", "endless headers", "a reset"],
    )
    def test_an_upstream_that_answers_otherwise(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, script: Script, code: str
    ) -> None:
        relay = serve(serve_raw(script).url)
        answer = call(relay).ask("GET", "/v1/x")
        assert (answer.status, answer.code) == (502, code)
        assert relay.entry()["outcome"] == "unreachable"

    def test_an_upstream_that_is_silent_for_too_long(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        answer = call(serve(serve_raw(silence).url, policy=Policy(idle_timeout=0.1))).ask("GET", "/v1/x")
        assert (answer.status, answer.code) == (502, "idle_timeout")

    @pytest.mark.parametrize(
        "reply",
        [
            b"Content-Length: 60\r\n\r\nfoobar",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n3\r\nbar\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n6\r\nbar",
            b"Transfer-Encoding: chunked\r\n\r\n6\r\nfoobar\r\nno chunk\r\n",
        ],
        ids=["short", "between chunks", "in a chunk", "no chunk"],
    )
    def test_a_cut_download_is_broken_and_not_ended(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, reply: bytes
    ) -> None:
        relay = serve(serve_raw(saying(OK + reply)).url)
        client = call(relay)
        answer = client.ask("GET", "/v1/x")
        assert (answer.status, answer.body, answer.whole) == (200, b"foobar", False)
        assert client.ended()
        entry = relay.entry()
        assert (entry["outcome"], entry["bytes_out"]) == ("cut", 6)
        assert entry["detail"]

    def test_an_answer_before_the_body_is_whole(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        """It is handed on when the body has been read, so that the client need not look for it meanwhile."""
        upstream = serve_raw(saying(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"))
        client = call(serve(upstream.url))
        client.begin("PUT", "/v1/files", body=b"a" * 8_000_000)
        answer = client.answer()
        assert (answer.status, answer.body) == (401, b"no")


def _unchunked(body: bytes) -> bytes:
    if not body.endswith(b"0\r\n\r\n"):
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


class TestHttp2:
    """Upstreams speak HTTP/2 where they can; clients of the relay do not notice."""

    @pytest.fixture
    def trusted(self, authority: trustme.CA, tmp_path: Path) -> str:
        path = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(path))
        return str(path)

    @pytest.fixture
    def start(
        self, serve: Serve, trusted: str, server_tls: ssl.SSLContext
    ) -> Iterator[Callable[..., tuple[Upstream, Served]]]:
        started: list[Upstream] = []

        def start(*faults: Fault) -> tuple[Upstream, Served]:
            started.append(Upstream(faults=faults, ssl_context=server_tls).start())
            return started[-1], serve(started[-1].url, verify=trusted)

        yield start
        for lab in started:
            lab.close()

    def test_requests_and_responses_pass(self, start: Callable[..., tuple[Upstream, Served]], call: Call) -> None:
        lab, relay = start()
        client = call(relay)
        fields = [
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
            ("X-A", "B"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("TE", "gzip"),
        ]
        answer = client.ask("GET", "/v1/models?a=%20", fields)
        assert (answer.status, answer.json["data"][0]["id"], answer.whole) == (200, "lab", True)
        (request,) = lab.requests
        assert (request.http_version, request.target) == ("2", "/v1/models?a=%20")
        assert [name for name, _ in request.headers if name != "cookie"] == ["host", "x-a", "via"]
        assert "; ".join(value for name, value in request.headers if name == "cookie") == "a=1; b=2"

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_bodies_pass(self, start: Callable[..., tuple[Upstream, Served]], call: Call, framing: str) -> None:
        lab, relay = start()
        body = bytes(range(256)) * 8000
        fields, sent = [], body
        if framing == "chunked":
            fields, sent = (
                [("Transfer-Encoding", "chunked")],
                chunked(*(body[at : at + 7000] for at in range(0, len(body), 7000))),
            )
        client = call(relay)
        for _ in range(2):
            answer = client.ask("PUT", "/v1/files", fields, sent)
            assert (answer.status, answer.whole) == (404, True)
        assert [request.body == body for request in lab.requests] == [True, True]
        assert lab.requests[0].header("content-length") == (str(len(body)) if framing == "length" else None)
        assert lab.connections == 1

    @pytest.mark.parametrize(
        "fault", [Fault("rst_stream", "after_token"), Fault("fin", "after_token"), Fault("rst", "after_token")]
    )
    def test_a_cut_download_is_broken(
        self, start: Callable[..., tuple[Upstream, Served]], call: Call, fault: Fault
    ) -> None:
        _, relay = start(fault)
        answer = call(relay).ask("GET", "/v1/models")
        assert (answer.status, answer.whole) == (200, False)
        assert answer.body
        assert relay.entry()["outcome"] == "cut"

    @pytest.mark.timing
    @pytest.mark.parametrize("at", ["before_headers", "after_token"])
    def test_a_client_that_leaves_ends_the_upstreams_work(
        self, start: Callable[..., tuple[Upstream, Served]], call: Call, at: str, promptly: Control
    ) -> None:
        lab, relay = start(Fault("stall", at))
        client = call(relay)
        client.begin("GET", "/v1/models")
        assert lab.wait_for(lambda: lab.requests and (at == "before_headers" or lab.requests[0].sent), 5)
        if at == "after_token":
            client.head()
        left = time.monotonic()
        client.close()
        assert lab.wait_for(lambda: lab.requests[0].gone, 5)
        promptly(left, lab.requests[0].gone_at)


class Leaving:
    """Ways for a client to go away."""

    @staticmethod
    def close(client: Caller) -> None:
        client.close()

    @staticmethod
    def reset(client: Caller) -> None:
        reset(client.sock)


@pytest.mark.timing
@pytest.mark.parametrize("leave", [Leaving.close, Leaving.reset])
class TestLeaving:
    """The client goes away: the upstream is not to work for nobody."""

    def test_during_its_upload(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, leave: Callable[[Caller], None], promptly: Control
    ) -> None:
        got = threading.Event()

        def script(sock: socket.socket) -> None:
            data = read_head(sock)
            while not data.endswith(b"x"):
                data += sock.recv(65536)
            got.set()
            silence(sock)

        self.assert_prompt(
            promptly,
            serve,
            serve_raw(script),
            call,
            got,
            leave,
            request("PUT", "/v1/files", [("Content-Length", "9")], b"x"),
        )

    def test_during_an_upload_in_chunks(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, leave: Callable[[Caller], None], promptly: Control
    ) -> None:
        got = threading.Event()

        def script(sock: socket.socket) -> None:
            read_head(sock)
            got.set()
            silence(sock)

        sent = request("PUT", "/v1/files", [("Transfer-Encoding", "chunked")], b"1\r\nx\r\n")
        self.assert_prompt(promptly, serve, serve_raw(script), call, got, leave, sent)

    @pytest.mark.parametrize(("target", "body"), [("/v1/x", b""), ("/v1/x", b"abc"), ("/v1/chat/completions", b"abc")])
    def test_before_the_response(
        self,
        serve: Serve,
        serve_raw: ServeRaw,
        call: Call,
        leave: Callable[[Caller], None],
        target: str,
        body: bytes,
        promptly: Control,
    ) -> None:
        got = threading.Event()

        def script(sock: socket.socket) -> None:
            data = read_head(sock)
            while not data.endswith(body):
                data += sock.recv(65536)
            got.set()
            silence(sock)

        self.assert_prompt(promptly, serve, serve_raw(script), call, got, leave, request("POST", target, body=body))

    def test_during_its_download(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, leave: Callable[[Caller], None], promptly: Control
    ) -> None:
        got = threading.Event()

        def script(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(OK + b"Content-Length: 9\r\n\r\nx")
            got.set()
            silence(sock)

        self.assert_prompt(promptly, serve, serve_raw(script), call, got, leave, request("GET", "/v1/x"), until=b"x")

    def test_while_it_does_not_read(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, leave: Callable[[Caller], None], promptly: Control
    ) -> None:
        full = threading.Event()

        def script(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(OK + b"\r\n")
            block = b"a" * 65536
            sock.settimeout(0.3)
            with suppress(TimeoutError):
                while True:
                    sock.send(block)
            full.set()
            sock.settimeout(5)
            while True:
                sock.sendall(block)

        self.assert_prompt(promptly, serve, serve_raw(script), call, full, leave, request("GET", "/v1/x"))

    @staticmethod
    def assert_prompt(
        promptly: Control,
        serve: Serve,
        upstream: RawServer,
        call: Call,
        reached: threading.Event,
        leave: Callable[[Caller], None],
        sent: bytes,
        until: bytes = b"",
    ) -> None:
        relay = serve(upstream.url)
        client = call(relay)
        client.send(sent)
        assert reached.wait(10)
        client.until(until)
        before = time.monotonic()
        leave(client)
        promptly(before, upstream.wait_until_gone())
        assert relay.entry()["outcome"] == "left"


@pytest.mark.timing
def test_a_client_that_leaves_an_upload_that_the_upstream_does_not_read(
    serve: Serve, serve_raw: ServeRaw, call: Call, promptly: Control
) -> None:
    """By a reset: a polite end stands behind what nobody reads."""
    upstream = serve_raw(wait_for_the_end)
    client = call(serve(upstream.url))
    client.send(request("PUT", "/v1/files", [("Content-Length", str(SIZE))]))
    client.sock.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            client.sock.send(bytes(65536))
    before = time.monotonic()
    reset(client.sock)
    promptly(before, upstream.wait_until_gone())


def wait_for_the_end(sock: socket.socket) -> None:
    """Read nothing, until the other side has gone."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP | select.POLLERR)
    poll.poll(10_000)


MEGABYTE = 1024 * 1024
SIZE = 100 * MEGABYTE
GROWTH = 30 * MEGABYTE


def blocks(size: int = SIZE) -> Iterator[bytes]:
    """So many bytes, of which no two megabytes are alike."""
    rest = hashlib.shake_256(b"seed").digest(MEGABYTE - 8)
    for number in range(size // MEGABYTE):
        yield number.to_bytes(8, "big") + rest


def checksum(pieces: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


class Store:
    """A script that takes what is put and sends what is got; it may be held back for a while.

    Attributes:
        received: the checksum of what was put.
        moved: how many bytes were sent.
        stalled: set when nothing more was taken for a moment.
    """

    def __init__(self) -> None:
        self.received = ""
        self.moved = 0
        self.stalled = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()

    def __call__(self, sock: socket.socket) -> None:
        head, _, rest = read_head(sock).partition(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            self.may_read.wait(30)
            self.received = checksum(self._incoming(sock, rest))
            sock.sendall(OK + b"Content-Length: 2\r\n\r\nok")
        else:
            sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % SIZE)
            self._send(sock)
        silence(sock)

    def _incoming(self, sock: socket.socket, rest: bytes) -> Iterator[bytes]:
        yield rest
        came = len(rest)
        while came < SIZE:
            piece = sock.recv(MEGABYTE)
            assert piece
            came += len(piece)
            yield piece

    def _send(self, sock: socket.socket) -> None:
        for block in blocks():
            view = memoryview(block)
            while view:
                sock.settimeout(0.5)
                try:
                    count = sock.send(view)
                except TimeoutError:
                    self.stalled.set()
                    continue
                self.moved += count
                view = view[count:]
        sock.settimeout(None)


@functools.cache
def whole() -> str:
    """The checksum of all that is moved."""
    return checksum(blocks())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux shows it")
class TestSize:
    """A hundred megabytes each way, through a relay in a process of its own whose memory is measured."""

    @pytest.fixture
    def store(self) -> Store:
        return Store()

    @pytest.fixture
    def relay(self, serve_raw: ServeRaw, store: Store, run_relay: RunRelay) -> tuple[int, Memory]:
        program, port = run_relay("--upstream", f"lab={serve_raw(store).url}", "--quiet")
        with Caller(port) as client:
            assert client.ask("GET", "/_unbroken/health").status == 200
        return port, Memory(program.pid)

    def test_an_upload(
        self, relay: tuple[int, Memory], store: Store, call: Call, record_property: Callable[..., None]
    ) -> None:
        port, memory = relay
        client = call(port)
        client.begin("PUT", "/lab/files", [("Content-Length", str(SIZE))])
        for block in blocks():
            client.send(block)
        assert client.answer().body == b"ok"
        assert store.received == whole()
        assert memory.growth() < GROWTH
        record_property("growth", memory.growth())

    def test_a_download(self, relay: tuple[int, Memory], call: Call, record_property: Callable[..., None]) -> None:
        port, memory = relay
        client = call(port)
        client.begin("GET", "/lab/files")
        assert client.head().value("content-length") == str(SIZE)
        assert checksum(client.pieces(SIZE)) == whole()
        assert memory.growth() < GROWTH
        record_property("growth", memory.growth())

    def test_a_reader_that_is_slow_holds_the_upstream_back(
        self, relay: tuple[int, Memory], store: Store, call: Call, record_property: Callable[..., None]
    ) -> None:
        port, memory = relay
        client = call(port, small=True)
        client.begin("GET", "/lab/files")
        assert store.stalled.wait(10)
        held = store.moved
        assert held < SIZE / 4  # what the system's own buffers take
        client.head()
        assert checksum(client.pieces(SIZE)) == whole()
        assert memory.growth() < GROWTH
        record_property("held", held)

    def test_an_upstream_that_is_slow_holds_the_client_back(
        self, relay: tuple[int, Memory], store: Store, call: Call, record_property: Callable[..., None]
    ) -> None:
        port, memory = relay
        store.may_read.clear()
        client = call(port)
        client.begin("PUT", "/lab/files", [("Content-Length", str(SIZE))])
        body = b"".join(blocks())
        sent, client_sock = 0, client.sock
        client_sock.settimeout(0.5)
        with suppress(TimeoutError):
            while sent < SIZE:
                sent += client_sock.send(memoryview(body)[sent : sent + MEGABYTE])
        assert sent < SIZE / 4
        client_sock.settimeout(10)
        store.may_read.set()
        client.send(body[sent:])
        assert client.answer().body == b"ok"
        assert store.received == whole()
        assert memory.growth() < GROWTH
        record_property("held", sent)


class Memory:
    """The memory of a process: how much its peak lies above what it was."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before = self._kilobytes("VmRSS")

    def growth(self) -> int:
        return (self._kilobytes("VmHWM") - self._before) * 1024

    def _kilobytes(self, name: str) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1])
