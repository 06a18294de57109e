"""One HTTP/2 connection of the upstream, on h2."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from unbroken.lab.exchange import ClientGoneError, ServerExchange
from unbroken.lab.fault import Fault
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.script import SendHead
from unbroken.lab.state import ServerState

_GOAWAY = 0x7  # the frame's type: RFC 9113, section 6.8
_PING_WAIT = 0.25  # seconds


class Http2Connection:
    """One connection, whose streams are served concurrently."""

    def __init__(self, stream: RawStream, state: ServerState, number: int) -> None:
        self.stream = stream
        self.state = state
        self.protocol = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.window_opened = asyncio.Event()
        self.is_muted = False
        self._ping_answered = asyncio.Event()
        self._number = number
        self._requests: dict[int, _PartialRequest] = {}
        self._exchanges: dict[int, Http2Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stream_id: int | None = None  # in the GOAWAY that was sent

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        async with asyncio.TaskGroup() as self._streams:
            try:
                await self._converse()
            except OSError:  # the client has left
                self._abandon(left=True)
            else:
                self._abandon(left=self.stream.left.is_set())
        await self.stream.shut()

    async def flush(self) -> None:
        """Send the bytes that h2 has written; a muted connection drops them."""
        data = self.protocol.data_to_send()
        if data and not self.is_muted:
            await self.stream.send(data)

    async def go_away(self, last_stream_id: int, code: int) -> None:
        """Send GOAWAY, and serve no stream beyond `last_stream_id`.

        The frame is written by hand: after its own GOAWAY h2 would not serve the remaining streams.
        """
        await self.flush()
        self._last_stream_id = last_stream_id
        header = struct.pack(">I", 8)[1:] + bytes([_GOAWAY, 0]) + struct.pack(">I", 0)
        await self.stream.send(header + struct.pack(">II", last_stream_id, code))

    async def wait_until_read(self) -> None:
        """Wait until the client has read everything that was sent, as its answer to a PING shows."""
        self._ping_answered.clear()
        self.protocol.ping(b"unbroken")
        await self.flush()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ping_answered.wait(), _PING_WAIT)

    async def _converse(self) -> None:
        self.protocol.initiate_connection()
        await self.flush()
        while data := await self.stream.read():
            try:
                events = self.protocol.receive_data(data)
            except h2.exceptions.ProtocolError:
                await self.flush()  # h2 has written the GOAWAY
                return
            for event in events:
                self._on_event(event)
            await self.flush()

    def _abandon(self, *, left: bool) -> None:
        """End all streams, either because the client left or because a fault broke the connection."""
        for exchange in self._exchanges.values():
            if left:
                exchange.note_gone()
            else:
                exchange.note_done()
        for task in self._tasks:
            task.cancel()

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream_id), headers=headers):
                self._requests[stream_id] = _PartialRequest([(str(name), str(value)) for name, value in headers or ()])
            case h2.events.DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=length):
                self._requests[stream_id].body += data
                self.protocol.acknowledge_received_data(length or 0, stream_id)
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                self._begin(stream_id)
            case h2.events.StreamReset(stream_id=int(stream_id)):
                self._requests.pop(stream_id, None)
                self._on_left(stream_id)
            case h2.events.ConnectionTerminated():
                # The client may want to read the streams to their end, but h2 cannot send it any more of them.
                for stream_id in self._exchanges:
                    self._on_left(stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self.window_opened.set()
            case h2.events.PingReceived():
                self.state.count_ping()
            case h2.events.PingAckReceived():
                self._ping_answered.set()
            case _:
                pass

    def _on_left(self, stream_id: int) -> None:
        if stream_id in self._exchanges:
            self._exchanges[stream_id].gone.set()
            self.window_opened.set()  # it may be waiting for the window

    def _begin(self, stream_id: int) -> None:
        request = self._requests.pop(stream_id)
        if self._last_stream_id is not None and stream_id > self._last_stream_id:
            return
        exchange = Http2Exchange(self, request.record(self.state, self._number), stream_id)
        self._exchanges[stream_id] = exchange
        task = self._streams.create_task(self._serve(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, exchange: Http2Exchange) -> None:
        await self.state.answer(exchange)
        del self._exchanges[exchange.stream_id]
        if self._last_stream_id is not None and not self._exchanges:
            await self.stream.shut()


class _PartialRequest:
    """A request that is being received."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.headers = headers
        self.body = bytearray()

    def record(self, state: ServerState, connection: int) -> RecordedRequest:
        pseudo = {name: value for name, value in self.headers if name.startswith(":")}
        host = [("host", pseudo[":authority"])] if ":authority" in pseudo else []
        fields = [field for field in self.headers if not field[0].startswith(":")]
        return state.record(
            connection, "2", pseudo[":method"], pseudo.get(":path", "*"), [*host, *fields], bytes(self.body)
        )


class Http2Exchange(ServerExchange):
    """One response over HTTP/2."""

    def __init__(self, connection: Http2Connection, record: RecordedRequest, stream_id: int) -> None:
        super().__init__(connection.stream, record, connection.state.condition, asyncio.Event())
        self.stream_id = stream_id
        self._connection = connection
        self._protocol = connection.protocol

    async def _send_head(self, head: SendHead) -> None:
        length = [("content-length", str(head.length))] if head.length is not None else []
        await self._may_send()
        self._note_head()
        self._protocol.send_headers(self.stream_id, [(":status", str(head.status)), *head.headers, *length])
        await self._connection.flush()

    async def _send_body(self, data: bytes) -> None:
        while data:
            await self._may_send()
            window = self._protocol.local_flow_control_window(self.stream_id)
            piece = data[: min(window, self._protocol.max_outbound_frame_size)]
            if piece:
                self._note_sent(piece)
                self._protocol.send_data(self.stream_id, piece)
                await self._connection.flush()
                data = data[len(piece) :]
            else:
                await self._wait_for_window()

    async def _send_end(self) -> None:
        await self._may_send()
        self._protocol.end_stream(self.stream_id)
        await self._connection.flush()

    async def _break(self, fault: Fault) -> None:
        if self.gone.is_set():
            raise ClientGoneError
        match fault.kind:
            case "rst_stream" | "refused_stream":
                self._protocol.reset_stream(self.stream_id, fault.error_code)
                await self._connection.flush()
            case "goaway":
                last = self.stream_id if fault.last_stream_id is None else fault.last_stream_id
                await self._connection.go_away(last, fault.error_code)
                if fault.then == "close":
                    await self._stream.shut()
            case "no_ping_ack":
                self._connection.is_muted = True
            case "rst":
                # A reset discards what has not been read, even bytes that have arrived, if the client writes first.
                await self._connection.wait_until_read()
                await super()._break(fault)
            case _:
                await super()._break(fault)

    async def _may_send(self) -> None:
        """Check that the client is there; on a muted connection, wait until it leaves."""
        if self._connection.is_muted:
            await self.gone.wait()
        if self.gone.is_set():
            raise ClientGoneError

    async def _wait_for_window(self) -> None:
        self._connection.window_opened.clear()
        await self._connection.window_opened.wait()
