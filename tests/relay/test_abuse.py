"""The relay under abuse: requests that mean two things, clients that do not read, bodies that fill the memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.programs import UNBROKEN, environment
from relay.serving import Call, Serve, Served, ServeRaw, chunked, poll
from unbroken.core.policy import Policy
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.relay.log_writer import LineWriter
from unbroken.relay.routes import is_ambiguous
from unbroken.relay.settings import UpstreamSettings
from wire.servers import RawServer, read_head, saying

CHAT = b'{"model": "lab", "messages": [], "stream": true}'
MIB = 2**20


def post(body: bytes = CHAT, *fields: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class TestUpgrade:
    FIELDS = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")

    @pytest.mark.parametrize("pieces", [1, 7])
    def test_a_request_behind_it_is_not_glued_to_its_body(
        self, served: Served, lab: Upstream, call: Call, pieces: int
    ) -> None:
        client = call(served)
        behind = post(b'{"smuggled": true}', path=b"/v1/x")
        data = post(CHAT, *self.FIELDS) + behind
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            client.send(data[at : at + size])
        assert client.answer("POST").status == 200
        assert client.ended()
        assert [request.body for request in lab.requests] == [CHAT]

    def test_chunks_behind_it_end_where_they_end(self, served: Served, lab: Upstream, call: Call) -> None:
        client = call(served)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        client.send(head + b"\r\n".join(self.FIELDS) + b"\r\n\r\n" + chunked(CHAT) + post(b"{}", path=b"/v1/y"))
        assert client.answer("POST").status == 200
        assert client.ended()
        assert [request.body for request in lab.requests] == [CHAT]


@pytest.mark.parametrize("method", ["TRACE", "trace"])
def test_trace_would_return_the_key_and_is_not_forwarded(serve: Serve, lab: Upstream, call: Call, method: str) -> None:
    upstream = UpstreamSettings("lab", lab.url, key="sk-secret", key_env="K")
    served = serve({"lab": upstream}, inject_key=True, token="t")
    answer = call(served).ask(method, "/lab/v1/models", [("x-unbroken-token", "t")])
    assert answer.status == 501
    assert not lab.requests


@pytest.mark.parametrize(
    "path",
    [
        *["/lab/..;/x", "/lab/..;a=b/x", "/lab/..%3b/x", "/lab/..%00/x", "/lab/x%00", "/lab/%2e%2e%3bx/y"],
        *["/lab/..%20/x", "/lab/..%5cx", "/lab/%252e%252e/x", "/lab/..%09", "/lab/.%2e/x", "/lab/%2e./x"],
        *["/lab/..%2fx", "/lab/..%23/x"],
    ],
)
def test_a_path_that_servers_read_in_several_ways_is_refused(
    served: Served, lab: Upstream, call: Call, path: str
) -> None:
    assert is_ambiguous(path)
    assert call(served).ask("GET", path).status == 400
    assert not lab.requests


@pytest.mark.parametrize(
    "path", ["/lab/v1/a..b/c", "/lab/...", "/lab/a.b;c", "/lab/.well-known/x", "/lab/..a/x", "/v1/x%20y"]
)
def test_a_path_with_dots_in_its_names_is_not(path: str) -> None:
    assert not is_ambiguous(path)


@pytest.mark.parametrize("host", [b"[::1]evil.com", b"[::1", b"::1]", b"localhost:80:80", b"local host", b"[::1]:80x"])
def test_a_host_that_is_malformed_is_not_ours(served: Served, lab: Upstream, call: Call, host: bytes) -> None:
    client = call(served)
    client.send(b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert client.answer().status in (400, 421)
    assert not lab.requests


class TestResponsesThatContradictThemselves:
    @pytest.mark.parametrize("status", [204, 304])
    def test_a_status_without_a_body_that_promises_one(
        self, serve: Serve, serve_raw: ServeRaw, call: Call, status: int
    ) -> None:
        raw = serve_raw(saying(b"HTTP/1.1 %d X\r\nContent-Length: 10\r\n\r\n" % status))
        served = serve(raw.url)
        client = call(served)
        client.send(post())
        answer = client.answer("POST")
        assert (answer.status, answer.value("content-length"), answer.whole) == (status, None, True)
        assert served.entry()["status"] == status

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
    def test_both_lengths(self, serve: Serve, serve_raw: ServeRaw, call: Call, path: str) -> None:
        both = b"HTTP/1.1 400 X\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw = serve_raw(saying(both + chunked(b"{" + b" " * 20 + b"}")))
        served = serve(raw.url)
        client = call(served)
        client.send(
            post(path=path.encode()) if "chat" in path else b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        answer = client.answer("POST")
        assert (answer.status, len(answer.body), answer.whole) == (400, 22, True)


class TestBudgets:
    def test_turns_whose_request_is_still_arriving_count(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, max_turns=2)
        arriving = [call(served) for _ in range(2)]
        for client in arriving:
            client.send(post()[:-1])
        poll(lambda: served.relay._budget.turns == 2)
        answer = call(served).ask("POST", "/v1/chat/completions", [], CHAT)
        assert (answer.status, answer.code) == (503, "too_many_turns")
        for client in arriving:
            client.send(CHAT[-1:])
            assert client.answer("POST").whole
        poll(lambda: served.relay._budget.turns == 0)
        assert call(served).ask("POST", "/v1/chat/completions", [], CHAT).status == 200

    def test_all_held_bytes_together_have_a_limit(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, max_held=3 * MIB)
        big = post(json.dumps({"model": "lab", "messages": [], "x": "a" * 2 * MIB}).encode())
        first = call(served)
        first.send(big[:-1])
        poll(lambda: served.relay._budget.held > 2 * MIB - 1000)
        second = call(served)
        second.send(big)
        answer = second.answer("POST")
        assert (answer.status, answer.code) == (503, "too_much_held")
        first.close()
        poll(lambda: served.relay._budget.held == 0)

    def test_a_large_body_does_not_hold_up_the_others(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve(lab.url, max_body=64 * MIB)
        body = json.dumps({"model": "lab", "messages": [{"role": "user", "content": "QUJD" * 12 * MIB}]}).encode()
        longest = 0.0

        def tick() -> None:
            nonlocal longest
            began = time.thread_time()
            longest = max(longest, time.thread_time() - began)

        client = call(served)
        sender = threading.Thread(target=client.send, args=(post(body),))
        sender.start()
        stalls = served.run(lambda: _longest_stall(lambda: len(lab.requests) > 0))
        sender.join()
        assert stalls < 0.3, "CPU seconds in which the loop did nothing else"
        assert client.answer("POST").status == 200


async def _longest_stall(done: Callable[[], bool]) -> float:
    """CPU seconds that the loop's thread spent at most between two of its turns."""
    import asyncio

    longest = 0.0
    while not done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
        await asyncio.sleep(0.001)
    return longest


class TestAClientThatDoesNotRead:
    ENDLESS = ScriptedAnswer(text=["x" * 10_000] * 2000)

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files/1"])
    def test_is_left_after_the_send_timeout(self, serve: Serve, stack: Any, call: Call, path: str) -> None:
        upstream = stack.enter_context(Upstream(answer=self.ENDLESS)) if "chat" in path else None
        raw = None if upstream else stack.enter_context(RawServer(_endless))
        served = serve((upstream or raw).url, send_timeout=0.4)
        client = call(served, small=True)
        client.send(post() if upstream else b"GET /v1/files/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        entry = served.entry()
        assert entry["outcome"] == "left"
        assert "--send-timeout" in entry["detail"]
        if upstream:
            poll(lambda: upstream.requests[0].gone)
        poll(lambda: served.tasks() <= 4)
        assert not client.answer("POST").whole

    def test_but_not_a_slow_one(self, serve: Serve, stack: Any, call: Call) -> None:
        upstream = stack.enter_context(Upstream(answer=ScriptedAnswer(text=["x" * 10_000] * 100)))
        served = serve(upstream.url, send_timeout=0.5)
        client = call(served, small=True)
        client.send(post())
        received = b""
        while b"[DONE]" not in received:
            received += client.sock.recv(20_000)
            time.sleep(0.005)  # a reader that is slow, not one that waits for something
        assert served.entry()["outcome"] == "answered"


def _endless(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while True:
        try:
            sock.sendall(b"x" * 65536)
        except OSError:
            return


class TestALogThatIsNotRead:
    @pytest.fixture
    def pipe(self) -> Any:
        reading, writing = os.pipe()
        yield reading, writing
        os.close(reading)
        os.close(writing)

    def test_drops_lines_and_counts_them(self, pipe: tuple[int, int]) -> None:
        reading, writing = pipe
        lines = LineWriter(writing, capacity=100)
        for number in range(5000):
            lines(f"{number} " + "x" * 200)
        assert lines.dropped > 2000
        began = time.monotonic()
        lines.close(0.2)
        assert time.monotonic() - began < 2
        assert b"\n" in os.read(reading, 65536)

    def test_says_so_when_it_is_read_again(self, pipe: tuple[int, int]) -> None:
        reading, writing = pipe
        lines = LineWriter(writing, capacity=10)
        for _ in range(500):
            lines("x" * 1000)
        seen = b""
        while b"lines were dropped: the log was not read" not in seen:
            seen += os.read(reading, 65536)
            lines("one more")
        lines.close(0.2)

    def test_does_not_stop_the_relay(self, lab: Upstream, tmp_path: Path, call: Call) -> None:
        """Not even with more refusals than a pipe takes, nor its end by SIGTERM."""
        command = [*UNBROKEN, "relay", "--port", "0", "--upstream", f"lab={lab.url}"]
        with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE) as program:
            assert program.stderr
            port = int(program.stderr.readline().rpartition(b":")[2])
            for _ in range(400):
                with call(port) as client:
                    assert client.ask("GET", "/" + "x" * 400).status == 404
            program.send_signal(signal.SIGTERM)
            assert program.wait(10) == 0


class TestEachRequestIsRecordedOnce:
    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
            (b"GET /x HTTP/9\r\n\r\n", 400),
            (b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
            (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
            (b"GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n", 505),
        ],
        ids=["too long", "no HTTP", "no such method", "two hosts", "HTTP/1.0"],
    )
    def test_of_those_that_are_refused(self, served: Served, call: Call, sent: bytes, status: int) -> None:
        client = call(served)
        client.send(sent)
        assert client.answer().status == status
        entry = served.entry()
        assert (entry["status"], entry["outcome"]) == (status, "rejected")
        assert len(served.entries) == 1
        metrics = call(served).ask("GET", "/_unbroken/metrics").body.decode()
        assert 'unbroken_requests_total{outcome="rejected"} 1.0' in metrics

    def test_of_a_defect(self, served: Served, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("unbroken.relay.app.find_route", broken)
        assert call(served).ask("GET", "/v1/models").status == 500
        assert served.entry()["outcome"] == "defect"


class TestASecretPath:
    def test_keeps_everybody_else_out(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve({"lab": UpstreamSettings("lab", lab.url)}, path_secret="s3cret")
        for path in (
            "/lab/v1/models",
            "/_unbroken/",
            "/_unbroken",
            "/_unbroken/health",
            "/s3cre/lab/v1/models",
            "/",
            "/s3cretx/",
        ):
            answer = call(served).ask("GET", path)
            assert (answer.status, answer.code) == (404, "not_found"), path
        assert not lab.requests
        assert call(served).ask("GET", "/s3cret/lab/v1/models").status == 200
        assert call(served).ask("GET", "/s3cret/_unbroken").value("location") == "/s3cret/_unbroken/"
        assert call(served).ask("GET", "/s3cret/_unbroken/health").status == 200

    def test_is_in_no_log_and_in_no_request_upstream(self, serve: Serve, lab: Upstream, call: Call) -> None:
        served = serve({"lab": UpstreamSettings("lab", lab.url)}, path_secret="s3cret")
        assert call(served).ask("POST", "/s3cret/lab/v1/chat/completions", [], CHAT).status == 200
        assert "s3cret" not in json.dumps([served.entry(), lab.requests[0].target, lab.requests[0].headers])


def test_sighup_lets_running_turns_finish(lab: Upstream, run_relay: Any, stack: Any, call: Call) -> None:
    slow = stack.enter_context(Upstream(answer=ScriptedAnswer(think=0.5)))
    program, port = run_relay("--upstream", f"lab={slow.url}", "--default", "lab")
    client = call(port)
    client.send(post())
    poll(lambda: slow.requests)
    program.send(signal.SIGHUP)
    assert client.answer("POST").whole
    assert program.wait() == 0


def test_a_cut_costs_no_more_than_its_policy_allows(serve: Serve, stack: Any, call: Call) -> None:
    """The budget of turns is given back however a turn ends."""
    upstream = stack.enter_context(Upstream(faults=[Fault("rst", "after_token")] * 3))
    served = serve(upstream.url, max_turns=1, policy=Policy(backoff_initial=0.01))
    for _ in range(3):
        assert not call(served).ask("POST", "/v1/chat/completions", [], CHAT).whole
    assert call(served).ask("POST", "/v1/chat/completions", [], CHAT).whole
