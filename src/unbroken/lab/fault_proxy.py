"""The reverse proxy that puts faults before a real upstream."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unbroken.lab.condition import Condition
from unbroken.lab.fault import Fault
from unbroken.lab.fault_queue import FaultQueue, survives
from unbroken.lab.http1 import Http1Connection, Http1Exchange
from unbroken.lab.live_script import LiveScript
from unbroken.lab.raw_stream import RawStream
from unbroken.lab.real_upstream import RealUpstream, parse_upstream
from unbroken.lab.record import RecordedRequest
from unbroken.lab.routes import dialect_of
from unbroken.lab.script import compose, whole
from unbroken.lab.service import Service
from unbroken.lab.speech import OPENAI

End = Literal["whole", "fault", "client", "upstream", "unreachable", "refused"]
"""How a request ended; `PassedRequest` describes each."""

_NO_WEBSOCKET = {"message": "The lab passes HTTP on, not WebSockets.", "type": "upgrade_required"}


@dataclass(frozen=True, slots=True)
class PassedRequest:
    """What became of a request that a `FaultProxy` has taken. Nothing of its content or of its headers is kept.

    Ends: ``whole`` (the whole response was passed on), ``fault`` (the fault ended or changed it), ``client`` (the
    client left), ``upstream`` (the upstream itself ended the connection too early), ``unreachable`` (it could not be
    connected: the client got a 502), ``refused`` (a WebSocket was asked for: the client got a 426).

    Attributes:
        number: 1 for the first request, and so on.
        method: the method.
        path: the path, without the query.
        status: the status that the client got; None: none.
        events: how many events of a stream were passed on; comments are none.
        bytes: how many bytes of the body were passed on.
        fault: the fault that the request met; None: none.
        end: how it ended.
        seconds: how long it took, from the request, read whole, to the end.
        reason: why the upstream could not be connected; empty otherwise.
    """

    number: int
    method: str
    path: str
    status: int | None
    events: int
    bytes: int
    fault: Fault | None
    end: End
    seconds: float
    reason: str = ""


class FaultProxy(Service):
    """A server that passes requests on to a real upstream, and breaks its responses on script.

    It speaks HTTP/1.1 to its clients, without TLS, and passes on what they send, credentials too. Events are passed on
    one by one, as they come. Each request takes the next fault, as with `Upstream`, if `faults_for` and `path` do not
    say otherwise. Faults before the headers are met without a request to the upstream. Points of the answer
    (``after_role``, ``after_token`` and so on) are found by what the events mean in their dialect; ``after_characters``
    is behind the event with which the text is that long.

    Args:
        to: the base URL of the upstream, http or https.
        faults: the faults of the first request, the second, and so on; None, and after the last: no fault.
        faults_for: which requests take a fault: all, or only generation calls of a dialect.
        path: only requests whose path contains this take faults.
        ca_file: a PEM file with authorities to trust besides the usual ones.
        proxy: the URL of an HTTP proxy on the way to the upstream; None: none, whatever the environment says.
        host: the address to bind.
        port: the port to bind; 0: a free one.

    Attributes:
        passed: what became of each request, in the order in which they ended.

    Raises:
        UsageError: `to` or `proxy` is no such URL, or the file cannot be used.
        ValueError: a fault needs HTTP/2 or TLS towards the client.
    """

    def __init__(
        self,
        to: str,
        *,
        faults: Sequence[Fault | None] = (),
        faults_for: Literal["requests", "generations"] = "requests",
        path: str = "",
        ca_file: str | None = None,
        proxy: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        for fault in faults:
            _check(fault)
        self.passed: list[PassedRequest] = []
        self._connection_numbers = itertools.count(1)
        self._upstream = parse_upstream(to, ca_file, proxy)
        self._faults = FaultQueue(faults)
        chosen = Chosen(path, generations_only=faults_for == "generations")
        self._forwarder = Forwarder(self._condition, self._upstream, self._faults, chosen, self.passed)

    @property
    def url(self) -> str:
        """The base URL that takes the place of the upstream's."""
        return f"http://{self._address}{self._upstream.path}"

    async def _serve(self, sock: socket.socket) -> None:
        number = next(self._connection_numbers)
        fault = self._faults.take_for_connection()
        stream = RawStream(sock)
        try:
            if await survives(stream, fault, "connect"):
                await Http1Connection(stream, self._forwarder, number).run()
            await stream.linger()
        finally:
            stream.close()


def _check(fault: Fault | None) -> None:
    if fault and (protocol := fault.needs("1.1")):
        raise ValueError(f"{fault.kind} needs {protocol}, and clients are served over HTTP/1.1")
    if fault and fault.at == "handshake":
        raise ValueError("a fault at handshake needs TLS, and clients are served without")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The requests that take faults.

    Attributes:
        path: what their path contains.
        generations_only: whether they are generation calls.
    """

    path: str
    generations_only: bool

    def has(self, request: RecordedRequest) -> bool:
        """Return whether a request is one of them."""
        if request.asks_for_websocket or self.path not in request.path:
            return False
        return not self.generations_only or dialect_of(request) is not None


class Forwarder:
    """The handler of the requests of a `FaultProxy`.

    Args:
        condition: guards what is recorded.
        upstream: the upstream.
        faults: those that nobody has met yet.
        chosen: the requests that take faults.
        passed: where the outcome of each request is added.
    """

    def __init__(
        self,
        condition: Condition,
        upstream: RealUpstream,
        faults: FaultQueue,
        chosen: Chosen,
        passed: list[PassedRequest],
    ) -> None:
        self.condition = condition
        self._upstream = upstream
        self._faults = faults
        self._chosen = chosen
        self._passed = passed
        self._numbers = itertools.count(1)

    def record(
        self,
        connection: int,
        http_version: str,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> RecordedRequest:
        """Return a record of a request that was read whole, with the fault that it takes. It is not kept."""
        request = _CountedRequest(
            next(self._numbers), connection, http_version, method, target, headers, body, time.monotonic()
        )
        if self._chosen.has(request):
            request.fault = self._faults.take_for_request()
        return request

    async def answer(self, exchange: Http1Exchange) -> None:
        """Pass the request on, and its response back; record the outcome."""
        request = exchange.record
        script = LiveScript(request, request.fault, self._upstream)
        if is_refused := request.asks_for_websocket:
            await exchange.perform(compose(whole(426, OPENAI.refusal(426, _NO_WEBSOCKET)), None))
        else:
            await exchange.perform_live(script.steps())
        with self.condition.change():
            self._passed.append(_outcome(request, script, is_refused))


class _CountedRequest(RecordedRequest):
    """A record that counts the bytes of the response instead of keeping them."""

    count = 0

    def add_sent(self, data: bytes) -> None:
        """Count bytes of the body that are being sent."""
        self.count += len(data)


def _outcome(request: RecordedRequest, script: LiveScript, is_refused: bool) -> PassedRequest:
    end: End = "whole"
    if is_refused:
        end = "refused"
    elif request.gone:
        end = "client"
    elif script.met:
        end = "fault"
    elif script.unreachable:
        end = "unreachable"
    elif script.cut:
        end = "upstream"
    return PassedRequest(
        number=request.number,
        method=request.method,
        path=request.path,
        status=426 if is_refused else script.status,
        events=script.events,
        bytes=request.count if isinstance(request, _CountedRequest) else 0,
        fault=request.fault if script.met else None,
        end=end,
        seconds=time.monotonic() - request.received_at,
        reason=script.unreachable,
    )
