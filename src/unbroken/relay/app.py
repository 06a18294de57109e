"""The relay as an ASGI application, which dispatches requests."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import anyio

from unbroken.core.dialect import Call
from unbroken.core.dialects import DEFAULT, dialect_at, find_dialect, recognise
from unbroken.core.http import Headers, Request
from unbroken.core.policy import Hold, Policy, hold_named
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.drivers.pouring import PouringDriver
from unbroken.errors import UsageError
from unbroken.journal.findings import PathFindings
from unbroken.relay import asgi, guard, headers
from unbroken.relay.budget import Budget, Holding
from unbroken.relay.client_request import ClientLeft, ClientRequest, Rejection
from unbroken.relay.errors import needs_no_event
from unbroken.relay.heartbeats import Heartbeats
from unbroken.relay.journaling import Journaling, find
from unbroken.relay.kept.identity import Identity
from unbroken.relay.kept.joined import JoinedResponse
from unbroken.relay.kept.keeper import Keeper, KeptEvent
from unbroken.relay.kept.succession import Succession, can_go_on
from unbroken.relay.kept.turn import KeptTurn
from unbroken.relay.kept.worth import Worth
from unbroken.relay.passthrough import Passthrough
from unbroken.relay.recorder import OpenRequest, Outcome, Recorder, RequestRecord, Snapshot
from unbroken.relay.replicas import Replicas
from unbroken.relay.reply import Reply
from unbroken.relay.routes import Route, find_route, is_own
from unbroken.relay.settings import Settings, UpstreamSettings
from unbroken.relay.status_page import StatusPage
from unbroken.relay.telemetry import AccessLog, Metrics
from unbroken.relay.turns import RelayedTurn
from unbroken.relay.watchdog import Watchdog, WatchedSend
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.contract import AsyncWire

_NO_RETRY = ((b"x-should-retry", b"false"),)  # clients heed it, and so does this relay, which is the client in a loop


class Relay:
    """A relay of requests to language models, which retries and replays turns that are cut.

    An ASGI 3 application; run it with ``unbroken relay``, or in another server that supports lifespans.

    Args:
        settings: where it forwards to, which clients it admits, and its limits.
        version: Unbroken's version, for the page.
        log: the access log; ``None`` for none.
        shows: what the page shows where that is less than a client might think, see
            :attr:`unbroken.relay.recorder.Snapshot.shows`.

    Attributes:
        recorder: the turns that run, and the records of those that ended.
        gather: makes the snapshot for the page, of all relays that share a store. Its argument says how many ended
            turns of each (this one's name is ``""``) were seen; it leaves those out, and updates it.
        lifespan: entered while the relay serves.
    """

    def __init__(self, settings: Settings, *, version: str = "", log: AccessLog | None = None, shows: str = "") -> None:
        metrics = self._metrics = Metrics()
        self._journal = Journaling(settings.journal) if settings.journal else None
        self.recorder = Recorder(metrics, *([log] if log else []), *([self._journal] if self._journal else []))
        self.lifespan: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._settings = settings
        self._version = version
        self._shows = shows
        self._status_page = StatusPage(metrics, lambda seen: self.gather(seen), self._find)
        self._heartbeats = Heartbeats(self.recorder.live, settings.heartbeat, early=settings.early_heartbeat)
        self._watchdog = Watchdog(settings.send_timeout)
        self._budget = Budget(settings)
        self._log = log
        self._keeper = Keeper(settings, self._note_kept, self._note_store) if settings.keep else None
        self._replicas = self._find_replicas()
        own = self._replicas.gather if self._replicas else self.snapshot
        self.gather: Callable[[dict[str, int]], Awaitable[Snapshot]] = own
        self._wires: dict[str, AsyncHttpWire] = {}
        self._refused = RefusedBackgrounds()
        self._name = f"1.1 unbroken-{secrets.token_hex(4)}".encode()  # to detect loops

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Serve a connection; see the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(ClientRequest(scope, receive, self._settings.receive_timeout), send)
        else:
            raise UsageError(f"the relay does not speak {scope['type']}")

    def refused(self, method: str, path: str, status: int, why: str, sent: int) -> None:
        """Record a request that the server has refused before the application saw it."""
        self.recorder.end(
            RequestRecord(
                id=secrets.token_hex(4),
                started=time.time(),
                elapsed=0.0,
                method=method,
                path=path,
                status=status,
                outcome=Outcome.REJECTED,
                bytes_out=sent,
                detail=why,
            )
        )

    def stop(self) -> None:
        """End the feeds of the page, because the server stops; other requests go on."""
        self._status_page.stop()
        if self._keeper:
            self._keeper.stop()

    def hand_over(self) -> None:
        """Leave the turns that still run to other relays, where there may be some, because this one ends now."""
        for turn in self.recorder.live.values():
            turn.hand_over()

    async def snapshot(self, seen: dict[str, int]) -> Snapshot:
        """Return the snapshot of this relay, see :attr:`gather`."""
        upstreams = tuple(self._settings.upstreams)
        snapshot = self.recorder.snapshot(self._version, upstreams, seen.get("", 0), self._shows)
        seen[""] = snapshot.totals.turns
        return snapshot

    async def _find(self) -> PathFindings:
        """Return what past turns tell: those of the journal, and the last of this process."""
        snapshot = await self.gather({})
        return await find(snapshot.recent, self._settings.journal)

    async def _serve_lifespan(self, receive: asgi.Receive, send: asgi.Send) -> None:
        await receive()  # lifespan.startup
        keeper, replicas = self._keeper or nullcontext(), self._replicas or nullcontext()
        async with keeper, replicas, self._heartbeats, self._watchdog, self.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        for wire in self._wires.values():
            await wire.aclose()
        if self._journal:
            await self._journal.aclose()
        await send({"type": "lifespan.shutdown.complete"})  # last: the server then ends the event loop

    async def _serve(self, incoming: ClientRequest, send: asgi.Send) -> None:
        """Answer one request, and record its end, once, however it ends."""
        request = OpenRequest(secrets.token_hex(4), incoming)
        try:
            with self._watchdog.watch(send) as watched:
                await self._answer(incoming, watched, request)
            if watched.timed_out:
                request.give_up(f"the client accepted nothing for {self._settings.send_timeout:g} s (--send-timeout)")
                incoming.abort()
                raise asgi.Broken
        except anyio.get_cancelled_exc_class():
            request.ended_by(Outcome.STOPPED)
            raise
        except asgi.Broken:
            raise
        except Exception:
            request.ended_by(Outcome.DEFECT)
            raise
        finally:
            if record := request.record():
                self.recorder.end(record)

    async def _answer(self, incoming: ClientRequest, send: WatchedSend, request: OpenRequest) -> None:
        dialect = dialect_at(incoming.method, incoming.path)
        try:
            incoming.enter(self._settings.path_secret)
            dialect = dialect_at(incoming.method, incoming.path)
            guard.check(incoming, self._settings)
            if self._keeper and self._keeper.own_turns.serves(incoming.path):
                request.is_recorded = False
                await self._keeper.own_turns.serve(incoming, send, request, self._extra(incoming))
            elif is_own(incoming.path):
                request.is_recorded = False
                await self._status_page.serve(incoming, send)
            elif allowed := guard.preflight(incoming, self._settings):
                request.is_recorded = False
                await asgi.answer(send, 204, b"", headers=allowed)
            else:
                await self._dispatch(incoming, send, request, may_be_call=dialect is not None)
        except Rejection as rejection:
            data = (dialect or DEFAULT).error_body(rejection.error)
            request.rejected(rejection.error, len(data))
            extra = guard.cross_origin(incoming, self._settings)
            await asgi.answer(send, rejection.error.status, data, headers=(*rejection.headers, *extra), close=True)
        except ClientLeft:
            request.ended_by(Outcome.LEFT)

    async def _dispatch(
        self, incoming: ClientRequest, send: WatchedSend, request: OpenRequest, *, may_be_call: bool
    ) -> None:
        """Hand a request on: under the rule where it is a generation call, else as it comes."""
        route = self._route(incoming)
        guard.check_origin(incoming, self._settings, route.upstream)
        outgoing = self._outgoing(incoming, route)
        if not may_be_call:
            await self._pass_through(incoming, send, request, route, outgoing, None)
            return
        with self._budget.turn() as holding:
            body = await incoming.whole(self._settings.max_body, holding)
            whole = outgoing.with_body(body)
            if call := recognise(whole):
                await self._run_or_collect(incoming, send, request, route, whole, call, holding)
            else:
                await self._pass_through(incoming, send, request, route, outgoing, body)

    def _route(self, incoming: ClientRequest) -> Route:
        settings = self._settings
        route = find_route(settings, incoming.path, guard.without_token(incoming.query, settings))
        if route is None:
            known = ", ".join(f"/{name}/..." for name in settings.upstreams)
            hint = "" if settings.default else "; /v1/... needs a default upstream (--default)"
            raise Rejection(404, "no_such_route", f"nothing is forwarded from there; there are {known}{hint}")
        upstream = route.upstream
        if settings.inject_key and upstream.key_env and upstream.key is None:
            missing = f"no key for {upstream.name}: the relay was started without {upstream.key_env}"
            raise Rejection(401, "no_key", missing)
        return route

    def _outgoing(self, incoming: ClientRequest, route: Route) -> Request:
        """Build the request to the upstream, without its body."""
        if any(self._name in value for value in headers.values(incoming.headers, b"via")):
            looped = "the request has come back to the relay that sent it: look at its upstreams"
            raise Rejection(508, "loop", looped, _NO_RETRY)
        inject = self._settings.inject_key
        fields = headers.upwards(incoming.headers, route.upstream, inject=inject, via=self._name)
        try:
            return Request(incoming.method, route.url, fields)
        except UsageError as exc:
            raise Rejection(400, "bad_request", str(exc)) from None

    async def _run_or_collect(
        self,
        incoming: ClientRequest,
        send: WatchedSend,
        request: OpenRequest,
        route: Route,
        outgoing: Request,
        call: Call,
        holding: Holding,
    ) -> None:
        """Answer a generation call: with a turn of its own, or with one that is kept for it."""
        keeper, upstream = self._keeper, route.upstream.name
        if keeper is None:
            await self._run_turn(incoming, send, request, route, outgoing, call, holding)
            return
        identity, succession = keeper.identify(incoming, upstream, outgoing, call), None
        if found := await keeper.find(identity):
            response, extra = JoinedResponse(send), self._extra(incoming)
            policy = self._policy(incoming, route)
            succession = await keeper.answer(
                found, identity, call, policy, incoming, response, request, upstream, extra
            )
            if succession is None:
                return
        run = partial(self._run_kept, keeper, identity, incoming, send, request, route, outgoing, call, holding)
        try:
            await run(succession)
        except asgi.Broken:
            if not (succession and succession.is_without_effect(request.turn)):
                raise
            if record := request.record():
                self.recorder.end(record)
            request.begin_anew(secrets.token_hex(4))
            await run(succession.without_what_is_stored())

    async def _run_kept(
        self,
        keeper: Keeper,
        identity: Identity,
        incoming: ClientRequest,
        send: WatchedSend,
        request: OpenRequest,
        route: Route,
        outgoing: Request,
        call: Call,
        holding: Holding,
        succession: Succession | None,
    ) -> None:
        """Answer a generation call with a turn of its own, which is kept."""
        upstream, response = route.upstream.name, succession.response if succession else None
        async with keeper.keeping(incoming, send, request.id, identity, upstream, call, response) as kept:
            try:
                await self._run_turn(incoming, kept.send, request, route, outgoing, call, holding, kept, succession)
            finally:
                keeper.close(kept, request.turn)

    async def _run_turn(
        self,
        incoming: ClientRequest,
        send: asgi.Send,
        request: OpenRequest,
        route: Route,
        outgoing: Request,
        call: Call,
        holding: Holding,
        kept: KeptTurn | None = None,
        succession: Succession | None = None,
    ) -> None:
        settings, recorder, upstream = self._settings, self.recorder, route.upstream
        on_retry, on_path = partial(recorder.retry, request.id), partial(recorder.notice, request.id)
        policy = self._policy(incoming, route)
        wire: AsyncWire = self._wire(upstream)
        if succession:
            policy, call, wire = succession.policy(policy), succession.call(call), succession.wire(wire)
        may_hold = holding.may_hold if policy.hold != "prelude" or not call.streaming else None
        driver = PouringDriver(
            wire,
            outgoing,
            call,
            policy,
            on_retry=on_retry,
            on_path=on_path,
            may_hold=may_hold,
            continuation=settings.continuation_for(upstream),
            refused=self._refused,
        )
        if kept:
            kept.goes_on = can_go_on(call, policy)
        reply = Reply(
            send,
            call.dialect,
            kept.id if kept else request.id,
            streaming=call.streaming,
            extra=(*self._extra(incoming), *(self._keeper.fields(kept) if self._keeper and kept else ())),
            cut_by_break=needs_no_event(b" ".join(headers.values(incoming.headers, b"user-agent"))),
            writer=kept.writer if kept else incoming.writer,
            clock=time.monotonic,
        )
        turn = RelayedTurn(request.id, incoming, upstream.name, call, driver, reply, kept=kept)
        request.turn = turn
        recorder.start(turn)
        if succession:
            await succession.begin(reply, lambda: driver.attempt > 1 and turn.outcome is None)
        await turn.run()

    async def _pass_through(
        self,
        incoming: ClientRequest,
        send: asgi.Send,
        request: OpenRequest,
        route: Route,
        outgoing: Request,
        body: bytes | None,
    ) -> None:
        upstream = route.upstream
        dialect, wire = find_dialect(upstream.dialect), self._wire(upstream)
        policy, extra = self._settings.policy, self._extra(incoming)
        passthrough = Passthrough(upstream.name, wire, incoming, send, dialect, policy, extra)
        request.passthrough = passthrough
        await passthrough.run(outgoing, body)

    def _find_replicas(self) -> Replicas | None:
        """Return the relays that share the store; ``None`` where no other process can."""
        if self._keeper is None or not self._keeper.store.outlives_relay:
            return None
        return Replicas(self._keeper.store, self.snapshot)

    def _policy(self, incoming: ClientRequest, route: Route) -> Policy:
        return self._settings.policy_for(route.upstream, _hold(incoming), _background(incoming))

    def _note_kept(self, event: KeptEvent, worth: Worth) -> None:
        """Count what became of a turn whose client had gone."""
        self._metrics.kept(event, worth)
        self.recorder.count_kept(event, worth.tokens)

    def _note_store(self, problem: str) -> None:
        """Tell that the store of turns fails, or, with ``""``, takes them once more."""
        self.recorder.store_problem = problem
        if self._log:
            self._log.store(problem)

    def _extra(self, incoming: ClientRequest) -> Headers:
        return guard.cross_origin(incoming, self._settings)

    def _wire(self, upstream: UpstreamSettings) -> AsyncHttpWire:
        if upstream.name not in self._wires:
            settings = self._settings
            proxy = settings.proxy if upstream.proxy is None else upstream.proxy
            self._wires[upstream.name] = AsyncHttpWire(proxy=proxy, verify=upstream.ca_file or settings.verify)
        return self._wires[upstream.name]


def _hold(incoming: ClientRequest) -> Hold | None:
    """Return how much of an attempt the client asks to hold, ``None`` if it does not say."""
    requested = headers.values(incoming.headers, headers.HOLD_FIELD)
    try:
        return hold_named(b", ".join(requested).decode("latin-1").lower()) if requested else None
    except UsageError as exc:
        raise Rejection(400, "bad_request", f"{headers.HOLD_FIELD.decode()}: {exc}") from None


def _background(incoming: ClientRequest) -> bool | None:
    """Return whether the client asks that its response goes on at the server, ``None`` if it does not say."""
    requested = headers.values(incoming.headers, headers.BACKGROUND_FIELD)
    if not requested:
        return None
    said = b", ".join(requested).decode("latin-1").lower()
    if said not in ("true", "false"):
        raise Rejection(400, "bad_request", f"{headers.BACKGROUND_FIELD.decode()} must be true or false")
    return said == "true"
