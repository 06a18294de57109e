"""Every face, asking one upstream about one stream: what came of it, in terms that all of them share."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import httpx2

from differential.streams import CASE
from transports.asking import WAYS, Way
from unbroken.client import Answer, AsyncClient, Client
from unbroken.core.dialects import find_dialect
from unbroken.core.policy import Policy
from unbroken.errors import TurnError

KEY = "sk-servers-0123456789"
POLICY = Policy(replays=1, backoff_initial=0.0, backoff_max=0.0, settle_timeout=0.4, idle_timeout=5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """One turn.

    Attributes:
        dialect: of the request.
        request: its body.
        origin: of the upstream, or of a relay before it.
        case: what the upstream is told in the header :data:`CASE`.
        policy: the limits.
    """

    dialect: str
    request: Mapping[str, Any]
    origin: str
    case: str
    policy: Policy = POLICY

    @property
    def url(self) -> str:
        return find_dialect(self.dialect).url(self.origin, "m") if self.dialect == "gemini" else self.versioned

    @property
    def versioned(self) -> str:
        return find_dialect(self.dialect).url(f"{self.origin}/v1", "m")

    @property
    def options(self) -> dict[str, Any]:
        """The fields of the request that the typed client does not write itself."""
        own = ("model", "messages", "prompt", "input", "contents")
        return {name: value for name, value in self.request.items() if name not in own}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What came of it.

    Attributes:
        data: the bytes that were handed on; ``None`` from a typed client.
        status: the status that was handed on; ``None`` from a typed client.
        answer: the answer as far as it came; ``None`` from a transport.
        error: what was raised.
    """

    data: bytes | None = None
    status: int | None = None
    answer: Answer | None = None
    error: Exception | None = None


def _client_arguments(ask: Ask) -> dict[str, Any]:
    return {
        "base_url": ask.origin if ask.dialect == "gemini" else f"{ask.origin}/v1",
        "api_key": KEY,
        "model": "m",
        "dialect": ask.dialect,
        "policy": ask.policy,
        "headers": {CASE: ask.case},
        "_environ": {},
    }


def ask_client(ask: Ask) -> Said:
    with Client(**_client_arguments(ask)) as client:
        turn = client.stream("Hello?", **ask.options)
        try:
            with turn:
                turn.read()
        except TurnError as error:
            return Said(answer=turn.answer, error=error)
    return Said(answer=turn.answer)


async def _ask_client(ask: Ask) -> Said:
    async with AsyncClient(**_client_arguments(ask)) as client:
        turn = client.stream("Hello?", **ask.options)
        try:
            async with turn:
                await turn.read()
        except TurnError as error:
            return Said(answer=turn.answer, error=error)
    return Said(answer=turn.answer)


def ask_transport(way: Way, ask: Ask) -> Said:
    headers = {"content-type": "application/json", CASE: ask.case}
    content = json.dumps(ask.request).encode()
    reply = way.request("POST", ask.url, content=content, headers=headers, policy=ask.policy, trust_env=False)
    return Said(data=reply.data, status=reply.status, error=reply.error)


def ask_relay(ask: Ask) -> Said:
    """Ask with an HTTP client that knows nothing of us; :attr:`Ask.origin` is a relay's."""
    data, status, error = b"", None, None
    headers = {CASE: ask.case}
    try:
        with (
            httpx2.Client(verify=False, trust_env=False) as client,  # to load certificates takes long
            client.stream("POST", ask.url, json=dict(ask.request), headers=headers) as response,
        ):
            status = response.status_code
            for piece in response.iter_raw():
                data += piece
    except httpx2.HTTPError as exc:
        error = exc
    return Said(data=data, status=status, error=error)


Face = Callable[[Ask], Said]
CLIENTS: dict[str, Face] = {
    "client": ask_client,
    "client-asyncio": lambda ask: anyio.run(_ask_client, ask, backend="asyncio"),
    "client-trio": lambda ask: anyio.run(_ask_client, ask, backend="trio"),
}
TRANSPORTS: dict[str, Face] = {str(way): functools.partial(ask_transport, way) for way in WAYS}
FACES = {**CLIENTS, **TRANSPORTS, "relay": ask_relay}
