"""Where uvicorn's private parts are used, besides its supervisor's: limits on what comes in, direct writes, the end.

uvicorn is pinned to one minor version. :func:`check_uvicorn` refuses another one, and one whose parts differ from what
is used here. Direct writes are a matter of speed alone: where they would not do what ``send`` does, they are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeAlias, cast

from unbroken.core.dialect import GatewayError
from unbroken.core.dialects import DEFAULT
from unbroken.errors import MissingExtra, UsageError
from unbroken.relay.app import Relay
from unbroken.relay.asgi import ABORT, HAS_LEFT, ON_LEFT, WRITER
from unbroken.relay.settings import Settings
from unbroken.relay.turns import LAST_WORDS

try:
    import httptools
    import uvicorn
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
    from uvicorn.supervisors.multiprocess import Multiprocess, Process
except ImportError as exc:
    raise MissingExtra("the relay needs", "relay", exc) from None

UVICORN = "0.54"
"""The minor version whose parts are used."""

STOPPING = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
"""Signals that end the relay: the first one lets running turns finish."""

LINGER = 5.0
"""Seconds for which a client may go on sending a request that has already been answered, before it is cut."""

OnRefusal: TypeAlias = Callable[[str, str, int, str, int], None]

_POLL = 0.05
_FRAMING = (b"content-length", b"transfer-encoding")
_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
}

# Undefined statuses that servers nevertheless send, and for which uvicorn has no line.
STATUS_LINE.update({status: b"HTTP/1.1 %d \r\n" % status for status in range(600, 1000)})

_USED: dict[type, frozenset[str]] = {
    HttpToolsProtocol: frozenset(
        {"connection_made", "connection_lost", "data_received", "shutdown", "on_message_begin", "on_header"}
        | {"on_headers_complete", "on_body", "on_message_complete", "_start_asgi_task", "_unset_keepalive_if_required"}
    ),
    RequestResponseCycle: frozenset({"run_asgi", "send", "receive"}),
    uvicorn.Server: frozenset({"startup", "shutdown", "capture_signals", "should_exit", "run"}),
    Process: frozenset(
        {"start", "target", "is_alive", "terminate", "join", "exitcode", "process", "parent_conn", "_server"}
    ),
    Multiprocess: frozenset(
        {"run", "terminate_all", "handle_hup", "handle_term", "processes", "sockets", "signal_queue", "should_exit"}
    ),
}
"""What is overridden or called of each class. Attributes of instances are checked by the tests of the relay."""


def check_uvicorn() -> None:
    """Refuse a uvicorn whose private parts are not those that are used here.

    Raises:
        UsageError: it is another minor version, or a part is gone.
    """
    version: str = uvicorn.__version__
    gone = [f"{kind.__name__}.{name}" for kind, names in _USED.items() for name in sorted(names - _members(kind))]
    if version.rpartition(".")[0] != UVICORN or gone:
        why = f" ({', '.join(gone)} is gone)" if gone else ""
        raise UsageError(
            f"the relay works with uvicorn {UVICORN}, not {version}{why}: pip install 'uvicorn~={UVICORN}.0'"
        )


def _hung_up(fileno: int) -> bool:
    if fileno < 0:
        return True
    if sys.platform == "win32":
        return False  # there, only reading tells
    poll = select.poll()
    poll.register(fileno, getattr(select, "POLLRDHUP", 0))  # poll reports an error or a full close unasked
    return bool(poll.poll(0))


def _members(kind: type) -> set[str]:
    """Return the members of a class, and the attributes that its instances are given when they are made."""
    initial: Any = vars(kind).get("__init__")
    return {*dir(kind), *initial.__code__.co_names}


class DirectWriter:
    """A :class:`unbroken.relay.asgi.Writer` of one response: what ``send`` does with bytes of a chunked body.

    Args:
        cycle: the request and its response.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def ready(self) -> bool:
        """Whether bytes of a chunked body would be written at once."""
        cycle = self._cycle
        is_open = cycle.chunked_encoding and not (cycle.response_complete or cycle.disconnected)
        return bool(is_open) and not cycle.flow.write_paused

    def write(self, data: bytes) -> None:
        """Write a chunk (RFC 9112, section 7.1)."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def writes_directly() -> bool:
    """Return whether a :class:`DirectWriter` does what ``send`` does, which is tried without a connection."""
    written: list[bytes] = []
    transport: Any = types.SimpleNamespace(write=written.append)
    try:
        flow = FlowControl(transport)
        cycle = _cycle_for_trial(transport, flow)
        writer = DirectWriter(cycle)
        was_ready = [writer.ready]
        _run_now(cycle.send({"type": "http.response.start", "status": 200, "headers": []}))
        _run_now(cycle.send({"type": "http.response.body", "body": b"trial", "more_body": True}))
        was_ready.append(writer.ready)
        writer.write(b"trial")
        flow.pause_writing()
        was_ready.append(writer.ready)
        flow.resume_writing()
        was_ready.append(writer.ready)
        _run_now(cycle.send({"type": "http.response.body", "body": b"", "more_body": False}))
        was_ready.append(writer.ready)
    except Exception:  # noqa: BLE001 - whatever differs, ``send`` remains
        return False
    return was_ready == [False, True, False, True, False] and written[1] == written[2]


def _cycle_for_trial(transport: Any, flow: FlowControl) -> RequestResponseCycle:
    logger = logging.getLogger(__name__)
    return RequestResponseCycle(
        scope=cast(Any, {"type": "http", "method": "POST"}),
        transport=transport,
        flow=flow,
        logger=logger,
        access_logger=logger,
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )


def _run_now(call: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that must not wait."""
    try:
        call.send(None)
    except StopIteration:
        return
    call.close()
    raise RuntimeError("it waits")


class LimitedProtocol(HttpToolsProtocol):
    """A connection of a client, with limits on the headers of its requests: their length, and the time they may take.

    Args:
        settings: the settings with the limits.
        on_refusal: called for a request that is refused here, before the application sees it: with its method and
            path as far as they are known, the status, why, and the bytes of the response.
        direct: whether to offer the application direct writes.
        given: see uvicorn.
    """

    # An object with more than 30 attributes of its own (uvicorn's has 28) has a dictionary of 1.5 KiB in Python 3.11.
    __slots__ = (
        "_beside_body",
        "_direct",
        "_ignores_input",
        "_in_head",
        "_on_left",
        "_on_refusal",
        "_running",
        "_settings",
        "_timer",
    )

    def __init__(self, settings: Settings, on_refusal: OnRefusal, *, direct: bool, **given: Any) -> None:
        super().__init__(**given)
        self._settings = settings
        self._on_refusal = on_refusal
        self._direct = direct
        self._running: RequestResponseCycle | None = None
        self._on_left: Callable[[], None] | None = None
        self._ignores_input = False
        self._in_head = False
        self._beside_body = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Handle a new connection."""
        super().connection_made(cast(asyncio.Transport, LingeringTransport(transport, self)))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._stop_waiting()
        super().connection_lost(exc)
        self._disconnect()

    def shutdown(self) -> None:
        """Close the connection after the running request, because the server stops."""
        super().shutdown()
        if self._running:
            self._running.keep_alive = False

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. Refuse requests that are invalid or ambiguous, and end the connection."""
        if self._ignores_input:
            return
        self._unset_keepalive_if_required()
        if self._timer is None and not self._is_busy:
            self._wait_for_head()
        self._beside_body += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501, "not_implemented", "no such method in HTTP")
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except StopParsing:
            pass
        except httptools.HttpParserError:
            if not self._ignores_input:
                self._refuse(400, "bad_request", "that is no HTTP request")
        else:
            if self._beside_body > self._settings.max_header:
                self._too_long()

    def on_message_begin(self) -> None:
        """Handle the start of a request."""
        self._in_head = True
        super().on_message_begin()
        self.scope[HAS_LEFT] = self._has_left  # type: ignore[literal-required]  # a key of our own

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field, except in trailers: they must not be taken for headers (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the headers, which are whole."""
        self._stop_waiting()
        self._in_head = False
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > self._settings.max_header:
            self._too_long()
        elif self.parser.get_method() == b"CONNECT":
            self._refuse(501, "not_implemented", "this relay is no forward proxy: use it as a base URL")
        elif self._has_two_hosts():
            self._refuse(400, "bad_request", "the request is for another host than its Host says")
        if self._ignores_input:
            raise StopParsing
        super().on_headers_complete()
        if len(self.pipeline) == 1:  # go on reading, to see when the client leaves
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Take part of the body."""
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle the end of a request."""
        self._beside_body = 0
        self.url = b""
        if not self.parser.should_upgrade():  # otherwise its body is still to come
            super().on_message_complete()

    @property
    def is_aborted(self) -> bool:
        """Whether the application asks for a reset."""
        return self._running is not None and ABORT in self._running.scope

    @property
    def is_answered_early(self) -> bool:
        """Whether the client may still be sending although its response is complete."""
        cycle = self.cycle
        return self._ignores_input or (cycle is not None and cycle.response_complete and cycle.more_body)

    def close_gracefully(self, transport: asyncio.Transport) -> None:
        """End the connection gracefully: for a while, read and discard what the client still sends."""
        self._ignores_input = True
        self._stop_waiting()
        self.flow.resume_reading()
        transport.write_eof()
        self._timer = self.loop.call_later(LINGER, transport.close)

    def _has_left(self) -> bool:
        """Return whether the client has hung up, which the event loop does not tell while the body is not read."""
        sock = self.transport.get_extra_info("socket")
        return sock is None or _hung_up(sock.fileno())

    @property
    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running, self._on_left = cycle, None
        cast(LingeringTransport, self.transport).hold_head()
        if self._direct:
            cycle.scope[WRITER] = DirectWriter(cycle)  # type: ignore[literal-required]  # keys of our own
            cycle.scope[ON_LEFT] = self._register  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def _register(self, on_left: Callable[[], None] | None) -> None:
        """Take what is called when the client leaves, see :data:`unbroken.relay.asgi.ON_LEFT`."""
        self._on_left = on_left
        if on_left and self._running and self._running.disconnected:
            on_left()

    def _disconnect(self) -> None:
        """Signal the disconnect to the running request. (uvicorn signals the last one, which may be waiting.)"""
        if self._running and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            if self._on_left:
                self._on_left()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade (Java's client asks for it at once), as RFC 9110, section 7.8, allows.

        The parser leaves the body to the other protocol: another one, which has not seen the upgrade, reads it. It
        reads this one message; what the client sends after it is not read.
        """
        self.cycle.keep_alive = False
        self.parser = httptools.HttpRequestParser(
            types.SimpleNamespace(on_body=self.on_body, on_message_complete=self._end_of_last_message)
        )
        framing = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] in _FRAMING)
        self.data_received(b"POST / HTTP/1.1\r\n%s\r\n" % framing + rest)

    def _end_of_last_message(self) -> None:
        self.on_message_complete()
        self._ignores_input = True
        raise StopParsing

    def _has_two_hosts(self) -> bool:
        """Return whether the target is a whole URL whose host is not the one of ``Host`` (RFC 9112, section 3.2.2)."""
        if self.url.startswith((b"/", b"*")):
            return False
        authority = self.url.partition(b"://")[2].partition(b"/")[0].lower()
        return authority not in {value.lower() for name, value in self.headers if name == b"host"}

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(self._settings.receive_timeout, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._beside_body:
            self._refuse(408, "request_timeout", "the request's headers did not come in time")
        else:
            self.transport.close()

    def _too_long(self) -> None:
        limit = self._settings.max_header
        self._refuse(431, "header_too_large", f"the request's headers are over {limit} bytes (--max-header)")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """End the connection, with a response if no other one has begun.

        Bytes after a complete request do not affect it.
        """
        if self.transport.is_closing():
            return
        running = self._running if self._is_busy else None
        if running and not running.more_body:
            self._ignores_input, running.keep_alive = True, False
            return
        if not running or not running.response_started:
            body = DEFAULT.error_body(GatewayError(status, code, message))
            head = (
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head % (status, _REASONS[status], len(body)) + body)
            self._ignores_input = True
            if not running:  # which has a record of its own
                self._on_refusal(*self._request_line(), status, message, len(body))
        self._disconnect()
        self.transport.close()

    def _request_line(self) -> tuple[str, str]:
        """Return the method and path of the request that is arriving, as far as they are known."""
        if not (url := getattr(self, "url", b"")):
            return "-", "-"
        return self.parser.get_method().decode("latin-1"), url.partition(b"?")[0].decode("latin-1")


class StopParsing(Exception):
    """An exception that stops the parser: nothing more is read from this connection."""


class LingeringTransport:
    """A transport whose close does not destroy a response: if a client's bytes were left unread, the system would reset
    the connection, and many clients then do not read the response (RFC 9112, section 9.6).

    It also sends the head of a response in one packet with what comes in the same round of the event loop.

    Args:
        transport: the real transport.
        protocol: the protocol that uses it.

    Attributes:
        write: see asyncio.
    """

    def __init__(self, transport: asyncio.Transport, protocol: LimitedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._is_closing = False
        self._head = b""
        self.write: Callable[[bytes], None] = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def hold_head(self) -> None:
        """Hold what is written next, for the rest of this round of the event loop."""
        self.write = self._hold

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        """See asyncio."""
        self._write_head()
        if self._protocol.is_aborted:
            self._transport.abort()
            return
        if self.is_closing() or not self._protocol.is_answered_early:
            self._transport.close()
            return
        self._is_closing = True
        self._protocol.close_gracefully(self._transport)

    def _hold(self, data: bytes) -> None:
        self._head, self.write = data, self._write_with_head
        asyncio.get_running_loop().call_soon(self._write_head)

    def _write_with_head(self, data: bytes) -> None:
        head, self._head, self.write = self._head, b"", self._transport.write
        self.write(head + data)

    def _write_head(self) -> None:
        if self._head and not self._transport.is_closing():
            self._write_with_head(b"")


class DrainingServer(uvicorn.Server):
    """A server with a graceful shutdown: it accepts nothing new, and running requests may finish.

    Args:
        config: uvicorn's configuration.
        relay: the application.
        grace: seconds for which running requests may go on.
        orphaned: see :func:`unbroken.relay.server.make_server`. A server that is supervised does not end at a second
            signal: its supervisor does, and a first one may come from both it and whoever signals all processes.
    """

    def __init__(self, config: uvicorn.Config, relay: Relay, grace: float, orphaned: int | None) -> None:
        super().__init__(config)
        self._relay = relay
        self._grace = grace
        self._orphaned = orphaned

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self._orphaned is not None:
            asyncio.get_running_loop().add_reader(self._orphaned, self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Stop listening, wait for running requests, and end those that take too long, with an error to the client."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._relay.stop()
        await self._idle_within(self._grace)
        self._relay.hand_over()
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._idle_within(LAST_WORDS)
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, and end the process at the second one. Does nothing on another thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
            if self.should_exit and self._orphaned is None:
                os._exit(128 + signum)
            self._stop()

        before: dict[signal.Signals, Any] = {}
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # the parent ignores it, as nohup does
                before[number] = signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        self.should_exit = True
        if self._orphaned is not None:
            with contextlib.suppress(RuntimeError):  # no loop runs yet
                asyncio.get_running_loop().remove_reader(self._orphaned)

    async def _idle_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(_POLL)
