"""Every way to run a turn, behind one function: what came of it, in terms that all of them share."""

from __future__ import annotations

import dataclasses
import functools
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec

from unbroken.client import AsyncClient, Client
from unbroken.core.actions import CallerTimeouts, RetryEvent
from unbroken.core.continuation.format import Style
from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.events import Restarted, TypedEvent
from unbroken.core.http import Head, Request
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.synchronous import Driver
from unbroken.errors import TurnError
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.http import HttpWire
from unbroken.wire.proxies import ProxySetting

KEY = "sk-conformance-0123456789"
PROMPT = "a prompt that nobody may quote"

POLICY = Policy(
    backoff_initial=0.01,
    backoff_max=0.02,
    connect_timeout=5,
    idle_timeout=5,
    first_output_timeout=10,
    settle_timeout=0.3,
    unreachable_for=0.3,
)
"""Limits that no healthy exchange of a test reaches, and waits that cost no time."""


PLACES = {
    "openai-chat": ("messages", "chat/completions"),
    "openai-responses": ("input", "responses"),
    "interactions": ("input", "interactions"),
}
"""The field of the messages, and the path below the version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """One turn.

    Attributes:
        url: base URL.
        tls: whom to trust.
        policy: the limits.
        options: further fields of the request's body.
        headers: further headers.
        proxy: the paths.
        acts: the call acts on the world; no request of the chat dialect says so, so it is said here.
        continuation: how the server continues an answer.
        dialect: the wire format: one of :data:`PLACES`.
        refused: the servers that have refused to let a response go on.
        timeouts: the caller's own, of which a typed client has none.
        when_told: called with each event that the observer is told.
    """

    url: str
    tls: ssl.SSLContext
    policy: Policy = POLICY
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    proxy: ProxySetting = None
    acts: bool = False
    continuation: Style | None = None
    dialect: str = "openai-chat"
    refused: RefusedBackgrounds | None = None
    timeouts: CallerTimeouts = dataclasses.field(default_factory=CallerTimeouts)
    when_told: Callable[[RetryEvent], object] = lambda _: None

    def request(self) -> tuple[Request, Call]:
        messages, path = PLACES[self.dialect]
        body = {"model": "lab", messages: [{"role": "user", "content": PROMPT}], "stream": True, **self.options}
        fields = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **self.headers}
        raw = tuple((name.encode(), value.encode()) for name, value in fields.items())
        request = Request("POST", f"{self.url}/{path}", raw, msgspec.json.encode(body))
        call = recognise(request)
        assert call is not None
        generation = msgspec.structs.replace(call.generation, acts=self.acts or call.generation.acts)
        return request, msgspec.structs.replace(call, generation=generation)

    def client_arguments(self) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "api_key": KEY,
            "model": "lab",
            "policy": self.policy,
            "verify": self.tls,
            "headers": self.headers,
            "proxy": self.proxy,
            "continuation": self.continuation,
            "dialect": self.dialect,
            "_environ": {},
        }


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What the caller got.

    Attributes:
        head: the head that was handed on.
        data: the bytes that were handed on; ``None`` from a typed face.
        events: the typed events; ``None`` from a driver.
        text: the text of the answer, from a typed face.
        error: what was raised.
        report: the turn's report.
        told: what the observer was told.
        void: the bytes that had come before the answer began again.
    """

    head: Head | None = None
    data: bytes | None = None
    events: list[TypedEvent] | None = None
    text: str | None = None
    error: TurnError | None = None
    report: Report = dataclasses.field(default_factory=Report)
    told: list[RetryEvent] = dataclasses.field(default_factory=list)
    void: bytes = b""

    @property
    def is_typed(self) -> bool:
        return self.data is None

    def restart(self, attempt: int) -> Restarted:
        """What a driver's caller does who is told that the answer begins again."""
        self.void, self.data = self.data or b"", b""
        return Restarted(attempt, 0)


@dataclasses.dataclass(frozen=True)
class Face:
    """One way to run a turn."""

    name: str
    run: Callable[[Ask], Outcome]
    is_typed: bool

    def __str__(self) -> str:
        return self.name


def _observer(ask: Ask, outcome: Outcome) -> Callable[[RetryEvent], None]:
    def observe(event: RetryEvent) -> None:
        outcome.told.append(event)
        ask.when_told(event)

    return observe


def _arguments(ask: Ask, outcome: Outcome) -> dict[str, Any]:
    return {
        "on_retry": _observer(ask, outcome),
        "continuation": ask.continuation,
        "on_restart": outcome.restart,
        "timeouts": ask.timeouts,
        "refused": ask.refused,
    }


def drive(ask: Ask) -> Outcome:
    outcome = Outcome(data=b"")
    wire = HttpWire(proxy=ask.proxy, verify=ask.tls, environ={})
    driver = Driver(wire, *ask.request(), ask.policy, **_arguments(ask, outcome))
    try:
        with driver:
            outcome.head = driver.open()
            for chunk in driver:
                outcome.data = (outcome.data or b"") + chunk
    except TurnError as error:
        outcome.error = error
    finally:
        wire.close()
    outcome.report = driver.report
    return outcome


async def drive_async(ask: Ask) -> Outcome:
    outcome = Outcome(data=b"")
    wire = AsyncHttpWire(proxy=ask.proxy, verify=ask.tls, environ={})
    driver = AsyncDriver(wire, *ask.request(), ask.policy, **_arguments(ask, outcome))
    try:
        async with driver:
            outcome.head = await driver.open()
            async for chunk in driver:
                outcome.data = (outcome.data or b"") + chunk
    except TurnError as error:
        outcome.error = error
    finally:
        await wire.aclose()
    outcome.report = driver.report
    return outcome


def ask_client(ask: Ask) -> Outcome:
    outcome = Outcome(events=[])
    with Client(**ask.client_arguments(), on_retry=_observer(ask, outcome)) as client:
        turn = client.stream(PROMPT, **ask.options)
        try:
            with turn:
                outcome.events = events = []
                for event in turn:
                    events.append(event)  # noqa: PERF402 - what came before an error counts
        except TurnError as error:
            outcome.error = error
    outcome.text, outcome.report = turn.text, turn.report
    return outcome


async def ask_client_async(ask: Ask) -> Outcome:
    outcome = Outcome(events=[])
    async with AsyncClient(**ask.client_arguments(), on_retry=_observer(ask, outcome)) as client:
        turn = client.stream(PROMPT, **ask.options)
        try:
            async with turn:
                outcome.events = events = []
                async for event in turn:
                    events.append(event)  # noqa: PERF401 - what came before an error counts
        except TurnError as error:
            outcome.error = error
    outcome.text, outcome.report = turn.text, turn.report
    return outcome


def _on(backend: str, function: Callable[[Ask], Any]) -> Callable[[Ask], Outcome]:
    return functools.partial(anyio.run, function, backend=backend)


DRIVERS = (
    Face("driver", drive, is_typed=False),
    Face("driver-asyncio", _on("asyncio", drive_async), is_typed=False),
    Face("driver-trio", _on("trio", drive_async), is_typed=False),
)
CLIENTS = (
    Face("client", ask_client, is_typed=True),
    Face("client-asyncio", _on("asyncio", ask_client_async), is_typed=True),
)
FACES = DRIVERS + CLIENTS
