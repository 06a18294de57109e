"""The server: what it takes for a request, how long it waits for one, and how it ends.

What clients send stands here in bytes, for that is what a server must be ready for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time

import pytest

from relay.serving import Call, Caller, Received, RunRelay, Serve, Served, ServeRaw, chunked, poll, request, settings_to
from timing import Control
from unbroken.errors import UsageError
from unbroken.lab import Upstream as Lab
from unbroken.relay.app import Relay
from unbroken.relay.asgi import Broken
from unbroken.relay.server import _is_defect, listen, make_server, origin_of
from wire.servers import RawServer, read_head, refuses, silence

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = "/v1/chat/completions"


def say(delta: str, finish: str | None = None) -> bytes:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": {"content": delta} if delta else {}, "finish_reason": finish}
    return (
        b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


class Speaker:
    """A script that streams a chat completion: its first token at once, and the rest when it may.

    Attributes:
        may_end: set it, and the answer ends.
    """

    def __init__(self, first: bytes = say("Hel")) -> None:
        self.may_end = threading.Event()
        self._first = first

    def __call__(self, sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + self._first)
        if self._may_go_on(sock):
            sock.sendall(say("lo") + say("", "stop") + b"data: [DONE]\n\n")

    def _may_go_on(self, sock: socket.socket) -> bool:
        """Wait until it may; ``False`` where the client leaves before."""
        sock.settimeout(0.02)
        while not self.may_end.is_set():
            with contextlib.suppress(TimeoutError):
                if not sock.recv(1):
                    return False
        return True

    @staticmethod
    def begin(client: Caller, target: str = CHAT, until: bytes = b"Hel") -> Received:
        """Ask, and read up to the first token."""
        client.begin("POST", target, body=json.dumps({"model": "m", "stream": True, "messages": []}).encode())
        answer = client.head()
        assert answer.status == 200
        client.until(until)
        return answer


class TestWhatIsNoRequest:
    @pytest.mark.parametrize(
        "sent",
        [
            HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
            HEAD + b"Content-Length: +3\r\n\r\nabc",
            HEAD + b"Content-Length: -3\r\n\r\nabc",
            HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
            HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: identity\r\n\r\nabc",
            HEAD + b"X-A : b\r\n\r\n",
            HEAD + b" X-A: b\r\n\r\n",
            HEAD + b"X-A: b\r\n folded\r\n\r\n",
            HEAD + b"X-A: b\rX-B: c\r\n\r\n",
            HEAD + b"X-A: b\nX-B: c\r\n\r\n",
            HEAD + b"X-A: a\0b\r\n\r\n",
            HEAD + b"X-A: a\x01b\r\n\r\n",
            HEAD + b"X(A: b\r\n\r\n",
            HEAD + b": b\r\n\r\n",
            HEAD + b"X-A\r\n\r\n",
            b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
            b"GET /v1/a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /v1/mod\xe9ls HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /v1/models HTTP/1.2\r\nHost: localhost\r\n\r\n",
            b"GET /v1/models HTTQ/1.1\r\nHost: localhost\r\n\r\n",
            b"GET http:///v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    )  # fmt: skip
    def test_is_refused_and_goes_nowhere(self, served: Served, lab: Lab, call: Call, sent: bytes) -> None:
        client = call(served)
        client.send(sent + GET)
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (400, "bad_request", "close")
        assert client.ended()
        assert not lab.requests

    @pytest.mark.parametrize(
        "sent", [b"FROB /v1/x HTTP/1.1\r\n", b"get /v1/x HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"hello"]
    )
    def test_nor_is_any_method_known_that_http_has_not(self, served: Served, lab: Lab, call: Call, sent: bytes) -> None:
        client = call(served)
        client.send(sent)
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (501, "not_implemented", "close")
        assert client.ended()

    def test_bytes_one_by_one_make_the_same_request(self, served: Served, lab: Lab, call: Call) -> None:
        client = call(served)
        for byte in b"\r\n" + request("PUT", "/v1/files", [("X-A", "b")], b"abc"):
            client.send(bytes([byte]))
        assert client.answer().status == 404
        assert (lab.requests[0].body, lab.requests[0].header("x-a")) == (b"abc", "b")

    def test_what_is_broken_behind_a_request_costs_that_one_nothing(
        self, serve: Serve, serve_raw: ServeRaw, call: Call
    ) -> None:
        speaker = Speaker()
        client = call(serve(serve_raw(speaker).url))
        speaker.begin(client)
        client.send(b"this is no request\r\n\r\n" * 10_000)
        speaker.may_end.set()
        assert b"[DONE]" in client.rest()


class TestLimits:
    @pytest.mark.parametrize(
        "sent",
        [
            GET[:-2] + b"X: " + b"a" * 3000 + b"\r\n\r\n",
            GET[:-2] + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 90) for number in range(40)) + b"\r\n",
            b"GET /v1/" + b"a" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            GET[:-2] + b"X: " + b"a" * 3000,
            GET[:-2] + b"".join(b"X-%d: 1\r\n" % number for number in range(300)),
            b"GET /v1/" + b"a" * 3000,
            b"\r\n" * 1500,
            GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\nX: " + b"a" * 3000 + b"\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: " + b"a" * 600_000,
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;x=" + b"a" * 600_000,
        ],
        ids=["a long field", "many fields", "a long target", "an endless field", "endless fields", "an endless target",
             "nothing but line ends", "an upgrade", "an endless trailer", "an endless chunk extension"],
    )  # fmt: skip
    @pytest.mark.parametrize("again", [False, True], ids=["at once", "on a connection that served before"])
    def test_headers_have_a_length(self, serve: Serve, lab: Lab, call: Call, sent: bytes, again: bool) -> None:
        client = call(serve(lab.url, max_header=2000))
        if again:
            assert client.ask("GET", "/v1/models").status == 200
        client.send(sent)
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (431, "header_too_large", "close")
        assert client.ended()
        assert len(lab.requests) == again

    def test_what_is_refused_is_heard_while_it_still_comes_and_not_served(
        self, serve: Serve, lab: Lab, call: Call
    ) -> None:
        relay = serve(lab.url, max_header=2000)
        client = call(relay)
        client.send(GET[:-2] + b"X: " + b"a" * 3000 + b"\r\n\r\n")
        assert client.answer().status == 431
        for _ in range(100):
            client.send(b"a" * 1000)  # which would fail by now, had the connection been reset
        assert client.ended()
        assert call(relay).ask("PUT", "/v1/files").status == 404
        served = relay.entry(1)
        [refused, _] = relay.entries
        assert (refused["method"], refused["path"], refused["status"]) == ("GET", "/v1/models", 431)
        assert (served["method"], served["status"]) == ("PUT", 404)

    def test_headers_of_just_that_length_pass_and_a_body_is_none(self, serve: Serve, lab: Lab, call: Call) -> None:
        client = call(serve(lab.url, max_header=2000))
        assert client.ask("GET", "/v1/models", [("X", "a" * 1900)]).status == 200
        assert client.ask("PUT", "/v1/files", body=b"a" * 3_000_000).status == 404
        assert client.ask("PUT", "/v1/files", [("Transfer-Encoding", "chunked")], chunked(*[b"a"] * 9000)).status == 404
        assert [len(request.body) for request in lab.requests] == [0, 3_000_000, 9000]

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("sent", [b"G", GET[:-2], b"\r\n"])
    def test_headers_have_their_time(self, serve: Serve, lab: Lab, call: Call, sent: bytes, again: bool) -> None:
        client = call(serve(lab.url, receive_timeout=0.1))
        if again:
            assert client.ask("GET", "/v1/models").status == 200
        client.send(sent)
        answer = client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (408, "request_timeout", "close")
        assert client.ended()

    def test_and_do_not_get_more_of_it_by_coming_slowly(self, serve: Serve, lab: Lab, call: Call) -> None:
        """One byte after the other, each of them in time: a slow loris."""
        client = call(serve(lab.url, receive_timeout=0.3))
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in GET[:-2] * 1000:
                client.send(bytes([byte]))
                client.sock.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    if client.sock.recv(1, socket.MSG_PEEK):
                        break
        assert 0.25 < time.monotonic() - began < 2
        client.sock.settimeout(5)
        assert client.answer().status == 408

    def test_whoever_connects_and_says_nothing_is_left(self, serve: Serve, lab: Lab, call: Call) -> None:
        assert call(serve(lab.url, receive_timeout=0.1)).ended()

    def test_a_long_answer_is_none_of_it(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        speaker = Speaker()
        relay = serve(serve_raw(speaker).url, receive_timeout=0.1)
        client, idle = call(relay), call(relay)
        speaker.begin(client)
        assert idle.ended()  # so long does it take
        speaker.may_end.set()
        assert client.until(b"[DONE]")


class TestOneAfterTheOther:
    def test_requests_on_one_connection(self, served: Served, lab: Lab, call: Call) -> None:
        client = call(served)
        for _ in range(3):
            assert client.ask("GET", "/v1/models").value("connection") is None
            assert client.ask_json(CHAT, {"stream": True, "messages": []}).whole
            assert client.ask("GET", "/_unbroken/health").whole
        assert len(lab.requests) == 6

    def test_until_one_of_both_says_that_it_is_the_last(self, served: Served, call: Call) -> None:
        client = call(served)
        assert client.ask("GET", "/v1/models", [("Connection", "close")]).value("connection") == "close"
        assert client.ended()

    def test_requests_that_do_not_wait_for_answers_get_them_in_order(
        self, served: Served, lab: Lab, call: Call
    ) -> None:
        client = call(served)
        client.send(b"".join(request("PUT", f"/v1/{number}", body=b"x" * number * 1000) for number in range(1, 6)))
        answers = [client.answer().json["error"]["message"] for _ in range(5)]
        assert answers == [f"Unknown request URL: PUT /v1/{number}." for number in range(1, 6)]
        assert [len(request.body) for request in lab.requests] == [1000, 2000, 3000, 4000, 5000]

    @pytest.mark.timing
    def test_a_client_that_has_asked_again_already_is_seen_to_leave(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, promptly: Control
    ) -> None:
        asked = threading.Event()

        def script(sock: socket.socket) -> None:
            read_head(sock)
            asked.set()
            silence(sock)

        upstream = serve_raw(script)
        client = call(serve(upstream.url))
        client.send(GET)
        assert asked.wait(5)
        client.send(GET)
        client.send(GET[:5])
        left = time.monotonic()
        client.close()
        promptly(left, upstream.wait_until_gone())

    def test_an_answer_that_comes_early_is_heard_while_the_request_still_comes(
        self, serve: Serve, lab: Lab, call: Call
    ) -> None:
        client = call(serve(lab.url, max_body=10))
        client.begin("POST", CHAT, [("Content-Length", "1000000")], b"a" * 1000)
        assert client.answer().status == 413
        for _ in range(100):
            client.send(b"a" * 1000)  # which would fail by now, had the connection been reset
        assert client.ended()

    def test_but_not_for_ever(self, serve: Serve, lab: Lab, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unbroken.relay.uvicorn_adapter.LINGER", 0.05)
        client = call(serve(lab.url, max_body=10))
        client.begin("POST", CHAT, [("Content-Length", "1000000")], b"a" * 1000)
        assert client.answer().status == 413
        deadline = time.monotonic() + 5
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - the kernel tells late
            while time.monotonic() < deadline:
                client.send(b"a")


class TestStopping:
    """Told to stop, the relay takes in nothing new, and what runs may finish."""

    def test_what_runs_finishes_and_nothing_new_begins(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        speaker = Speaker()
        relay = serve(serve_raw(speaker).url)
        turn, passed, idle, fresh = call(relay), call(relay), call(relay), call(relay)
        speaker.begin(turn)
        speaker.begin(passed, "/v1/elsewhere")
        assert idle.ask("GET", "/_unbroken/health").status == 200
        relay.stop()
        assert idle.ended()
        assert fresh.ended()
        poll(lambda: refuses(relay.port))
        speaker.may_end.set()
        assert b"[DONE]" in turn.rest()
        assert b"[DONE]" in passed.rest()
        relay.join()
        assert {entry["outcome"] for entry in relay.entries} == {"answered", "passed"}

    def test_what_was_asked_early_does_not_begin_then(self, serve: Serve, serve_raw: ServeRaw, call: Call) -> None:
        speaker = Speaker()
        upstream = serve_raw(speaker)
        relay = serve(upstream.url)
        client, idle = call(relay), call(relay)
        speaker.begin(client)
        client.send(GET)
        relay.stop()
        assert idle.ended()
        speaker.may_end.set()
        rest = client.rest()
        assert rest.endswith(b"0\r\n\r\n")
        assert b"HTTP/1.1" not in rest
        relay.join()
        assert upstream.connections == 1

    def test_the_page_that_watches_does_not_hold_it_up(self, serve: Serve, lab: Lab, call: Call) -> None:
        relay = serve(lab.url, grace=20.0)
        client = call(relay)
        client.begin("GET", "/_unbroken/feed")
        assert client.head().status == 200
        client.until(b"event: hello")
        began = time.monotonic()
        relay.stop()
        assert client.rest().endswith(b"0\r\n\r\n")
        assert relay.join() - began < 2

    @pytest.mark.timing
    def test_what_does_not_finish_in_time_is_told_and_cut(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, promptly: Control
    ) -> None:
        upstream = serve_raw(Speaker())
        relay = serve(upstream.url, grace=0.1)
        turn, passed = call(relay), call(relay)
        Speaker.begin(turn)
        Speaker.begin(passed, "/v1/elsewhere")
        stopped = time.monotonic()
        relay.stop()
        *_, event, end = turn.rest().split(b"\r\n")
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "relay_stopped"
        assert end == b""  # and no last chunk
        assert not passed.rest().endswith(b"0\r\n\r\n")
        upstream.wait_until_gone()
        promptly(stopped, relay.join(), within=1)
        assert [entry["outcome"] for entry in relay.entries] == ["stopped", "stopped"]

    @pytest.mark.parametrize("target", [CHAT, "/v1/elsewhere"])
    def test_and_what_has_not_begun_is_told_by_its_status(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, target: str
    ) -> None:
        upstream = serve_raw(silence)
        relay = serve(upstream.url, grace=0.1)
        client = call(relay)
        client.begin("POST", target, body=b'{"model": "m", "stream": true, "messages": []}')
        upstream.wait_until_connected()
        relay.stop()
        answer = client.answer()
        assert (answer.status, answer.code) == (503, "relay_stopped")
        assert client.ended()
        relay.join()
        assert (relay.entry()["outcome"], relay.entry()["status"]) == ("stopped", 503)

    def test_it_ends_with_whoever_started_it(self, lab: Lab) -> None:
        """A worker: its pipe to the process that started it becomes readable."""
        reading, writing = os.pipe()
        settings = settings_to(lab.url)
        server = make_server(Relay(settings), settings, orphaned=reading)
        sock = listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        with Caller(sock.getsockname()[1]) as client:
            assert client.ask("GET", "/_unbroken/health").status == 200
            os.close(writing)
            assert client.ended()
        thread.join(10)
        assert not thread.is_alive()
        os.close(reading)


class TestSignals:
    """``unbroken relay`` as a program of its own."""

    @pytest.fixture
    def speaker(self) -> Speaker:
        return Speaker()

    @pytest.fixture
    def upstream(self, serve_raw: ServeRaw, speaker: Speaker) -> RawServer:
        return serve_raw(speaker)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_one_lets_turns_finish(
        self, run_relay: RunRelay, upstream: RawServer, speaker: Speaker, call: Call, number: signal.Signals
    ) -> None:
        program, port = run_relay("--upstream", f"lab={upstream.url}/v1")
        client = call(port)
        speaker.begin(client)
        program.send(number)
        poll(lambda: refuses(port))
        speaker.may_end.set()
        assert b"[DONE]" in client.rest()
        ended = program.end()
        assert ended.code == 0
        assert "Traceback" not in ended.err
        assert "POST /v1/chat/completions · 200 answered" in ended.err

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    @pytest.mark.timing
    def test_the_second_one_ends_it_at_once(
        self,
        run_relay: RunRelay,
        upstream: RawServer,
        speaker: Speaker,
        call: Call,
        number: signal.Signals,
        code: int,
        promptly: Control,
    ) -> None:
        program, port = run_relay("--upstream", f"lab={upstream.url}/v1")
        client = call(port)
        speaker.begin(client)
        program.send(number)
        poll(lambda: refuses(port))
        again = time.monotonic()
        program.signal(number)
        promptly(again, within=0.25)
        assert program.end().code == code
        assert not client.rest().endswith(b"0\r\n\r\n")
        upstream.wait_until_gone()

    def test_after_the_grace_it_ends_by_itself(
        self, run_relay: RunRelay, upstream: RawServer, speaker: Speaker, call: Call
    ) -> None:
        program, port = run_relay("--upstream", f"lab={upstream.url}/v1", "--grace", "0.2")
        client = call(port)
        speaker.begin(client)
        assert program.signal(signal.SIGTERM) < 5
        rest = client.rest()
        assert b"relay_stopped" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        ended = program.end()
        assert ended.code == 0
        assert "stopped" in ended.err
        assert "Traceback" not in ended.err

    def test_a_cut_is_no_defect_of_its_own(self, run_relay: RunRelay, serve_raw: ServeRaw, call: Call) -> None:
        upstream = serve_raw(
            lambda sock: (read_head(sock), sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"))
        )
        program, port = run_relay("--upstream", f"lab={upstream.url}/v1")
        assert not call(port).ask("GET", "/v1/files").whole
        program.err.wait_for("cut")
        program.send(signal.SIGTERM)
        assert "Traceback" not in program.end().err


class TestListening:
    def test_at_a_free_port(self) -> None:
        with listen("127.0.0.1", 0) as sock:
            port = sock.getsockname()[1]
            assert origin_of(sock) == f"http://127.0.0.1:{port}"
            assert not sock.getblocking()
            with pytest.raises(
                UsageError, match=f"cannot listen on 127.0.0.1 port {port}: .*in use.*; --port 0 takes a free one"
            ):
                listen("127.0.0.1", port)

    def test_at_ipv6(self, serve: Serve, lab: Lab) -> None:
        relay = serve(lab.url, host="::1")
        assert relay.origin == f"http://[::1]:{relay.port}"
        with Caller(relay.port, host="::1") as client:
            assert client.ask("GET", "/v1/models", host=f"[::1]:{relay.port}").status == 200

    @pytest.mark.parametrize(
        ("host", "port", "complaint"),
        [
            ("192.0.2.1", 0, "cannot listen on 192.0.2.1 port 0"),
            ("nowhere.invalid", 0, "cannot listen on nowhere.invalid"),
            ("127.0.0.1", 65536, "there is none beyond 65535"),
        ],
    )
    def test_where_it_cannot_it_says_so(self, host: str, port: int, complaint: str) -> None:
        with pytest.raises(UsageError, match=complaint):
            listen(host, port)

    def test_only_on_the_loopback_unless_told(self, run_relay: RunRelay, lab: Lab) -> None:
        program, port = run_relay("--upstream", f"lab={lab.url}")
        assert f"listening on http://127.0.0.1:{port}\n" in program.err.text


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (ValueError(), True),
        (ExceptionGroup("", [ValueError()]), True),
        (Broken(), False),
        (asyncio.CancelledError(), False),
        (None, False),
    ],
)
def test_only_defects_are_logged(error: BaseException | None, is_one: bool) -> None:
    record = logging.makeLogRecord({"exc_info": error and (type(error), error, None)})
    assert _is_defect(record) is is_one


def test_a_defect_is_logged_and_its_client_told(
    serve: Serve, lab: Lab, call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    relay = serve(lab.url)
    monkeypatch.setattr("unbroken.relay.app.find_route", lambda *args: 1 // 0)
    assert call(relay).ask("GET", "/v1/models").status == 500
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
