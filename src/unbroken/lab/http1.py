"""One HTTP/1.1 connection of the upstream: responses are written here, so that they can break."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

from unbroken.lab.answer import Framing
from unbroken.lab.condition import Condition
from unbroken.lab.exchange import ClientGoneError, ServerExchange
from unbroken.lab.fault import Fault
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.request_parser import ParsedRequest, RequestParser
from unbroken.lab.script import SendHead

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD_CHUNK = b"this is no chunk size\r\n"
_TRUNCATED_CHUNK_SIZE = 256  # bytes that the chunk announces
_TRUNCATED_CHUNK = b'data: {"id": "cut off in the mid'


class RequestHandler(Protocol):
    """The records of a server's requests, and its answers.

    Attributes:
        condition: guards everything that is recorded.
    """

    condition: Condition

    def record(
        self,
        connection: int,
        http_version: str,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> RecordedRequest:
        """Record a request that was read whole, with the fault that it takes."""

    async def answer(self, exchange: Http1Exchange) -> None:
        """Perform the response to the exchange's request, with its fault."""


class Http1Connection:
    """One connection, whose requests are served one after the other."""

    def __init__(self, stream: RawStream, state: RequestHandler, number: int) -> None:
        self._stream = stream
        self._state = state
        self._number = number
        self._parser = RequestParser()

    async def run(self) -> None:
        """Serve until either side ends the connection.

        Raises:
            OSError: the client left.
        """
        try:
            while (record := await self._read_request()) is not None:
                exchange = Http1Exchange(self._stream, record, self._state.condition)
                await self._state.answer(exchange)
                if not exchange.keeps_connection:
                    break
        except ValueError:
            await self._stream.send(_BAD_REQUEST)
        await self._stream.shut()

    async def _read_request(self) -> RecordedRequest | None:
        """Return the next request, or None after the last."""
        while not self._parser.complete:
            if self._parser.take_expectation():
                await self._stream.send(_CONTINUE)
            data = await self._stream.read()
            if not data:
                return None
            self._parser.feed(data)
        return self._record(self._parser.complete.popleft())

    def _record(self, request: ParsedRequest) -> RecordedRequest:
        headers = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        body = bytes(request.body)
        return self._state.record(self._number, request.version, request.method, request.target, headers, body)


class Http1Exchange(ServerExchange):
    """One response over HTTP/1.1.

    Attributes:
        keeps_connection: whether another request may follow on the connection.
    """

    def __init__(self, stream: RawStream, record: RecordedRequest, condition: Condition) -> None:
        super().__init__(stream, record, condition, stream.left)
        self.keeps_connection = False
        self._framing: Framing = "close"

    async def _send_head(self, head: SendHead) -> None:
        self._framing = "close" if self.record.http_version == "1.0" else head.framing
        lines = [f"HTTP/1.1 {head.status} {_reason(head.status)}"]
        lines += [f"{name}: {value}" for name, value in (*head.headers, *self._framing_headers(head))]
        self._note_head()
        await self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _framing_headers(self, head: SendHead) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = []
        if self._framing == "chunked":
            headers.append(("transfer-encoding", "chunked"))
        elif self._framing == "length" and head.length is not None:
            headers.append(("content-length", str(head.length)))
        if self._must_close():
            headers.append(("connection", "close"))
        return headers

    def _must_close(self) -> bool:
        options = ",".join(value for name, value in self.record.headers if name == "connection").lower()
        return self._framing == "close" or "close" in [option.strip() for option in options.split(",")]

    async def _send_body(self, data: bytes) -> None:
        if data:
            self._note_sent(data)
            await self._send(_chunk(data) if self._framing == "chunked" else data)

    async def _send_end(self) -> None:
        if self._framing == "chunked":
            await self._send(b"0\r\n\r\n")
        self.keeps_connection = not self._must_close()

    async def _break(self, fault: Fault) -> None:
        if fault.kind == "bad_chunk":
            await self._send(_BAD_CHUNK)
        elif fault.kind == "truncated_chunk":
            self._note_sent(_TRUNCATED_CHUNK)
            await self._send(b"%x\r\n%s" % (_TRUNCATED_CHUNK_SIZE, _TRUNCATED_CHUNK))
        await super()._break(fault)

    async def _send(self, data: bytes) -> None:
        if self.gone.is_set():
            raise ClientGoneError
        await self._stream.send(data)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Lab"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
