"""The script of a response that a real upstream sends: its steps as they come, with a fault at its place."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.http import Request
from unbroken.core.sse import MAX_EVENT, begins_as_events
from unbroken.errors import UsageError
from unbroken.lab.answer import Framing
from unbroken.lab.fault import Fault, Point
from unbroken.lab.place import Finder, find_place, is_event
from unbroken.lab.real_upstream import RealUpstream, UnreachableError, UpstreamCutError, UpstreamResponse
from unbroken.lab.record import RecordedRequest
from unbroken.lab.routes import speech_of
from unbroken.lab.script import Break, EndBody, Mark, SendBody, SendHead, Step, compose, goes_on, insertion, whole

_BLANK_LINE = re.compile(rb"\n\r?\n|\r\r")
_UNKNOWN_LENGTH = 2**30  # bytes that are announced for a body that is to be short of them


class LiveScript:
    """The script of one response.

    Args:
        request: the request.
        fault: what goes wrong; None: nothing.
        upstream: where the request is sent.

    Attributes:
        status: the status that was sent; None before that.
        events: how many events of the body were sent; comments are none.
        met: whether the fault has happened.
        cut: whether the upstream itself has ended the response too early.
        unreachable: why the upstream could not be connected; empty if it could.
    """

    def __init__(self, request: RecordedRequest, fault: Fault | None, upstream: RealUpstream) -> None:
        self.status: int | None = None
        self.events = 0
        self.met = False
        self.cut = False
        self.unreachable = ""
        self._request = request
        self._fault = fault
        self._upstream = upstream
        self._speech = speech_of(request)

    async def steps(self) -> AsyncGenerator[Step]:
        """Return the steps, as soon as each is known."""
        async with aclosing(self._steps()) as steps:
            async for step in steps:
                if isinstance(step, SendHead):
                    self.status = step.status
                yield step
                if isinstance(step, SendBody):
                    self.events += is_event(step.data)

    async def _steps(self) -> AsyncGenerator[Step]:
        fault = self._fault
        async with aclosing(self._draft()) as draft:
            async for step in draft:
                if not isinstance(step, Mark):
                    yield step
                    continue
                assert fault is not None, "only the place of a fault is marked"
                self.met = True
                if not goes_on(fault):
                    await draft.aclose()  # the upstream need not work any longer
                for inserted in self._consequences(fault):
                    yield inserted

    def _consequences(self, fault: Fault) -> list[Step]:
        return compose([], fault, self._speech) if fault.kind == "status" else insertion(fault, self._speech)

    async def _draft(self) -> AsyncGenerator[Step | Mark]:
        """Return the response with a mark at the place of the fault.

        A fault before the headers comes before the request is sent: it costs nothing at the upstream.
        """
        if self._is_at("before_headers"):
            yield Mark("before_headers")
        try:
            async with self._upstream.exchange(self._request) as response:
                yield self._head(response)
                if self._is_at("after_headers"):
                    yield Mark("after_headers")
                async with aclosing(self._body(response)) as body:
                    async for step in body:
                        yield step
        except UnreachableError as exc:
            self.unreachable = str(exc)
            for refusal in compose(whole(502, self._refusal(str(exc))), None):
                yield refusal
        except UpstreamCutError as exc:
            self.cut = True
            yield Break(Fault("rst" if exc.was_reset else "fin", "before_headers"))

    def _is_at(self, point: str) -> bool:
        return self._fault is not None and self._fault.at == point

    def _refusal(self, reason: str) -> bytes:
        return self._speech.refusal(502, {"message": f"The lab cannot connect to the upstream: {reason}."})

    def _head(self, response: UpstreamResponse) -> SendHead:
        framing, length = self._framing(response)
        return SendHead(response.status, tuple(response.headers), framing, length)

    def _framing(self, response: UpstreamResponse) -> tuple[Framing, int | None]:
        """Return how the body ends: as at the upstream, but in the way that the fault needs."""
        kind = self._fault.kind if self._fault else None
        if kind == "short_length":
            return "length", (_UNKNOWN_LENGTH if response.length is None else response.length) + 1
        if kind is None and response.length is not None:
            return "length", response.length
        if kind in ("truncated_chunk", "bad_chunk") or response.is_delimited:
            return "chunked", None
        return "close", None

    async def _body(self, response: UpstreamResponse) -> AsyncGenerator[Step | Mark]:
        pieces = response.pieces()
        first = await anext(pieces, b"")
        in_events = response.is_readable and _is_stream(response, first)
        parts = _event_by_event(first, pieces) if in_events else _as_it_comes(first, pieces)
        if self._fault is None or self.met:
            steps: AsyncGenerator[SendBody | Mark] = _unmarked(parts)
        else:
            steps = _marked(parts, find_place(self._fault, self._call(), in_events=in_events), self._fault.at)
        async with aclosing(steps):
            async for step in steps:
                yield step
        yield EndBody()

    def _call(self) -> Call | None:
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in self._request.headers)
        target = self._upstream.target(self._request.target)
        try:
            return recognise(Request(self._request.method, f"http://upstream{target}", headers, self._request.body))
        except UsageError:
            return None


def _is_stream(response: UpstreamResponse, first: bytes) -> bool:
    return response.content_type == "text/event-stream" or (response.status < 300 and begins_as_events(first) is True)


async def _unmarked(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[SendBody | Mark]:
    async for piece in pieces:
        yield SendBody(piece)


async def _marked(pieces: AsyncGenerator[bytes], finder: Finder, point: Point) -> AsyncGenerator[SendBody | Mark]:
    """Return the body with the place of a fault marked: where the finder finds it, or at the end."""
    is_found = False
    async for piece in pieces:
        found = None if is_found else finder.find(piece)
        for step in [SendBody(piece)] if found is None else found:
            is_found |= isinstance(step, Mark)
            yield step
    if not is_found:
        rest = finder.rest()
        for step in rest if Mark(point) in rest else [*rest, Mark(point)]:
            yield step


async def _event_by_event(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Return a stream as one event each, as soon as it is whole; what is no event, or too long for one, as it comes."""
    pending, searched = bytearray(first), 0
    while True:
        while found := _BLANK_LINE.search(pending, searched):
            yield bytes(pending[: found.end()])
            del pending[: found.end()]
            searched = 0
        if len(pending) > MAX_EVENT:
            yield bytes(pending)
            pending.clear()
        searched = max(0, len(pending) - 2)
        piece = await anext(rest, b"")
        if not piece:
            break
        pending += piece
    if pending:
        yield bytes(pending)


async def _as_it_comes(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece
