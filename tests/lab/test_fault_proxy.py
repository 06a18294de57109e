"""The faults of the lab before a real upstream, whose part is played by the lab's own."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from lab.clients import CHAT, STREAM, RawClient, dechunk, events, split_head, text_of
from ports import free_port
from unbroken.errors import UsageError
from unbroken.lab import CuttingProxy, Fault, FaultProxy, Point, ScriptedAnswer, Upstream, parse_fault
from unbroken.lab.fault_proxy import PassedRequest

WAIT = 30.0

RICH = ScriptedAnswer(text="One two three four.", reasoning=("Hm", "m."), comments=2)

CALLS = {
    "chat": (CHAT, STREAM),
    "completions": ("/v1/completions", b'{"model": "m", "prompt": "p", "stream": true}'),
    "responses": ("/v1/responses", b'{"model": "m", "input": "hi", "stream": true}'),
    "anthropic": ("/v1/messages", b'{"model": "m", "max_tokens": 9, "messages": [], "stream": true}'),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", b'{"contents": []}'),
    "interactions": ("/v1beta/interactions", b'{"model": "m", "input": "hi", "stream": true}'),
}

PLACES = ["after_headers", "after_comments", "after_role", "after_reasoning", "after_token", "after_finish"]
PLACES += ["after_usage", "after_done", "after_events:0", "after_events:2", "after_bytes:0", "after_bytes:77"]
PLACES += ["after_bytes:999999", "after_events:999"]


class PatientClient(RawClient):
    """A client for a busy machine."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.socket.settimeout(WAIT)


def passed(proxy: FaultProxy, count: int = 1) -> list[PassedRequest]:
    assert proxy.wait_for(lambda: len(proxy.passed) == count, WAIT)
    return proxy.passed


def body_at(port: int, path: str = CHAT, body: bytes = STREAM) -> tuple[bytes, OSError | None]:
    """The body that a client gets, up to where its framing breaks, and how the connection ended."""
    with PatientClient(port) as client:
        client.post(body, path, {"connection": "close"})
        data, error = client.read_to_end()
    head, rest = split_head(data)
    return dechunk(rest)[0] if b"chunked" in head.lower() else rest, error


# -- what it must not change


def test_an_answer_is_passed_on_as_it_came() -> None:
    with Upstream(answer=RICH) as upstream, FaultProxy(upstream.url) as proxy, PatientClient(proxy.port) as client:
        client.post(headers={"authorization": "Bearer sk-secret", "accept-encoding": "gzip", "x-lab": "1"})
        response, body = client.read_response()
        assert proxy.url == f"http://127.0.0.1:{proxy.port}/v1"
        request = upstream.requests[0]
        assert body == request.sent
        assert request.body == STREAM
        assert (request.header("authorization"), request.header("x-lab")) == ("Bearer sk-secret", "1")
        assert (request.header("host"), request.header("accept-encoding")) == (
            f"127.0.0.1:{upstream.port}",
            "identity",
        )
        headers = dict(response.headers)
        assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert headers[b"x-request-id"] == b"req_lab_1"
        told = passed(proxy)[0]
        assert (told.method, told.path, told.status, told.end) == ("POST", CHAT, 200, "whole")
        assert (told.events, told.bytes, told.fault) == (len(events(body)), len(body), None)


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("target", ["/v1/models?limit=3", "/models?limit=3"])
def test_the_path_of_the_base_url_is_added_where_it_is_missing(base: str, target: str) -> None:
    with Upstream() as upstream, FaultProxy(upstream.origin + base) as proxy, PatientClient(proxy.port) as client:
        client.request("GET", target)
        assert client.read_response()[0].status_code == 200
        added = base.rstrip("/") if target.startswith("/models") else ""
        assert upstream.requests[0].target == added + target
        assert passed(proxy)[0].path == target.partition("?")[0]


def test_a_connection_is_used_again() -> None:
    answer = ScriptedAnswer(framing="length")
    with Upstream(answer=answer) as upstream, FaultProxy(upstream.url) as proxy, PatientClient(proxy.port) as client:
        for _ in range(2):
            client.post()
            assert text_of(client.read_response()[1]) == "Hello from the lab."
        client.post(b'{"model": "lab"}')
        response, body = client.read_response()
        assert json.loads(body)["object"] == "chat.completion"
        assert dict(response.headers)[b"content-length"] == str(len(body)).encode()
        assert proxy.connections == 1
        assert [told.events for told in passed(proxy, 3)] == [9, 9, 0]


def test_a_response_without_a_body_is_passed_on() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 700\r\nx-lab: 1\r\n\r\n"
    with (
        speaking([answer]) as port,
        FaultProxy(f"http://127.0.0.1:{port}") as proxy,
        PatientClient(proxy.port) as client,
    ):
        client.request("HEAD", "/v1/models", headers={"connection": "close"})
        head, rest = split_head(client.read_to_end()[0])
        assert b"content-length: 700" in head
        assert rest == b""


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_each_event_is_passed_on_as_soon_as_it_is_whole(ending: bytes) -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    seen = threading.Semaphore(0)
    said = [head + b"data: 1" + ending, b"data: ", b"2" + ending + b": no event" + ending, b"data: 3" + ending]
    with (
        speaking(said, before_the_last=seen) as port,
        FaultProxy(f"http://127.0.0.1:{port}") as proxy,
        PatientClient(proxy.port) as client,
    ):
        client.post()
        assert b"transfer-encoding" not in client.read_until(b"\r\n\r\n")  # its end is that of the connection
        assert client.read_until(b"data: 2" + ending).startswith(b"data: 1" + ending)
        seen.release()  # the upstream says no more until here
        assert client.read_to_end() == (b": no event" + ending + b"data: 3" + ending, None)
        assert passed(proxy)[0].events == 3


@pytest.mark.parametrize("kind", ["rst", "fin"])
@pytest.mark.parametrize("at", ["before_headers", "after_token"])
def test_a_cut_of_the_upstream_itself_arrives_as_what_it_was(kind: Any, at: Point) -> None:
    with Upstream(faults=[Fault(kind, at, 0.1)]) as upstream, FaultProxy(upstream.url) as proxy:
        body, error = body_at(proxy.port)
        assert isinstance(error, ConnectionResetError) if kind == "rst" else error is None
        assert body == upstream.requests[0].sent
        assert (passed(proxy)[0].end, passed(proxy)[0].fault) == ("upstream", None)


def test_a_client_that_leaves_ends_the_request_to_the_upstream() -> None:
    with Upstream(answer=ScriptedAnswer(think=600)) as upstream, FaultProxy(upstream.url) as proxy:
        with PatientClient(proxy.port) as client:
            client.post()
            assert upstream.wait_for(lambda: upstream.requests and upstream.requests[0].head_sent, WAIT)
        assert upstream.wait_for(lambda: upstream.requests[0].gone, WAIT)
        assert passed(proxy)[0].end == "client"


@contextlib.contextmanager
def speaking(pieces: list[bytes], before_the_last: threading.Semaphore | None = None) -> Iterator[int]:
    """The port of a server that answers one request with these bytes, and waits before the last of them."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(WAIT)
            data = b""
            while b"\r\n\r\n" not in data or not data.endswith((b"}", b"\r\n\r\n")):
                data += sock.recv(65_536)
            for number, piece in enumerate(pieces, 1):
                if before_the_last and number == len(pieces):
                    before_the_last.acquire(timeout=WAIT)
                sock.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(WAIT)


# -- the faults


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dialect", CALLS)
def test_a_place_is_where_it_is_in_the_lab(dialect: str, place: str) -> None:
    path, call = CALLS[dialect]
    fault = parse_fault(f"fin@{place}")
    # The lab counts only a part of what comes before output to the prelude here.
    in_lab = parse_fault("fin@after_events:4") if (dialect, place) == ("responses", "after_role") else fault
    broken, real = Upstream(answer=RICH, faults=[in_lab]), Upstream(answer=RICH)
    with broken, real, FaultProxy(real.origin, faults=[fault]) as proxy:
        assert body_at(proxy.port, path, call) == body_at(broken.port, path, call)
        told = passed(proxy)[0]
        assert (told.fault, told.end) == (fault, "fault")
        body = broken.requests[0].sent
        assert told.bytes == len(body)
        assert told.events == sum(block.startswith((b"data", b"event")) for block in body.split(b"\n\n")[:-1])


@pytest.mark.parametrize("dialect", [name for name in CALLS if name != "interactions"])
def test_characters_are_counted_in_whole_events(dialect: str) -> None:
    path, call = CALLS[dialect]
    answer = ScriptedAnswer(text="One two three four.")
    with (
        Upstream(answer=answer) as real,
        FaultProxy(real.origin, faults=[parse_fault("fin@after_characters:5")]) as proxy,
    ):
        body, _ = body_at(proxy.port, path, call)
    assert b" two" in body
    assert b" three" not in body


@pytest.mark.parametrize(
    ("fault", "status", "ends_well"),
    [
        ("clean_end@after_token", 200, True),
        ("status=429@before_headers", 429, True),
        ("status=500@before_headers", 500, True),
        ("error_event@after_role", 200, True),
        ("malformed@after_role", 200, True),
        ("raw=: hi\\n\\n@after_headers", 200, True),
        ("pause=0.01@after_headers", 200, True),
        ("pause=0.01@before_headers", 200, True),
        ("stall=0.01@after_token", 200, False),
        ("truncated_chunk@after_token", 200, False),
        ("bad_chunk@after_token", 200, False),
        ("short_length@after_token", 200, False),
        ("short_length@after_done", 200, False),
        ("fin@after_done", 200, False),
    ],
)
def test_a_fault_is_what_it_is_in_the_lab(fault: str, status: int, ends_well: bool) -> None:
    faults = [parse_fault(fault)]
    with Upstream(faults=faults) as broken, Upstream() as real, FaultProxy(real.url, faults=faults) as proxy:
        heads, endings, bodies = [], [], []
        for port in (broken.port, proxy.port):
            with PatientClient(port) as client:
                client.post(headers={"connection": "close"})
                head, rest = split_head(client.read_to_end()[0])
                heads.append({line for line in head.split(b"\r\n") if not line.startswith(b"content-length")})
                endings.append(rest.endswith(b"\r\n0\r\n\r\n") or b"content-length" in head)
                bodies.append(rest)
        assert heads[0] == heads[1]
        assert bodies[0] == bodies[1]
        told = passed(proxy)[0]
        assert (told.status, told.fault) == (status, faults[0])
        assert endings[1] or not ends_well


@pytest.mark.parametrize("fault", ["status=429@before_headers", "rst@before_headers", "fin@before_headers"])
def test_a_fault_before_the_headers_costs_nothing_at_the_upstream(fault: str) -> None:
    with Upstream() as real, FaultProxy(real.url, faults=[parse_fault(fault)]) as proxy:
        body_at(proxy.port)
        assert passed(proxy)[0].end == "fault"
        assert not real.requests
        assert text_of(body_at(proxy.port)[0]) == "Hello from the lab."
        assert [told.number for told in passed(proxy, 2)] == [1, 2]


def test_a_terminal_fault_lets_the_upstream_go_at_once() -> None:
    answer = ScriptedAnswer(text=("word",) * 3, gap=600)
    with Upstream(answer=answer) as real, FaultProxy(real.url, faults=[Fault("stall", "after_token")]) as proxy:
        with PatientClient(proxy.port) as client:
            client.post()
            client.read_until(b'"word"')
            assert real.wait_for(lambda: real.requests[0].gone, WAIT)
            assert not proxy.passed  # the client still waits
        assert passed(proxy)[0].end == "client"


def test_a_refusal_has_a_retry_after() -> None:
    fault = Fault("status", "before_headers", status=429, headers={"retry-after": "7"})
    with Upstream() as real, FaultProxy(real.url, faults=[fault]) as proxy, PatientClient(proxy.port) as client:
        client.post()
        response, body = client.read_response()
    assert dict(response.headers)[b"retry-after"] == b"7"
    assert json.loads(body)["error"]["message"]


def test_a_connection_can_be_reset_before_its_request() -> None:
    with Upstream() as real, FaultProxy(real.url, faults=[Fault("rst", "connect")]) as proxy:
        with PatientClient(proxy.port) as client, contextlib.suppress(OSError):
            client.post()
            assert isinstance(client.read_to_end()[1], ConnectionResetError)
        assert text_of(body_at(proxy.port)[0]) == "Hello from the lab."
        assert len(real.requests) == len(passed(proxy)) == 1


@pytest.mark.parametrize("at", ["after_comments", "after_role", "after_token", "after_characters"])
def test_a_document_is_cut_in_its_middle(at: Point) -> None:
    with Upstream() as real, FaultProxy(real.url, faults=[Fault("clean_end", at)]) as proxy:
        body, _ = body_at(proxy.port, body=b'{"model": "lab"}')
        whole = real.requests[0].sent
        assert body == whole[: len(whole) // 2]


@pytest.mark.parametrize("at", ["after_finish", "after_usage", "after_done", "after_events"])
def test_or_at_its_end(at: Point) -> None:
    with (
        Upstream() as real,
        FaultProxy(real.url, faults=[Fault("fin", at)]) as proxy,
        PatientClient(proxy.port) as client,
    ):
        client.post(b'{"model": "lab"}')
        data, _ = client.read_to_end()
        assert dechunk(split_head(data)[1]) == (real.requests[0].sent, b"")


def test_only_requests_with_a_path_meet_faults() -> None:
    faults = [Fault("status", "before_headers")]
    with (
        Upstream() as real,
        FaultProxy(real.url, faults=faults, path="/chat/") as proxy,
        PatientClient(proxy.port) as client,
    ):
        client.request("GET", "/v1/models")
        assert client.read_response()[0].status_code == 200
        client.post()
        assert client.read_response()[0].status_code == 503


def test_a_websocket_is_refused_and_meets_no_fault() -> None:
    with Upstream() as real, FaultProxy(real.url, faults=[Fault("status", "before_headers")]) as proxy:
        with PatientClient(proxy.port) as client:
            client.request("GET", "/v1/responses", headers={"connection": "Upgrade", "upgrade": "websocket"})
            assert client.read_response()[0].status_code == 426
        assert (passed(proxy)[0].end, passed(proxy)[0].status, real.requests) == ("refused", 426, [])


# -- TLS to the upstream, and upstreams that cannot be reached


def test_the_upstreams_certificate_is_verified(
    authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with Upstream(ssl_context=server_tls, answer=RICH) as real:
        faults = [None, Fault("rst", "after_token", 0.1)]
        with FaultProxy(real.url, ca_file=str(ca_file), faults=faults) as proxy:
            assert body_at(proxy.port) == (real.requests[0].sent, None)
            assert real.requests[0].http_version == "1.1"
            assert isinstance(body_at(proxy.port)[1], ConnectionResetError)
        with FaultProxy(real.url) as proxy, PatientClient(proxy.port) as client:
            client.post()
            response, body = client.read_response()
            assert response.status_code == 502
            assert "certificate" in json.loads(body)["error"]["message"]
            assert passed(proxy)[0].end == "unreachable"
            assert "certificate" in passed(proxy)[0].reason
        assert len(real.requests) == 2


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_leads_to_the_upstream(
    secure: bool, authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    real = Upstream(ssl_context=server_tls if secure else None)
    with real, CuttingProxy(auth=("joe", "p@ss")) as way:
        url = f"http://joe:p%40ss@127.0.0.1:{way.port}"
        with FaultProxy(real.url, ca_file=str(ca_file), proxy=url, faults=[Fault("fin", "after_token")]) as proxy:
            body_at(proxy.port)
            assert text_of(body_at(proxy.port)[0]) == "Hello from the lab."
        assert [tunnel.kind for tunnel in way.tunnels] == ["connect", "connect"]


def test_a_proxy_that_refuses_is_told() -> None:
    with CuttingProxy(refuse=403) as way, FaultProxy("http://127.0.0.1:9", proxy=way.url) as proxy:
        with PatientClient(proxy.port) as client:
            client.post()
            assert client.read_response()[0].status_code == 502
        assert "the proxy answers 'HTTP/1.1 403" in passed(proxy)[0].reason


@pytest.mark.parametrize("url", ["socks5://h:1", "nope", "https://joe:s3cret@h"])
def test_other_proxies_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        FaultProxy("http://h", proxy=url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("faults_for", "status"), [("requests", 503), ("generations", 200)])
def test_faults_may_be_for_generation_calls_alone(faults_for: Any, status: int) -> None:
    faults = [Fault("status", "before_headers")]
    real = Upstream()
    with real, FaultProxy(real.url, faults=faults, faults_for=faults_for) as proxy, PatientClient(proxy.port) as client:
        client.request("GET", "/v1/models")
        assert client.read_response()[0].status_code == status
        client.post()
        assert client.read_response()[0].status_code == (200 if status == 503 else 503)


def test_an_upstream_that_is_not_there_is_told() -> None:
    with FaultProxy(f"http://127.0.0.1:{free_port()}") as proxy, PatientClient(proxy.port) as client:
        client.post(path="/v1/messages")
        response, body = client.read_response()
        assert (response.status_code, json.loads(body)["type"]) == (502, "error")
        assert "refused" in passed(proxy)[0].reason


@pytest.mark.parametrize("fault", ["goaway@after_role", "refused_stream@before_headers", "rst@handshake"])
def test_faults_that_clients_cannot_meet_are_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=r"HTTP/2|TLS"):
        FaultProxy("http://127.0.0.1:1", faults=[parse_fault(fault)])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nope", "not an http"),
        ("ftp://h", "not an http"),
        ("http://", "names no host"),
        ("http://h:99999", "cannot be read"),
        ("https://joe:s3cret@h/v1", "has a user"),
        ("https://h/v1?key=s3cret", "has a user, a query"),
    ],
)
def test_what_is_no_base_url_is_refused_without_its_secrets(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        FaultProxy(url)
    assert "s3cret" not in str(caught.value)


def test_nothing_of_the_content_is_kept_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Upstream() as real, FaultProxy(real.url) as proxy:
        body_at(proxy.port, f"{CHAT}?key=s3cret", b'{"model": "s3cret", "messages": [], "stream": true}')
        assert "s3cret" not in repr(passed(proxy)) + caplog.text
