"""What is fuzzed: each target takes garbage, and says what must hold whatever it is.

Garbage gives an error of :mod:`unbroken.errors` or is handed on; no other exception, nothing lost, nothing without end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import h2.exceptions
from hypothesis import strategies as st

from core.corpus import CORPORA
from fuzz.garbage import SIZES, mutated
from proof.schedules import WIRES
from properties.playing import STREAM, Player, Step, sliced
from relay.serving import Served, settings_to
from unbroken.client.reading import TurnReader
from unbroken.core.decoding import decoder_for
from unbroken.core.dialects import DIALECTS, recognise
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import HOLDS, Policy
from unbroken.core.sse import Event, Parser
from unbroken.core.turn import Turn
from unbroken.errors import DecodeError, EventTooLarge, UnbrokenError, WireError
from unbroken.lab import Upstream
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.guard import check, cross_origin, preflight
from unbroken.relay.routes import find_route
from unbroken.wire.connection import Connection
from unbroken.wire.http1 import Http1
from unbroken.wire.http2 import Http2
from unbroken.wire.proxies import Proxy
from unbroken.wire.requests import Destination, request_head

MAX_EVENT = 1024
NAMES = tuple(dialect.name for dialect in DIALECTS)
OF_LAB = {"openai-chat": "chat", "openai-completions": "legacy", "openai-responses": "responses"}
OF_LAB |= {"anthropic-messages": "messages", "gemini": "gemini", "interactions": "interactions"}
"""The dialects as :data:`proof.schedules.WIRES` calls them."""


class Target(NamedTuple):
    """One thing that is fuzzed.

    Attributes:
        garbage: what is drawn for it.
        feed: takes garbage, and the sizes of the pieces in which it comes.
    """

    garbage: st.SearchStrategy[bytes]
    feed: Callable[[bytes, Sequence[int]], None]


def recorded(dialect: str, suffix: str = "sse") -> list[bytes]:
    """The recorded bodies of a dialect, the short ones of them."""
    folder = CORPORA / (dialect.replace("-", "_") + ("_refused" if suffix == "body" else ""))
    bodies = (path.read_bytes() for path in sorted(folder.glob(f"*.{suffix}")))
    return [body for body in bodies if len(body) < 3000]


SSE_TOKENS = [
    *(
        b"data: ",
        b"data:",
        b"event: ",
        b"id: 7\n",
        b"retry: 99999999999999999999\n",
        b":",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\n\n",
    ),
    *(b"\xef\xbb\xbf", b"data: [DONE]\n\n", b'data: {"error": {"message": "x"}}\n\n', b"{", b"}", b'"', b"\xff", b"\0"),
    *(b"event: error\n", b"data: null\n\n", b"data: " + b"y" * 1100, b"[" * 900, b'{"a":' * 150, b"[DONE]", b"ping"),
]


# Server-sent events


def sse(data: bytes, sizes: Sequence[int]) -> None:
    """Events are the same however the bytes were cut; one over the cap is found, at the next bytes at the latest."""
    (whole, too_large), (pieces, pieces_too_large) = _events(data, [len(data) or 1]), _events(data, sizes)
    if too_large or pieces_too_large:
        assert len(data) > MAX_EVENT
        assert whole[: len(pieces)] == pieces[: len(whole)]
    else:
        assert whole == pieces


def _events(data: bytes, sizes: Sequence[int]) -> tuple[list[Event], bool]:
    parser, events = Parser(MAX_EVENT), []
    try:
        for piece in sliced(data, sizes):
            for event in parser.feed(piece):
                events.append(event)  # noqa: PERF402 - those before an error count
        events += parser.end()
    except EventTooLarge:
        return events, True
    return events, False


# Dialects


def reading(name: str) -> Callable[[bytes, Sequence[int]], None]:
    """What reads events for the rule, and as typed events, whole answers and errors of a dialect."""
    dialect = next(one for one in DIALECTS if one.name == name)
    call = recognise(request_of(name))
    assert call is not None

    def feed(data: bytes, sizes: Sequence[int]) -> None:
        reader, decoder = dialect.reader(call.generation), dialect.decoder()
        parser = Parser(MAX_EVENT)
        with contextlib.suppress(DecodeError):
            for event in itertools.chain(parser.feed(data), parser.end()):
                with contextlib.suppress(DecodeError):
                    reader.read(event)
                with contextlib.suppress(DecodeError):
                    list(decoder.decode(event))
        with contextlib.suppress(DecodeError):
            list(dialect.decoder().decode_whole(data))
        dialect.read_error(400 + len(data) % 200, data)

    return feed


def request_of(name: str) -> Request:
    """A call of a dialect."""
    wire = WIRES[OF_LAB[name]]
    body = {"model": "m", "stream": True, **wire.body}
    return Request("POST", f"https://test{wire.path}", (), json.dumps(body).encode())


def turns(name: str) -> Callable[[bytes, Sequence[int]], None]:
    """Whole turns whose server sends nothing but garbage, however much is held, and whatever is done about cuts."""

    def feed(data: bytes, sizes: Sequence[int]) -> None:
        for number, hold in enumerate(HOLDS):
            after_output = ("raise", "continue", "restart")[(number + len(data)) % 3]
            _turn(name, data, sizes, Policy(hold=hold, max_event=MAX_EVENT, after_output=after_output))
        if WIRES[OF_LAB[name]].keeps:
            _turn(name, data, sizes, Policy(max_event=MAX_EVENT, background=True))

    return feed


def _turn(name: str, data: bytes, sizes: Sequence[int], policy: Policy) -> None:
    request = request_of(name)
    call = recognise(request)
    assert call is not None
    styles = WIRES[OF_LAB[name]].styles
    sizes = [max(size, len(data) // 100) for size in sizes]
    turn = Turn(
        call,
        policy,
        now=0.0,
        random=lambda: 0.5,
        wall_clock=lambda: 0.0,
        request=request,
        continuation=styles[0] if styles else None,
        may_restart=True,
    )

    def serve(asked: Request, number: int) -> Iterator[Step]:
        yield STREAM
        yield from sliced(data, sizes)
        if len(data) % 2:
            yield Failure.RESET

    player = Player(turn, request, serve, pours=len(sizes) % 2 == 1)
    played = player.run()
    if policy.after_output != "continue" and not policy.background:
        assert bytes(played.deliveries[played.spoke - 1]).startswith(played.received)
    _read(TurnReader(call, policy), data, sizes, turn)


def _read(reader: TurnReader, data: bytes, sizes: Sequence[int], turn: Turn) -> None:
    """What the typed client does with the same bytes."""
    reader.open(STREAM, is_stream=True)
    with contextlib.suppress(UnbrokenError):
        for piece in sliced(data, sizes):
            list(reader.feed(piece, turn.phase))
        list(reader.end(turn.phase))
    assert isinstance(reader.answer.messages, list)


# HTTP


RESPONSES = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.0 200 OK\r\nx: 1\r\n 2\r\n\r\nbody",
    b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\nx:\ncontent-length: 2\n\nok",
]
HTTP1_TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"0\r\n\r\n",
        b"content-length: 18446744073709551616\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ),
    *(
        b"transfer-encoding: chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"\0",
        b"\xff",
        b"x: " + b"y" * 2000 + b"\r\n",
        b"content-length: 2\r\n",
    ),
    *(
        b"connection: upgrade\r\nupgrade: h2c\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"-1\r\n",
        b";" * 500,
        b"trailer: x\r\n",
    ),
]


def http1(data: bytes, sizes: Sequence[int]) -> None:
    """A response is the same however it was cut, or is refused; no more is kept of it than came."""
    whole, pieces = _answered(data, [len(data) or 1]), _answered(data, sizes)
    assert (whole[0], whole[2]) == (pieces[0], pieces[2])
    assert whole[1].startswith(pieces[1]) or pieces[1].startswith(whole[1])
    assert len(whole[1]) <= len(data)


def _answered(data: bytes, sizes: Sequence[int]) -> tuple[int | None, bytes, bool]:
    """The status, the body, and whether it was whole."""
    http = Http1()
    request = Request("GET", "http://test/")
    http.send_request(request_head(request, Destination.of(request, None)))
    body = b""
    try:
        for piece in sliced(data, sizes):
            http.receive(piece)
            body += http.take()
        http.receive_eof()
    except WireError:
        body += http.take()
        return http.head.status if http.head else None, body, False
    return http.head.status if http.head else None, body + http.take(), http.ended


def _frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


_STATUS_200 = b"\x88"  # of HPACK's static table (RFC 7541, appendix A)
_FRAMES = [
    _frame(4),
    _frame(4, b"", 1),
    _frame(1, _STATUS_200, 4, 1),
    _frame(0, b"hello", 0, 1),
    _frame(0, b" world", 1, 1),
    _frame(0, b"\x03ok\0\0\0", 9, 1),
    _frame(6, b"12345678"),
    _frame(6, b"12345678", 1),
    _frame(3, b"\0\0\0\x02", 0, 1),
    _frame(7, b"\0\0\0\x01\0\0\0\0debug"),
    _frame(8, b"\0\0\x10\0"),
    _frame(8, b"\x7f\xff\xff\xff", 0, 1),
    _frame(9, _STATUS_200, 4, 1),
    _frame(5, b"\0\0\0\x02\x88", 4, 1),
    _frame(2, b"\0\0\0\0\x10", 0, 1),
    _frame(4, b"\0\x04\xff\xff\xff\xff"),
    _frame(0xFA, b"x", 0, 1),
    _frame(0, b"", 0, 1),
]
CONVERSATIONS = [b"".join(_FRAMES[:5]), b"".join([*_FRAMES[:4], *_FRAMES[6:8], _FRAMES[4]]), b"".join(_FRAMES)]


def http2(data: bytes, sizes: Sequence[int]) -> None:
    """Frames are read or refused, and what is answered to them has a bound."""
    http = Http2()
    request = Request("GET", "https://test/")
    http.send_request(request_head(request, Destination.of(request, None)))
    said = took = 0
    with contextlib.suppress(WireError, h2.exceptions.ProtocolError):
        for piece in sliced(data, sizes):
            http.receive(piece)
            took += len(http.take())
            said += len(http.data_to_send())
        http.receive_eof()
    took += len(http.take())
    assert took <= len(data)
    assert said <= 1000 + 20 * len(data)


PROXY_ANSWERS = [
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno",
    b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90",
    b"\x05\x00\x05\x05\x00\x03\x04test\x00\x50",
]
PROXIES = [Proxy("http", "proxy", 1), Proxy("socks5h", "proxy", 1, ("user", "password"))]


def proxies(data: bytes, sizes: Sequence[int]) -> None:
    """What a proxy answers is the way to the server, or an error."""
    for proxy in PROXIES:
        request = Request("GET", "https://test/")
        connection = Connection(Destination.of(request, proxy), ssl.create_default_context, http2=True)
        with contextlib.suppress(WireError, ssl.SSLError):
            for piece in sliced(data, sizes):
                connection.receive(piece)
                while connection.data_to_send():
                    pass
            connection.receive_eof()


CODINGS = ("gzip", "deflate", "br", "zstd")
COMPRESSED = [
    zlib.compress(b"hello" * 50),
    zlib.compressobj(wbits=31).flush(),
    zlib.compress(b"\0" * 1_000_000)[:900],
    bytes.fromhex("1f8b08000000000000ffcb48cdc9c957c840a200cc4ccb4c17000000"),
]


def codings(data: bytes, sizes: Sequence[int]) -> None:
    """Content codings give bytes in slices, or an error."""
    for coding in CODINGS:
        with contextlib.suppress(DecodeError):
            decoder = decoder_for(Head(200, ((b"content-encoding", coding.encode()),)))
            for piece in sliced(data, sizes):
                assert len(decoder.decode(piece)) <= 1024 * 1024
                for _ in range(100):
                    if not decoder.has_more:
                        break
                    decoder.decode(b"")


# The relay


BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello?"}]}'
REQUESTS = [
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY),
    b"GET /_unbroken/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /lab/v1/models?x=%41 HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-1\r\n\r\n",
    b"POST /lab/v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(BODY), BODY),
    b"OPTIONS /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.test\r\n"
    b"access-control-request-method: GET\r\n\r\n",
    b"DELETE /_unbroken/turns/x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
]
REQUEST_TOKENS = [
    *HTTP1_TOKENS,
    *(
        b"host: x\r\n",
        b"/../",
        b"/%2e%2e/",
        b"//",
        b"?",
        b"#",
        b"%",
        b"%00",
        b"/_unbroken/",
        b"/lab/",
        b"TRACE ",
        b"expect: 100-continue\r\n",
    ),
    *(
        b"authorization: Basic ====\r\n",
        b"cookie: a=b\r\n",
        b"origin: null\r\n",
        b"x-unbroken-hold: all\r\n",
        b"last-event-id: 1\r\n",
    ),
    *(
        b"x-unbroken-token: \xff\r\n",
        b"idempotency-key: k\r\n",
        b"accept-encoding: gzip\r\n",
        b"sec-fetch-site: cross-site\r\n",
    ),
]


class RelayUnderFire:
    """A relay that is sent garbage, over sockets."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        lab = stack.enter_context(Upstream())
        self._served = stack.enter_context(Served(settings_to(lab.origin, receive_timeout=2.0)))

    def feed(self, data: bytes, sizes: Sequence[int]) -> None:
        """It answers or hangs up, finds no fault in itself, and serves the next one."""
        answer = self._say(data, sizes)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:200]
        assert not answer.startswith(b"HTTP/1.1 500"), answer[:300]
        assert not [entry for entry in self._served.entries if entry["outcome"] == "defect"]
        health = self._say(b"GET /_unbroken/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", [4096])
        assert health.startswith(b"HTTP/1.1 200 "), health[:200]

    def _say(self, data: bytes, sizes: Sequence[int]) -> bytes:
        with socket.create_connection(("127.0.0.1", self._served.port), timeout=30) as sock:
            answer = b""
            with contextlib.suppress(ConnectionError):
                for piece in sliced(data, [max(size, len(data) // 8) for size in sizes]):
                    sock.sendall(piece)
                sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    answer += piece
            return answer


def asking(data: bytes, sizes: Sequence[int]) -> None:
    """Bodies of calls are recognised, or are none."""
    for name in NAMES:
        wire = WIRES[OF_LAB[name]]
        recognise(Request("POST", f"https://test{wire.path}", (), data))


SETTINGS = settings_to("http://127.0.0.1:1", token="open-sesame")
PATHS = [
    b"/v1/models",
    b"/lab/v1/chat/completions",
    b"/_unbroken/",
    b"/lab//v1",
    b"/%2e%2e/x",
    b"/lab/v1/models?key=%ff",
]
FIELD_NAMES = [b"host", b"origin", b"authorization", b"x-unbroken-token", b"cookie", b"content-length", b"upgrade"]


def guarding(data: bytes, sizes: Sequence[int]) -> None:
    """Whatever stands in a request that HTTP allows, it is let in or refused."""
    path, _, rest = data.partition(b"\n")
    path, _, query = path.partition(b"?")
    values = rest.replace(b"\r", b"").replace(b"\0", b"").split(b"\n")
    headers = [(FIELD_NAMES[number % len(FIELD_NAMES)], value) for number, value in enumerate(values)]
    scope = {"method": "GET", "path": "/", "raw_path": b"/" + path, "query_string": query, "headers": headers}
    incoming = ClientRequest({**scope, "http_version": "1.1"}, _nothing, timeout=1)
    with contextlib.suppress(Rejection):
        check(incoming, SETTINGS)
    preflight(incoming, SETTINGS)
    cross_origin(incoming, SETTINGS)
    find_route(SETTINGS, incoming.path, incoming.query)


async def _nothing() -> dict[str, Any]:
    raise AssertionError("nothing was to be read")


TARGETS: dict[str, Target] = {
    "sse": Target(mutated(list(itertools.chain(*map(recorded, NAMES)))[::6], SSE_TOKENS), sse),
    **{name: Target(mutated([*recorded(name), *recorded(name, "body")], SSE_TOKENS), reading(name)) for name in NAMES},
    **{f"turn-{name}": Target(mutated(recorded(name), SSE_TOKENS), turns(name)) for name in NAMES},
    "http1": Target(mutated(RESPONSES, HTTP1_TOKENS), http1),
    "http2": Target(mutated([*CONVERSATIONS, *_FRAMES], _FRAMES), http2),
    "proxies": Target(mutated(PROXY_ANSWERS, HTTP1_TOKENS), proxies),
    "codings": Target(mutated(COMPRESSED, [b"\0", b"\x1f\x8b\x08", b"\x78\x9c", b"\xff" * 50]), codings),
    "asking": Target(mutated([BODY, *(request_of(name).body for name in NAMES)], SSE_TOKENS), asking),
    "guarding": Target(
        mutated([path + b"\nlocalhost\nhttp://x\nBearer y" for path in PATHS], REQUEST_TOKENS), guarding
    ),
}
"""What needs no world."""

RELAY = "relay"
RELAY_GARBAGE = mutated(REQUESTS, REQUEST_TOKENS)

__all__ = ["RELAY", "RELAY_GARBAGE", "SIZES", "TARGETS", "RelayUnderFire"]
