"""What a client may ask about the turns of its own credential: a list, the rest of one behind a position, its end."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Protocol

import msgspec

from unbroken.core.http import Headers
from unbroken.relay import asgi
from unbroken.relay.client_request import ClientRequest, Rejection
from unbroken.relay.headers import values
from unbroken.relay.kept.collection import FoundTurn
from unbroken.relay.kept.identity import owner_of
from unbroken.relay.kept.turn import KeptTurn
from unbroken.relay.recorder import OpenRequest
from unbroken.relay.routes import OWN
from unbroken.relay.settings import Settings
from unbroken.relay.store.contract import Store, StoreError, TurnState

TURNS = f"{OWN}/turns"
"""The path of the turns that are kept."""

_POSITION = re.compile(r"\d{1,15}")


class Collect(Protocol):
    """See :meth:`unbroken.relay.kept.keeper.Keeper.collect`."""

    async def __call__(
        self,
        found: FoundTurn,
        upstream: str,
        incoming: ClientRequest,
        send: asgi.Send,
        request: OpenRequest,
        extra: Headers,
        after: int,
    ) -> None: ...


class OwnTurns:
    """Answers requests for the turns that are kept, or for one of them.

    Args:
        settings: the relay's.
        store: where turns are kept.
        running: those that run in this process, by their ids.
        collect: answers a request with what is kept of a turn.
    """

    def __init__(self, settings: Settings, store: Store, running: Mapping[str, KeptTurn], collect: Collect) -> None:
        self._settings = settings
        self._store = store
        self._running = running
        self._collect = collect

    def serves(self, path: str) -> bool:
        """Return whether a path is that of the turns, or of one of them."""
        return path == TURNS or path.startswith(f"{TURNS}/")

    async def serve(self, incoming: ClientRequest, send: asgi.Send, request: OpenRequest, extra: Headers) -> None:
        """Answer a request for the turns, or for one of them.

        Raises:
            asgi.Broken: the turn was cut.
            Rejection: there is no such turn for this client, or not with this method.
        """
        turn_id = incoming.path[len(TURNS) + 1 :]
        request.shown_path = f"{TURNS}/{turn_id[:8]}"  # the whole id may be all that it takes to read the turn
        try:
            if not turn_id:
                _check_method(incoming, "GET")
                await self._list(incoming, send, extra)
                return
            _check_method(incoming, "GET", "DELETE")
            state = await self._find_own(turn_id, incoming)
            if incoming.method == "DELETE":
                await self._remove(turn_id)
                await asgi.answer(send, 204, b"", headers=extra)
                return
        except StoreError as exc:
            raise Rejection(503, "store_away", f"the store cannot be read: {exc}", ((b"retry-after", b"1"),)) from None
        found = FoundTurn(turn_id, is_claimed=False)
        await self._collect(found, state.info.upstream, incoming, send, request, extra, _position(state, incoming))

    async def _list(self, incoming: ClientRequest, send: asgi.Send, extra: Headers) -> None:
        owner = owner_of(incoming, self._settings)
        if not owner:
            raise Rejection(403, "no_credential", "turns are listed for the credential that asked, and there is none")
        turns = [_described(state) for state in await self._store.turns(owner)]
        headers = ((b"cache-control", b"no-store"), *extra)
        await asgi.answer(send, 200, msgspec.json.encode({"turns": turns}), headers=headers)

    async def _find_own(self, turn_id: str, incoming: ClientRequest) -> TurnState:
        """Return a turn that the client may read; whose it is says nothing to others, not even that it is there."""
        state = await self._store.find(turn_id)
        if state is None or not secrets.compare_digest(state.info.owner, self._owner_for(state, incoming)):
            raise Rejection(404, "no_such_turn", "there is no such turn, or it is kept no more")
        return state

    def _owner_for(self, state: TurnState, incoming: ClientRequest) -> str:
        """Return the owner to compare: a turn without one is known to whoever knows its id."""
        return owner_of(incoming, self._settings) if state.info.owner else ""

    async def _remove(self, turn_id: str) -> None:
        if local := self._running.get(turn_id):
            local.remove()
        await self._store.remove(turn_id)


def _position(state: TurnState, incoming: ClientRequest) -> int:
    """Return the position that a client asks for.

    Raises:
        Rejection: 400, it is no number; 416, the turn has ended before it.
    """
    named = [piece[6:] for piece in incoming.query.split("&") if piece.startswith("after=")]
    last_id = [value.decode("latin-1") for value in values(incoming.headers, b"last-event-id")]
    text = (last_id or named or ["0"])[-1]
    if not _POSITION.fullmatch(text):
        raise Rejection(400, "bad_request", "a position (after, Last-Event-ID) is a number of bytes")
    if state.ending and int(text) > state.size:
        raise Rejection(416, "no_such_position", f"the turn has ended at byte {state.size}")
    return int(text)


def _check_method(incoming: ClientRequest, *allowed: str) -> None:
    if incoming.method not in allowed:
        names = ", ".join(allowed)
        raise Rejection(405, "method_not_allowed", f"ask with {names}", ((b"allow", names.encode()),))


def _described(state: TurnState) -> dict[str, object]:
    info = state.info
    return {
        "id": info.id,
        "started": info.started,
        "method": info.method,
        "path": info.path,
        "upstream": info.upstream,
        "dialect": info.dialect,
        "state": state.ending or ("running" if state.is_written else "cut"),
        "bytes": state.size,
        "client_left": state.has_left,
    }
