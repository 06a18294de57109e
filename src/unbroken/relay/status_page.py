"""The status page and its feed, the metrics and the health check, under ``/_unbroken/``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import anyio
import msgspec

from unbroken.core.advice import SilentCut, advice
from unbroken.core.http import Headers
from unbroken.journal.findings import PathFindings
from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.guard import HEALTH
from unbroken.relay.recorder import CUTS, RequestRecord, Snapshot
from unbroken.relay.routes import OWN
from unbroken.relay.telemetry import CONTENT_TYPE, Metrics

TICK = 0.25
"""Seconds between two snapshots for the feed."""

KEEP_ALIVE = 15.0
"""Seconds of silence of the feed after which a comment is sent."""

FINDINGS = f"{OWN}/findings"

_PAGE = MappingProxyType(
    {
        f"{OWN}/": ("index.html", b"text/html; charset=utf-8"),
        f"{OWN}/page.css": ("page.css", b"text/css; charset=utf-8"),
        f"{OWN}/page.js": ("page.js", b"text/javascript; charset=utf-8"),
    }
)

_SAFE: Headers = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


class StatusPage:
    """The handler of the relay's own paths.

    Args:
        metrics: the metrics to show.
        gather: makes a snapshot; of the turns that have ended, only those that were not seen before, see
            :attr:`unbroken.relay.app.Relay.gather`.
        find: makes the findings from past turns.
    """

    def __init__(
        self,
        metrics: Metrics,
        gather: Callable[[dict[str, int]], Awaitable[Snapshot]],
        find: Callable[[], Awaitable[PathFindings]],
    ) -> None:
        self._metrics = metrics
        self._gather = gather
        self._find = find
        self._feeds: set[anyio.CancelScope] = set()

    def stop(self) -> None:
        """End the feeds, which never end by themselves."""
        for scope in self._feeds:
            scope.cancel()

    async def serve(self, incoming: ClientRequest, send: asgi.Send) -> None:
        """Answer a request under ``/_unbroken``.

        Raises:
            Rejection: there is no such path, or not with this method.
        """
        if incoming.method not in ("GET", "HEAD"):
            raise Rejection(405, "method_not_allowed", "ask with GET", ((b"allow", b"GET, HEAD"),))
        match incoming.path:
            case p if p == OWN:
                await asgi.answer(
                    send, 308, b"", b"text/plain", ((b"location", f"{incoming.root}{OWN}/".encode("latin-1")),)
                )
            case p if p in _PAGE:
                name, content_type = _PAGE[p]
                data = files("unbroken.relay").joinpath("page", name).read_bytes()
                await asgi.answer(send, 200, data, content_type, _SAFE)
            case p if p == f"{OWN}/feed":
                await self._feed(incoming, send)
            case p if p == f"{OWN}/metrics":
                await asgi.answer(send, 200, self._metrics.text(), CONTENT_TYPE, _SAFE)
            case p if p == FINDINGS:
                await asgi.answer(send, 200, msgspec.json.encode(await self._find()), asgi.JSON, _SAFE)
            case p if p == HEALTH:
                await asgi.answer(send, 200, b'{"status": "ok"}', asgi.JSON, _SAFE)
            case _:
                raise Rejection(404, "not_found", f"there are {', '.join(_KNOWN)}")

    async def _feed(self, incoming: ClientRequest, send: asgi.Send) -> None:
        """Send events to the page, until it is closed."""
        await asgi.start(send, 200, [(b"content-type", b"text/event-stream"), *_SAFE])
        if incoming.method == "HEAD":
            await asgi.body(send, b"", more=False)
            return
        async with anyio.create_task_group() as tasks:
            self._feeds.add(tasks.cancel_scope)
            tasks.start_soon(self._send_changes, send)
            try:
                await incoming.left()
            finally:
                self._feeds.discard(tasks.cancel_scope)
            tasks.cancel_scope.cancel()
        await asgi.body(send, b"", more=False)

    async def _send_changes(self, send: asgi.Send) -> None:
        """Send the whole snapshot, and then what changes, a few times a second.

        The whole is sent once more where it has become that of other relays.
        """
        seen: dict[str, int] = {}
        shown: Snapshot | None = None
        cuts: deque[SilentCut] = deque(maxlen=CUTS)
        advised, silent_since = "", time.monotonic()
        while True:
            snapshot = await self._gather(seen)
            if shown and shown.shows == snapshot.shows:
                if snapshot.cuts:
                    cuts.extend(snapshot.cuts)
                    advised = advice(cuts)
                events = _changes(shown, snapshot, advised)
            else:
                if shown:
                    seen.clear()
                    snapshot = await self._gather(seen)
                cuts, advised = deque(snapshot.cuts, CUTS), snapshot.advice
                events = [_event("hello", snapshot)]
            if not events and time.monotonic() - silent_since > KEEP_ALIVE:
                events.append(b": still here\n\n")
            if events:
                silent_since = time.monotonic()
                await asgi.body(send, b"".join(events))
            shown = snapshot
            await anyio.sleep(TICK)


def _changes(shown: Snapshot, snapshot: Snapshot, advised: str) -> list[bytes]:
    """Return the events that say what is new in a snapshot."""
    events = [_ended(turn, snapshot, advised) for turn in reversed(snapshot.recent)]
    if snapshot.live or shown.live:
        events.append(_event("live", {"now": snapshot.now, "running": snapshot.running, "live": snapshot.live}))
    if snapshot.store_problem != shown.store_problem:
        events.append(_event("store", {"store_problem": snapshot.store_problem}))
    if snapshot.kept != shown.kept:
        events.append(_event("kept", {"kept": snapshot.kept or {}}))
    return events


def _ended(turn: RequestRecord, snapshot: Snapshot, advised: str) -> bytes:
    data = {"now": snapshot.now, "turn": turn, "cuts": turn.cuts, "advice": advised, "totals": snapshot.totals}
    return _event("ended", data)


def _event(name: str, data: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


_KNOWN = (f"{OWN}/", f"{OWN}/metrics", FINDINGS, HEALTH)
