from __future__ import annotations

import ssl
import time
from typing import Any

import h2.errors
import h2.events
import h2.settings
import pytest

from lab.clients import CHAT, STREAM, Http2Client, Stopwatch, events, text_of
from timing import Control
from unbroken.lab import POINTS, Fault, Point, ScriptedAnswer, Upstream

BODY_POINTS = POINTS[POINTS.index("after_headers") :]


@pytest.fixture
def connect(client_tls: ssl.SSLContext) -> Any:
    clients: list[Http2Client] = []

    def connect_to(upstream: Upstream) -> Http2Client:
        clients.append(Http2Client(upstream.port, client_tls))
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


def done(upstream: Upstream) -> bool:
    return upstream.wait_for(lambda: upstream.requests and upstream.requests[-1].done, 10)


def gone(upstream: Upstream) -> bool:
    return upstream.wait_for(lambda: upstream.requests and upstream.requests[-1].gone, 10)


def test_streams_an_answer(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        client.wait_for(h2.events.StreamEnded)
        assert done(upstream)
    body = client.body(stream_id)
    request = upstream.requests[0]
    assert text_of(body) == "Hello from the lab."
    assert events(body)[-1] == "[DONE]"
    assert request.sent == body
    assert (request.http_version, request.method, request.target, request.body) == ("2", "POST", CHAT, STREAM)
    assert request.headers == [("host", "lab"), ("x-lab", "1")]


def test_serves_streams_at_the_same_time(server_tls: ssl.SSLContext, connect: Any) -> None:
    faults = [Fault("stall", "after_role"), None]
    with Upstream(ssl_context=server_tls, faults=faults) as upstream:
        client = connect(upstream)
        stalled, good = client.post_stream(), client.post_stream()
        client.wait_for(h2.events.StreamEnded, lambda event: event.stream_id == good)
        assert text_of(client.body(good)) == "Hello from the lab."
        assert b"assistant" in client.body(stalled)
    assert [request.connection for request in upstream.requests] == [1, 1]


def test_respects_the_clients_window(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, answer=ScriptedAnswer(text=("x" * 200_000,))) as upstream:
        client = connect(upstream)
        client.protocol.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        client.flush()
        stream_id = client.post_stream()
        client.wait_for(h2.events.StreamEnded)
        assert len(text_of(client.body(stream_id))) == 200_000


def test_answers_pings_while_it_is_silent(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("stall", "after_headers")]) as upstream:
        client = connect(upstream)
        client.post_stream()
        client.wait_for(h2.events.ResponseReceived)
        for ping in (b"ping one", b"ping two"):
            client.protocol.ping(ping)
            client.flush()
            client.wait_for(h2.events.PingAckReceived, lambda event, ping=ping: event.ping_data == ping)
        assert upstream.pings == 2


def test_no_ping_ack_is_a_black_hole(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("no_ping_ack", "after_role")]) as upstream:
        client = connect(upstream)
        client.post_stream()
        client.wait_for(h2.events.DataReceived)
        assert upstream.wait_for(lambda: b"assistant" in upstream.requests[0].sent, 10)
        client.socket.settimeout(0.2)
        client.protocol.ping(b"12345678")
        client.flush()
        assert upstream.wait_for(lambda: upstream.pings == 1, 10)
        with pytest.raises(TimeoutError):
            client.wait_for(h2.events.PingAckReceived)
        client.close()
        assert gone(upstream)


def test_no_ping_ack_may_end(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("no_ping_ack", "before_headers", seconds=0.1)]) as upstream:
        client = connect(upstream)
        client.post_stream()
        assert isinstance(client.read_to_end()[1], ssl.SSLEOFError)
        assert done(upstream)


@pytest.mark.parametrize("at", ["before_headers", *BODY_POINTS])
@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_cuts_the_connection(kind: Any, at: Point, server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault(kind, at)]) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        with pytest.raises(OSError, match=r"EOF|reset"):
            client.wait_for(h2.events.StreamEnded)
        assert done(upstream)
    assert client.body(stream_id) == upstream.requests[0].sent


def test_fin_with_close_notify(server_tls: ssl.SSLContext, connect: Any) -> None:
    fault = Fault("fin", "after_role", close_notify=True)
    with Upstream(ssl_context=server_tls, faults=[fault]) as upstream:
        client = connect(upstream)
        client.post_stream()
        assert client.read_to_end()[1] is None


@pytest.mark.parametrize("at", BODY_POINTS)
def test_clean_end_is_an_end_of_stream(at: Point, server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("clean_end", at)]) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        client.wait_for(h2.events.StreamEnded)
        assert client.body(stream_id) == upstream.requests[0].sent
        again = client.post_stream()
        client.wait_for(h2.events.StreamEnded, lambda event: event.stream_id == again)


@pytest.mark.parametrize("at", ["before_headers", *BODY_POINTS])
def test_rst_stream_ends_the_stream_alone(at: Point, server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("rst_stream", at, code=0xB)]) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        reset = client.wait_for(h2.events.StreamReset)
        assert reset.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert client.body(stream_id) == upstream.requests[0].sent
        again = client.post_stream()
        client.wait_for(h2.events.StreamEnded, lambda event: event.stream_id == again)
        assert done(upstream)
        assert upstream.requests[0].done
    assert upstream.connections == 1


def test_refused_stream_comes_before_the_headers(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("refused_stream", "before_headers")]) as upstream:
        client = connect(upstream)
        client.post_stream()
        assert client.wait_for(h2.events.StreamReset).error_code == h2.errors.ErrorCodes.REFUSED_STREAM
        assert not upstream.requests[0].head_sent


def goaway_of(client: Http2Client) -> tuple[int, int, bytes]:
    """The last stream and the code of the GOAWAY, and the frames behind it, read without h2.

    A client's h2 holds a connection for closed when it hears GOAWAY, and would refuse the frames that follow.
    """
    data, _ = client.read_to_end()
    while data:
        length, kind = int.from_bytes(data[:3]), data[3]
        payload, data = data[9 : 9 + length], data[9 + length :]
        if kind == 0x7:
            return int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]), data
    pytest.fail("no GOAWAY")


def test_goaway_serves_the_stream_to_its_end(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("goaway", "after_role")]) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        last, code, rest = goaway_of(client)
        assert done(upstream)
    assert (last, code) == (stream_id, 0)
    assert b"[DONE]" in rest


def test_goaway_may_disown_the_stream_and_close(server_tls: ssl.SSLContext, connect: Any) -> None:
    fault = Fault("goaway", "before_headers", code=0xB, last_stream_id=0, then="close")
    with Upstream(ssl_context=server_tls, faults=[fault]) as upstream:
        client = connect(upstream)
        client.post_stream()
        assert goaway_of(client) == (0, 0xB, b"")
        assert done(upstream)


def test_after_goaway_no_stream_is_begun(server_tls: ssl.SSLContext, connect: Any) -> None:
    faults = [Fault("goaway", "after_role"), None]
    with Upstream(ssl_context=server_tls, faults=faults, answer=ScriptedAnswer(gap=0.05)) as upstream:
        client = connect(upstream)
        client.post_stream()
        assert upstream.wait_for(lambda: upstream.requests and b"Hello" in upstream.requests[0].sent, 10)
        client.post_stream()
        client.read_to_end()
    assert len(upstream.requests) == 1


@pytest.mark.timing
def test_notices_at_once_that_a_stream_is_reset(
    server_tls: ssl.SSLContext, connect: Any, capfd: Any, promptly: Control
) -> None:
    with Upstream(ssl_context=server_tls, answer=ScriptedAnswer(think=60, think_at="before_headers")) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        assert upstream.wait_for(lambda: upstream.requests, 10)
        client.protocol.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        left_at = time.monotonic()
        client.flush()
        assert gone(upstream)
        gone_at = upstream.requests[0].gone_at
        assert gone_at is not None
        promptly(left_at, gone_at)
        assert upstream.open_connections == 1
    assert capfd.readouterr().err == ""


@pytest.mark.timing
@pytest.mark.parametrize(
    "answer",
    [ScriptedAnswer(think=60), ScriptedAnswer(text=("x" * 10_000_000,))],
    ids=["silent", "waiting for the window"],
)
@pytest.mark.parametrize("way", ["close", "goaway", "reset"])
def test_notices_at_once_that_the_client_has_left(
    answer: ScriptedAnswer, way: str, server_tls: ssl.SSLContext, connect: Any, capfd: Any, promptly: Control
) -> None:
    with Upstream(ssl_context=server_tls, answer=answer) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        client.wait_for(h2.events.ResponseReceived)
        left_at = time.monotonic()
        if way == "goaway":
            client.protocol.close_connection()
            client.flush()
        elif way == "reset":
            client.protocol.reset_stream(stream_id)
            client.flush()
        else:
            client.close()
        assert gone(upstream)
        gone_at = upstream.requests[0].gone_at
        assert gone_at is not None
        promptly(left_at, gone_at)
    assert capfd.readouterr().err == ""


def test_a_cut_ends_every_stream_of_the_connection(server_tls: ssl.SSLContext, connect: Any) -> None:
    faults = [Fault("stall", "after_role"), Fault("rst", "before_headers")]
    with Upstream(ssl_context=server_tls, faults=faults) as upstream:
        client = connect(upstream)
        client.post_stream()
        client.post_stream()
        client.read_to_end()
        assert upstream.wait_for(lambda: all(request.done for request in upstream.requests), 10)
    assert [request.gone for request in upstream.requests] == [False, False]


def test_a_fault_for_another_protocol_is_told(server_tls: ssl.SSLContext, connect: Any) -> None:
    with Upstream(ssl_context=server_tls, faults=[Fault("bad_chunk", "after_role")]) as upstream:
        client = connect(upstream)
        stream_id = client.post_stream()
        client.wait_for(h2.events.StreamEnded)
        assert b"bad_chunk needs HTTP/1.1" in client.body(stream_id)


def test_a_client_that_breaks_the_protocol_is_told_so(server_tls: ssl.SSLContext, connect: Any, capfd: Any) -> None:
    with Upstream(ssl_context=server_tls) as upstream:
        client = connect(upstream)
        client.send(b"\0\0\1\6\0\0\0\0\0x")  # a PING of one byte
        assert goaway_of(client)[1] == h2.errors.ErrorCodes.FRAME_SIZE_ERROR
    assert capfd.readouterr().err == ""


def test_status_waits(server_tls: ssl.SSLContext, connect: Any) -> None:
    fault = Fault("status", "before_headers", status=503, seconds=0.1, headers={"Retry-After": "1"})
    with Upstream(ssl_context=server_tls, faults=[fault]) as upstream:
        client = connect(upstream)
        watch = Stopwatch()
        client.post_stream()
        response = client.wait_for(h2.events.ResponseReceived)
        assert watch.seconds >= 0.1
        headers = dict(response.headers or ())
        assert (headers[":status"], headers["retry-after"]) == ("503", "1")
        client.wait_for(h2.events.StreamEnded)
