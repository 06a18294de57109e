"""The relay as an ASGI application: where a request goes."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import anyio

from unbroken.core.dialect import Call
from unbroken.core.dialects import dialect_at, recognise
from unbroken.core.http import Headers, Request
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.errors import UsageError
from unbroken.relay import asgi, fields, guard
from unbroken.relay.access import AccessLog
from unbroken.relay.board import Snapshot
from unbroken.relay.inbound import ClientLeft, Inbound, Rejection
from unbroken.relay.ledger import Ledger, Visit
from unbroken.relay.passing import Passage
from unbroken.relay.pulse import Pulse
from unbroken.relay.records import Outcome
from unbroken.relay.reply import Reply
from unbroken.relay.routes import Route, find_route, is_own
from unbroken.relay.settings import Settings, UpstreamSettings
from unbroken.relay.status import Status
from unbroken.relay.turns import RelayedTurn
from unbroken.relay.voices import voice_of
from unbroken.wire.async_http import AsyncHttpWire

_RETRY_AFTER = ((b"retry-after", b"1"),)
_NO_RETRY = ((b"x-should-retry", b"false"),)  # which clients heed, and this relay, whose own request it is


class Relay:
    """Forwards what programs ask of language models, and keeps their turns alive.

    An ASGI 3 application; run it with ``unbroken relay``, or in a server of your own that supports lifespans.

    Args:
        settings: everything that it can be told.
        version: of Unbroken, for the page.
        log: the access log; ``None`` for none.

    Attributes:
        ledger: what is going on, and what has been.
        gather: makes the picture for the page; where several processes serve, it asks them all. It is given how many
            turns of each process (this one's name is ``""``) have been seen to end, leaves those out, and updates it.
        meet: entered while the relay lives; how it meets other processes.
    """

    def __init__(self, settings: Settings, *, version: str = "", log: AccessLog | None = None) -> None:
        self.ledger = Ledger(log)
        self.gather: Callable[[dict[str, int]], Awaitable[Snapshot]] = self.snapshot
        self.meet: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._settings = settings
        self._version = version
        self._status = Status(self.ledger.metrics, lambda seen: self.gather(seen))
        self._pulse = Pulse(self.ledger.board, settings.heartbeat, early=settings.early_heartbeat)
        self._wires: dict[str, AsyncHttpWire] = {}
        self._name = f"1.1 unbroken-{secrets.token_hex(4)}".encode()  # so that a loop is noticed

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Serve a connection; see the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(Inbound(scope, receive, self._settings.receive_timeout), send)
        else:
            raise UsageError(f"the relay does not speak {scope['type']}")

    def stop(self) -> None:
        """The server stops: what would never end by itself is ended, the rest goes on."""
        self._status.stop()

    async def snapshot(self, seen: dict[str, int]) -> Snapshot:
        """What this process knows, see :attr:`gather`."""
        picture = self.ledger.board.snapshot(self._version, tuple(self._settings.upstreams), seen.get("", 0))
        seen[""] = picture.totals.turns
        return picture

    async def _live(self, receive: asgi.Receive, send: asgi.Send) -> None:
        await receive()  # lifespan.startup
        async with self._pulse, self.meet():
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        for wire in self._wires.values():
            await wire.aclose()
        await send({"type": "lifespan.shutdown.complete"})  # last of all: whoever hears it ends the event loop

    async def _serve(self, inbound: Inbound, send: asgi.Send) -> None:
        """Answer one request, whatever it is."""
        visit = self.ledger.visit(secrets.token_hex(4), inbound)
        dialect = dialect_at(inbound.method, inbound.path)
        try:
            guard.check(inbound, self._settings)
            if is_own(inbound.path):
                await self._status.serve(inbound, send)
            elif allowed := guard.preflight(inbound, self._settings):
                await asgi.answer(send, 204, b"", headers=allowed)
            else:
                await self._forward(inbound, send, visit, may_be_call=dialect is not None)
        except Rejection as no:
            data = voice_of(dialect.name if dialect else None).body(no.trouble)
            extra = guard.cross_origin(inbound, self._settings)
            await asgi.answer(send, no.trouble.status, data, headers=(*no.headers, *extra), close=True)
            visit.ended(Outcome.REJECTED, no.trouble.status, sent=len(data), detail=no.trouble.message)
        except ClientLeft:
            visit.ended(Outcome.LEFT, None)

    async def _forward(self, inbound: Inbound, send: asgi.Send, visit: Visit, *, may_be_call: bool) -> None:
        """Hand a request on: under the rule where it is a generation call, else as it comes."""
        route = self._route(inbound)
        request = self._request(inbound, route)
        body = await inbound.whole(self._settings.max_body) if may_be_call else None
        if body is not None:
            whole = dataclasses.replace(request, body=body)
            if call := recognise(whole):
                await self._turn(inbound, send, visit, route, whole, call)
                return
        await self._pass(inbound, send, visit, route, request, body)

    def _route(self, inbound: Inbound) -> Route:
        settings = self._settings
        route = find_route(settings, inbound.path, guard.without_token(inbound.query, settings))
        if route is None:
            known = ", ".join(f"/{name}/..." for name in settings.upstreams)
            hint = "" if settings.default else "; /v1/... needs a default upstream (--default)"
            raise Rejection(404, "no_such_route", f"nothing is forwarded from there; there are {known}{hint}")
        upstream = route.upstream
        if settings.inject_key and upstream.key_env and upstream.key is None:
            missing = f"no key for {upstream.name}: the relay was started without {upstream.key_env}"
            raise Rejection(401, "no_key", missing)
        return route

    def _request(self, inbound: Inbound, route: Route) -> Request:
        """The request as the upstream shall see it, without its body."""
        if any(self._name in value for value in fields.values(inbound.headers, b"via")):
            looped = "the request has come back to the relay that sent it: look at its upstreams"
            raise Rejection(508, "loop", looped, _NO_RETRY)
        inject = self._settings.inject_key
        headers = fields.upwards(inbound.headers, route.upstream, inject=inject, via=self._name)
        try:
            return Request(inbound.method, route.url, headers)
        except UsageError as exc:
            raise Rejection(400, "bad_request", str(exc)) from None

    async def _turn(
        self, inbound: Inbound, send: asgi.Send, visit: Visit, route: Route, request: Request, call: Call
    ) -> None:
        settings, ledger, name = self._settings, self.ledger, visit.name
        if len(ledger.board.live) >= settings.max_turns:
            full = f"{settings.max_turns} turns run already (--max-turns)"
            raise Rejection(503, "too_many_turns", full, _RETRY_AFTER)
        wire = self._wire(route.upstream)
        driver = AsyncDriver(wire, request, call, settings.policy, on_retry=partial(ledger.again, name))
        reply = Reply(
            send,
            voice_of(call.dialect.name),
            name,
            streaming=call.streaming,
            extra=self._extra(inbound),
            clock=time.monotonic,
        )
        turn = RelayedTurn(name, route.upstream.name, call, driver, reply)
        ledger.enter(turn)
        try:
            await turn.run(inbound)
        finally:
            ledger.leave(turn, inbound)

    async def _pass(
        self, inbound: Inbound, send: asgi.Send, visit: Visit, route: Route, request: Request, body: bytes | None
    ) -> None:
        upstream = route.upstream
        voice = voice_of(upstream.dialect)
        passage = Passage(self._wire(upstream), inbound, send, voice, self._settings.policy, self._extra(inbound))

        def note() -> None:
            visit.ended(
                passage.outcome, passage.status, upstream=upstream.name, sent=passage.bytes, detail=passage.detail
            )

        try:
            await passage.run(request, body)
        except (asgi.Broken, anyio.get_cancelled_exc_class()):
            note()
            raise
        note()  # a rejection is noted where it is answered

    def _extra(self, inbound: Inbound) -> Headers:
        return guard.cross_origin(inbound, self._settings)

    def _wire(self, upstream: UpstreamSettings) -> AsyncHttpWire:
        if upstream.name not in self._wires:
            settings = self._settings
            proxy = settings.proxy if upstream.proxy is None else upstream.proxy
            self._wires[upstream.name] = AsyncHttpWire(proxy=proxy, verify=upstream.ca_file or settings.verify)
        return self._wires[upstream.name]
