from __future__ import annotations

import errno
import json
import socket
import ssl
import time
from typing import Any

import httpcore2
import openai
import pytest

from lab.clients import CHAT, STREAM, RawClient, Stopwatch, dechunk, events, is_reset_at_once, split_head, text_of
from timing import Control
from unbroken.lab import POINTS, Continuation, Fault, Point, ScriptedAnswer, Upstream

BODY_POINTS = POINTS[POINTS.index("after_headers") :]


def done(upstream: Upstream, count: int = 1) -> bool:
    return upstream.wait_for(lambda: len(upstream.requests) == count and upstream.requests[-1].done, 10)


def gone(upstream: Upstream) -> bool:
    return upstream.wait_for(lambda: upstream.requests and upstream.requests[-1].gone, 10)


# -- what it says when nothing goes wrong


def test_streams_an_answer() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.post()
        response, body = client.read_response()
        assert done(upstream)
    headers = dict(response.headers)
    assert response.status_code == 200
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"transfer-encoding"] == b"chunked"
    role, *tokens, finish, usage, end = events(body)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [token["choices"][0]["delta"]["content"] for token in tokens] == ["Hello", " from", " the", " lab", "."]
    assert finish["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert end == "[DONE]"
    assert upstream.requests[0].sent == body


def test_whoever_tries_a_websocket_is_told_to_ask_over_http() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.request("GET", "/v1/responses", headers={"upgrade": "WebSocket", "connection": "upgrade"})
        assert client.read_response()[0].status_code == 426


def test_streams_reasoning_and_tool_calls() -> None:
    answer = ScriptedAnswer(
        text=(), reasoning=("Hm", "m."), tool_calls=[("call_1", "look", ['{"a":', "1}"])], usage=None
    )
    with Upstream(answer=answer) as upstream, RawClient(upstream.port) as client:
        client.post()
        _, body = client.read_response()
    deltas = [event["choices"][0]["delta"] for event in events(body)[:-1]]
    assert deltas[1:3] == [{"reasoning_content": "Hm"}, {"reasoning_content": "m."}]
    assert deltas[3]["tool_calls"][0]["function"] == {"name": "look", "arguments": ""}
    assert deltas[3]["tool_calls"][0]["id"] == "call_1"
    assert [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas[4:6]] == ['{"a":', "1}"]
    assert deltas[6:] == [{}]


def test_a_string_is_told_word_by_word() -> None:
    answer = ScriptedAnswer(text="one  two three ")
    assert answer.tokens == ("one", "  two", " three", " ")
    with Upstream(answer=answer) as upstream, RawClient(upstream.port) as client:
        client.post()
        assert text_of(client.read_response()[1]) == "one  two three "


def test_answers_whole_when_no_stream_is_asked_for() -> None:
    answer = ScriptedAnswer(reasoning=("Hm",), tool_calls=[("call_1", "look", ["{", "}"])])
    with Upstream(answer=answer) as upstream, RawClient(upstream.port) as client:
        client.post(b'{"model": "lab"}')
        _, body = client.read_response()
        assert done(upstream)
    completion = json.loads(body)
    message = completion["choices"][0]["message"]
    assert completion["object"] == "chat.completion"
    assert message["content"] == "Hello from the lab."
    assert message["reasoning_content"] == "Hm"
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert completion["usage"]["total_tokens"] == 10
    assert upstream.requests[0].sent == body


def test_the_ids_of_answers_differ() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        ids = set()
        for _ in range(2):
            client.post()
            ids.add(events(client.read_response()[1])[0]["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/v1/models", b"", 200),
        ("GET", "/v1/files", b"", 404),
        ("GET", CHAT, b"", 404),
        ("POST", "/other/chat/completions?x=1", STREAM, 200),
        ("POST", CHAT, b"not json", 400),
    ],
)
def test_knows_its_paths(method: str, target: str, body: bytes, status: int) -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.request(method, target, body)
        response, answer = client.read_response()
    assert response.status_code == status
    if status >= 400:
        assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}


def test_the_openai_sdk_understands_it() -> None:
    with Upstream() as upstream, openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        assert client.models.list().data[0].id == "lab"
        messages: Any = [{"role": "user", "content": "hi"}]
        whole = client.chat.completions.create(model="lab", messages=messages)
        assert whole.choices[0].message.content == "Hello from the lab."
        stream = client.chat.completions.create(model="lab", messages=messages, stream=True)
        deltas = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(deltas) == "Hello from the lab."


@pytest.mark.timing
@pytest.mark.parametrize("think_at", ["before_headers", "after_headers", "after_role"])
def test_thinks_where_it_is_told_to(think_at: Any, promptly: Control) -> None:
    answer = ScriptedAnswer(think=0.15, think_at=think_at, comments=1)
    markers = {"before_headers": b"HTTP", "after_headers": b": keep-alive", "after_role": b"Hello"}
    before = list(markers.values())[list(markers).index(think_at) - 1] if think_at != "before_headers" else b""
    with Upstream(answer=answer) as upstream, RawClient(upstream.port) as client:
        watch = Stopwatch()
        client.post()
        client.read_until(before)
        promptly(watch.started)
        client.read_until(markers[think_at])
        assert watch.seconds >= 0.15


@pytest.mark.timing
def test_comments_are_spread_over_the_silence(promptly: Control) -> None:
    with Upstream(answer=ScriptedAnswer(think=0.2, comments=2)) as upstream, RawClient(upstream.port) as client:
        watch = Stopwatch()
        client.post()
        client.read_until(b": keep-alive")
        assert watch.seconds >= 0.1
        promptly(watch.started, within=0.18)
        client.read_until(b": keep-alive")
        assert watch.seconds >= 0.2
        promptly(watch.started, within=0.3)


@pytest.mark.timing
def test_keeps_gaps_between_tokens(promptly: Control) -> None:
    with (
        Upstream(answer=ScriptedAnswer(text=("a", "b", "c"), gap=0.08)) as upstream,
        RawClient(upstream.port) as client,
    ):
        watch = Stopwatch()
        client.post()
        client.read_until(b'"c"')
        assert watch.seconds >= 0.16
        promptly(watch.started, within=0.3)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_frames_as_it_is_told_to(framing: Any) -> None:
    with Upstream(answer=ScriptedAnswer(framing=framing)) as upstream, RawClient(upstream.port) as client:
        client.post()
        response, body = client.read_response()
        assert done(upstream)
        headers = dict(response.headers)
        assert headers.get(b"transfer-encoding") == (b"chunked" if framing == "chunked" else None)
        assert headers.get(b"content-length") == (str(len(body)).encode() if framing == "length" else None)
        assert headers.get(b"connection") == (b"close" if framing == "close" else None)
        assert upstream.requests[0].sent == body
        if framing == "close":
            assert client.read_to_end() == (b"", None)
        else:
            client.post()
            assert client.read_response()[0].status_code == 200


@pytest.mark.parametrize(
    "request_head",
    [b"GET /v1/models HTTP/1.1\r\nhost: lab\r\nConnection: Close\r\n\r\n", b"GET /v1/models HTTP/1.0\r\n\r\n"],
)
def test_closes_when_the_client_wants_it(request_head: bytes) -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.send(request_head)
        head, body = split_head(client.read_to_end()[0])
    assert b"connection: close" in head
    assert body.endswith(upstream.requests[0].sent[-10:])


def test_serves_pipelined_requests_in_turn() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        request = b"GET /v1/%s HTTP/1.1\r\nhost: lab\r\n\r\n"
        client.send(request % b"models" + request % b"nothing")
        assert client.read_until(b"]}").startswith(b"HTTP/1.1 200 OK")
        assert b"HTTP/1.1 404 Not Found" in client.read_until(b"}}")


def test_asks_for_a_body_that_waits_to_be_asked_for() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.send(
            b"POST %s HTTP/1.1\r\nhost: lab\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n" % CHAT.encode()
        )
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.send(b"{}")
        assert client.read_response()[0].status_code == 200


def test_refuses_what_is_no_http() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.send(b"what is this\r\n\r\n")
        data, error = client.read_to_end()
    assert data.startswith(b"HTTP/1.1 400 ")
    assert error is None
    assert upstream.requests == []


# -- what it remembers


def test_records_requests() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as first, RawClient(upstream.port) as second:
        before = time.monotonic()
        first.post(headers={"X-Lab": "Yes"}, path=CHAT + "?a=b")
        first.read_response()
        second.request("GET", "/v1/models")
        second.read_response()
        assert done(upstream, 2)
    request, models = upstream.requests
    assert (request.number, request.method, request.target) == (1, "POST", CHAT + "?a=b")
    assert (request.http_version, request.body) == ("1.1", STREAM)
    assert ("x-lab", "Yes") in request.headers
    assert request.header("X-LAB") == "Yes"
    assert request.header("x-other") is None
    assert request.head_sent_at is not None
    assert request.done_at is not None
    assert before < request.received_at <= request.head_sent_at <= request.done_at
    assert (request.gone, request.head_sent, request.fault) == (False, True, None)
    assert (models.number, models.method, models.body) == (2, "GET", b"")
    assert {request.connection, models.connection} == {1, 2}
    assert upstream.connections == 2


@pytest.mark.timing
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "answer",
    [
        ScriptedAnswer(think=60, think_at="before_headers"),
        ScriptedAnswer(think=60, think_at="after_headers"),
        ScriptedAnswer(gap=0.02, text=("word",) * 10_000),
        ScriptedAnswer(text=("x" * 10_000_000,)),  # more than the socket takes
    ],
    ids=["silent before headers", "silent after headers", "sending", "blocked"],
)
def test_notices_at_once_that_the_client_has_left(
    answer: ScriptedAnswer,
    how: str,
    tls: bool,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    capfd: Any,
    promptly: Control,
) -> None:
    with Upstream(answer=answer, ssl_context=server_tls if tls else None, http2=False) as upstream:
        client = RawClient(upstream.port, client_tls if tls else None)
        client.post()
        if answer.think_at == "before_headers":
            assert upstream.wait_for(lambda: upstream.requests, 10)
        else:
            client.read_until(b"\r\n\r\n")
        if how == "rst":
            linger = b"\1\0\0\0\0\0\0\0"
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        left_at = time.monotonic()
        client.close()
        assert gone(upstream)
        request = upstream.requests[0]
        assert request.gone_at is not None
        promptly(left_at, request.gone_at)
        assert not request.done
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 10)
    assert capfd.readouterr().err == ""


def test_a_client_that_leaves_after_the_answer_is_not_gone() -> None:
    with Upstream() as upstream, RawClient(upstream.port) as client:
        client.post()
        client.read_response()
        client.close()
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 10)
        assert upstream.requests[0].done
        assert not upstream.requests[0].gone


# -- what goes wrong: TCP


@pytest.mark.parametrize("at", ["before_headers", *BODY_POINTS])
def test_rst_is_a_reset(at: Point) -> None:
    with Upstream(faults=[Fault("rst", at)]) as upstream, RawClient(upstream.port) as client:
        client.post()
        data, error = client.read_to_end()
        assert done(upstream)
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET
    assert dechunk(split_head(data)[1]) == (upstream.requests[0].sent, b"")


@pytest.mark.parametrize("at", ["before_headers", *BODY_POINTS])
def test_fin_truncates_the_body(at: Point) -> None:
    with Upstream(faults=[Fault("fin", at)]) as upstream, RawClient(upstream.port) as client:
        client.post()
        data, error = client.read_to_end()
        assert done(upstream)
    assert error is None
    assert dechunk(split_head(data)[1]) == (upstream.requests[0].sent, b"")


def test_the_points_lie_where_they_say() -> None:
    said = {}
    for at in BODY_POINTS:
        with Upstream(faults=[Fault("fin", at)]) as upstream, RawClient(upstream.port) as client:
            client.post()
            client.read_to_end()
            said[at] = upstream.requests[0].sent
    role = b'"delta": {"role": "assistant", "content": ""}'
    assert said["after_headers"] == b""
    assert said["after_comments"] == b": keep-alive\n\n" * 2
    assert said["after_role"].count(b"data: ") == 1
    assert role in said["after_role"]
    assert said["after_reasoning"].count(b"data: ") == 2
    assert said["after_reasoning"].count(b"reasoning_content") == 1
    assert text_of(said["after_token"]) == "Hello"
    assert events(said["after_finish"])[-1]["choices"][0]["finish_reason"] == "stop"
    assert events(said["after_usage"])[-1]["usage"]
    assert events(said["after_done"])[-1] == "[DONE]"


def test_rst_at_connect_comes_before_anything_is_read() -> None:
    with Upstream(faults=[Fault("rst", "connect"), None]) as upstream:
        assert is_reset_at_once(upstream.port)
        with RawClient(upstream.port) as client:
            client.post()
            assert client.read_response()[0].status_code == 200
    assert upstream.connections == 2
    assert len(upstream.requests) == 1


def test_fin_at_connect() -> None:
    with Upstream(faults=[Fault("fin", "connect")]) as upstream, RawClient(upstream.port) as client:
        assert client.read_to_end() == (b"", None)


def test_pause_and_raw_at_connect_go_on() -> None:
    faults = [Fault("pause", "connect", seconds=0.1), Fault("raw", "connect", body=b"SSH-2.0")]
    with Upstream(faults=faults) as upstream:
        watch = Stopwatch()
        for prefix in (b"HTTP", b"SSH-2.0HTTP"):
            with RawClient(upstream.port) as client:
                client.post()
                assert client.read(len(prefix)) == prefix
                assert watch.seconds >= 0.1


def test_a_fault_at_connect_is_not_for_open_connections() -> None:
    faults = [None, Fault("rst", "connect"), Fault("status", "before_headers", status=500)]
    with Upstream(faults=faults) as upstream, RawClient(upstream.port) as client:
        for status in (200, 500):
            client.post()
            assert client.read_response()[0].status_code == status
        assert is_reset_at_once(upstream.port)


# -- what goes wrong: the body


@pytest.mark.parametrize("at", BODY_POINTS)
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_clean_end_is_well_formed(at: Point, framing: Any) -> None:
    with (
        Upstream(faults=[Fault("clean_end", at)], answer=ScriptedAnswer(framing=framing)) as upstream,
        RawClient(upstream.port) as client,
    ):
        client.post()
        assert client.read_response()[1] == upstream.requests[0].sent
        client.post()
        assert events(client.read_response()[1])[-1] == "[DONE]"
    assert upstream.connections == 1


def test_stall_keeps_the_connection_until_the_client_leaves() -> None:
    with Upstream(faults=[Fault("stall", "after_role")]) as upstream, RawClient(upstream.port) as client:
        client.post()
        client.read_until(b'"content": ""}, "finish_reason": null}]}\n\n\r\n')
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read(1)
        client.close()
        assert gone(upstream)


@pytest.mark.timing
def test_stall_ends_in_a_plain_close(promptly: Control) -> None:
    with (
        Upstream(faults=[Fault("stall", "after_headers", seconds=0.2)]) as upstream,
        RawClient(upstream.port) as client,
    ):
        watch = Stopwatch()
        client.post()
        client.read_until(b"\r\n\r\n")
        assert client.read_to_end() == (b"", None)
        assert watch.seconds >= 0.2
        promptly(watch.started, within=0.35)
        assert done(upstream)


@pytest.mark.timing
def test_pause_goes_on_as_if_nothing_had_happened(promptly: Control) -> None:
    with Upstream(faults=[Fault("pause", "after_role", seconds=0.2)]) as upstream, RawClient(upstream.port) as client:
        watch = Stopwatch()
        client.post()
        client.read_until(b"\n\n")
        assert b"[DONE]" in client.read_until(b"\r\n0\r\n\r\n")
        assert watch.seconds >= 0.2
        promptly(watch.started, within=0.35)


def test_status_takes_the_place_of_the_answer() -> None:
    fault = Fault(
        "status",
        "before_headers",
        status=529,
        seconds=0.1,
        headers={"Retry-After": "3"},
        error={"type": "overloaded_error"},
    )
    with Upstream(faults=[fault]) as upstream, RawClient(upstream.port) as client:
        watch = Stopwatch()
        client.post()
        response, body = client.read_response()
        assert watch.seconds >= 0.1
        assert response.status_code == 529
        assert dict(response.headers)[b"retry-after"] == b"3"
        assert json.loads(body)["error"]["type"] == "overloaded_error"
        client.post()
        assert client.read_response()[0].status_code == 200


def test_status_with_a_body_of_its_own() -> None:
    fault = Fault("status", "before_headers", status=502, headers={"Content-Type": "text/html"}, body=b"<h1>Bad</h1>")
    with Upstream(faults=[fault]) as upstream, RawClient(upstream.port) as client:
        client.post()
        response, body = client.read_response()
    assert response.status_code == 502
    assert body == b"<h1>Bad</h1>"
    assert [value for name, value in response.headers if name == b"content-type"] == [b"text/html"]


def test_error_event_ends_the_stream() -> None:
    with (
        Upstream(faults=[Fault("error_event", "after_role", error={"code": 503})]) as upstream,
        RawClient(upstream.port) as client,
    ):
        client.post()
        role, error = events(client.read_response()[1])
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert error["error"]["code"] == 503


def test_a_model_that_is_asked_for_the_rest_goes_on() -> None:
    with Upstream(continuation=Continuation("asked")) as upstream, RawClient(upstream.port) as client:
        for said, rest in [("Hello from", " the lab."), ("Hello from the lab.", "Hello from the lab."), ("No", None)]:
            messages = [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
            client.post(json.dumps({"stream": True, "messages": messages}).encode())
            assert text_of(client.read_response()[1]) == (rest or "Hello from the lab.")


def test_malformed_is_one_event_among_good_ones() -> None:
    with Upstream(faults=[Fault("malformed", "after_token")]) as upstream, RawClient(upstream.port) as client:
        client.post()
        _, body = client.read_response()
    before, after = body.split(b'data: {"id": broken\n\n')
    assert text_of(before) == "Hello"
    assert text_of(after) == " from the lab."


def test_raw_is_sent_as_it_is() -> None:
    fault = Fault("raw", "after_headers", body=b"\xff\x00event: ping\n\n")
    with Upstream(faults=[fault]) as upstream, RawClient(upstream.port) as client:
        client.post()
        _, body = client.read_response()
    assert body.startswith(b"\xff\x00event: ping\n\ndata: ")


@pytest.mark.parametrize("at", BODY_POINTS)
def test_short_length_ends_before_its_length(at: Point) -> None:
    with Upstream(faults=[Fault("short_length", at)]) as upstream, RawClient(upstream.port) as client:
        client.post()
        data, error = client.read_to_end()
    head, body = split_head(data)
    lengths = [int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length")]
    assert lengths[0] > len(body)
    assert body == upstream.requests[0].sent
    assert error is None


def test_truncated_chunk_ends_within_a_chunk() -> None:
    with Upstream(faults=[Fault("truncated_chunk", "after_role")]) as upstream, RawClient(upstream.port) as client:
        client.post()
        data, error = client.read_to_end()
    whole, rest = dechunk(split_head(data)[1])
    size, partial = rest.split(b"\r\n")
    assert error is None
    assert 0 < len(partial) < int(size, 16)
    assert upstream.requests[0].sent == whole + partial


def test_bad_chunk_is_no_chunk_at_all() -> None:
    with Upstream(faults=[Fault("bad_chunk", "after_role")]) as upstream, RawClient(upstream.port) as client:
        client.post()
        data, error = client.read_to_end()
    assert dechunk(split_head(data)[1]) == (upstream.requests[0].sent, b"this is no chunk size\r\n")
    assert error is None


def test_faults_break_whole_answers_in_their_middle() -> None:
    with Upstream(faults=[Fault("fin", "after_token")]) as upstream, RawClient(upstream.port) as client:
        client.post(b"{}")
        data, _ = client.read_to_end()
    body, _ = dechunk(split_head(data)[1])
    assert body.startswith(b'{"id"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_a_fault_for_another_protocol_is_told() -> None:
    with Upstream(faults=[Fault("rst_stream", "after_role")]) as upstream, RawClient(upstream.port) as client:
        client.post()
        response, body = client.read_response()
    assert response.status_code == 500
    assert json.loads(body)["error"]["message"] == "The fault rst_stream needs HTTP/2."


def test_faults_are_taken_in_order() -> None:
    faults = [Fault("status", "before_headers", status=500), None, Fault("status", "before_headers", status=503)]
    with Upstream(faults=faults) as upstream, RawClient(upstream.port) as client:
        statuses = []
        for _ in range(4):
            client.post()
            statuses.append(client.read_response()[0].status_code)
    assert statuses == [500, 200, 503, 200]
    assert [request.fault for request in upstream.requests] == [*faults, None]


# -- what goes wrong: TLS


@pytest.mark.parametrize("at", ["connect", "handshake"])
def test_cuts_the_handshake(at: Point, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    faults = [Fault("rst", at), Fault("fin", at), Fault("raw", at, body=b"no TLS"), Fault("pause", at, seconds=0.05)]
    with Upstream(faults=faults, ssl_context=server_tls) as upstream:
        with pytest.raises(ConnectionResetError):
            RawClient(upstream.port, client_tls)
        with pytest.raises(ssl.SSLEOFError):
            RawClient(upstream.port, client_tls)
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION"):
            RawClient(upstream.port, client_tls)
        with RawClient(upstream.port, client_tls) as client:
            client.post()
            assert client.read_response()[0].status_code == 200


@pytest.mark.timing
def test_stalls_the_handshake(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, promptly: Control) -> None:
    with Upstream(faults=[Fault("stall", "handshake", seconds=0.2)], ssl_context=server_tls) as upstream:
        watch = Stopwatch()
        with pytest.raises(ssl.SSLEOFError):
            RawClient(upstream.port, client_tls)
        assert watch.seconds >= 0.2
        promptly(watch.started, within=0.35)


def test_a_handshake_needs_tls() -> None:
    with pytest.raises(ValueError, match="ssl_context"):
        Upstream(faults=[Fault("rst", "handshake")])


def test_rst_under_tls_is_a_reset_of_tcp(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with (
        Upstream(faults=[Fault("rst", "after_role")], ssl_context=server_tls, http2=False) as upstream,
        RawClient(upstream.port, client_tls) as client,
    ):
        client.post()
        assert isinstance(client.read_tcp_to_end()[1], ConnectionResetError)


@pytest.mark.parametrize("close_notify", [False, True])
def test_fin_under_tls_with_close_notify_or_without(
    close_notify: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    fault = Fault("fin", "after_role", close_notify=close_notify)
    with (
        Upstream(faults=[fault], ssl_context=server_tls, http2=False) as upstream,
        RawClient(upstream.port, client_tls) as client,
    ):
        client.post()
        data, error = client.read_to_end()
        assert client.read_tcp_to_end() == (b"", None)
    assert dechunk(split_head(data)[1]) == (upstream.requests[0].sent, b"")
    assert error is None if close_notify else isinstance(error, ssl.SSLEOFError)


def test_a_plain_end_of_the_connection_has_close_notify(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with (
        Upstream(answer=ScriptedAnswer(framing="close"), ssl_context=server_tls, http2=False) as upstream,
        RawClient(upstream.port, client_tls) as client,
    ):
        client.post()
        assert client.read_to_end()[1] is None


def test_plain_http_is_no_tls(server_tls: ssl.SSLContext, capfd: Any) -> None:
    with Upstream(ssl_context=server_tls) as upstream, RawClient(upstream.port) as client:
        client.post()
        client.read_to_end()
        assert upstream.wait_for(lambda: upstream.open_connections == 0, 2)
    assert capfd.readouterr().err == ""


def test_garbage_within_tls_is_an_end(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, capfd: Any) -> None:
    with (
        Upstream(ssl_context=server_tls, http2=False, answer=ScriptedAnswer(think=60)) as upstream,
        RawClient(upstream.port, client_tls) as client,
    ):
        client.post()
        client.read_until(b"\r\n\r\n")
        client.tcp.sendall(b"no TLS record")
        assert gone(upstream)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("http2", [False, True])
def test_http2_is_offered_or_not(http2: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with (
        Upstream(ssl_context=server_tls, http2=http2) as upstream,
        httpcore2.ConnectionPool(ssl_context=client_tls, http2=True) as pool,
    ):
        response = pool.request("POST", upstream.url + "/chat/completions", content=STREAM)
        assert response.extensions["http_version"] == (b"HTTP/2" if http2 else b"HTTP/1.1")
        assert response.content == upstream.requests[0].sent
    assert upstream.origin == f"https://127.0.0.1:{upstream.port}"
    assert upstream.url == upstream.origin + "/v1"
