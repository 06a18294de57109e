"""The faces through which turns are run: the clients, the transport and the relay, in front of the same upstreams."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import anyio.from_thread
import httpx2

import unbroken
from relay.serving import Caller, Served, settings_to
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.events import Text
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.sse import Parser
from unbroken.lab import ScriptedAnswer
from unbroken.relay.settings import UpstreamSettings
from unbroken.transports.httpx2 import Transport

TEXT = "".join(f" word{number}" for number in range(40))
ANSWER = ScriptedAnswer(text=TEXT, reasoning=["Let me", " think."])
POLICY = Policy(
    retries=3,
    replays=3,
    backoff_initial=0.001,
    backoff_max=0.002,
    idle_timeout=0.5,
    settle_timeout=0.2,
    ping_interval=0,
)
DIALECTS_ASKED = [dialect for dialect in DIALECTS if dialect is not OPENAI_COMPLETIONS]
FACES = ("client", "async client", "transport", "relay")
VERSIONS = ("http1", "http2")
OUTCOMES = ("whole", "cut", "handed on", "error")


@dataclasses.dataclass
class Turn:
    """What came of one turn.

    Attributes:
        outcome: one of :data:`OUTCOMES`.
        text: as far as the caller got it.
        body: the bytes, if the face gives bytes.
        report: of the turn, if the face gives it.
    """

    outcome: str
    text: str = ""
    body: bytes | None = None
    report: Report | None = None


class Faces:
    """Every face before the same upstreams.

    Args:
        origins: of the upstreams, by version of HTTP.
        ca_file: whom to trust.

    Attributes:
        served: the relay.
    """

    def __init__(self, origins: Mapping[str, str], ca_file: Path) -> None:
        self._origins = origins
        self._verify = str(ca_file)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self._http = enter(httpx2.Client(transport=Transport(verify=self._verify, policy=POLICY, proxy="")))
        to = {
            version: UpstreamSettings(version, origin, ca_file=self._verify)
            for version, origin in self._origins.items()
        }
        self.served = enter(Served(settings_to(to, policy=POLICY, heartbeat=0)))
        self._portal = enter(anyio.from_thread.start_blocking_portal())
        self._clients: dict[tuple[str, str], unbroken.Client] = {}
        self._async_clients: dict[tuple[str, str], unbroken.AsyncClient] = {}
        for version, dialect in itertools.product(VERSIONS, DIALECTS_ASKED):
            arguments = self._client_arguments(version, dialect)
            self._clients[version, dialect.name] = enter(unbroken.Client(**arguments))
            client = self._portal.call(lambda made=arguments: _make(made))
            self._async_clients[version, dialect.name] = enter(self._portal.wrap_async_context_manager(client))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def tasks(self) -> int:
        """How many tasks the relay has."""
        return self.served.tasks()

    def ask(self, face: str, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Run one turn through a face."""
        way = {
            "client": self._ask_client,
            "async client": self._ask_async_client,
            "transport": self._ask_transport,
            "relay": self._ask_relay,
        }[face]
        return way(version, dialect, prompt)

    def _client_arguments(self, version: str, dialect: Dialect) -> dict[str, Any]:
        base_url = self._origins[version] + ("/v1" if dialect.name.startswith("openai") else "")
        return {
            "base_url": base_url, "dialect": dialect.name, "api_key": "sk-chaos-0123456789", "model": "lab",
            "policy": POLICY, "proxy": "", "verify": self._verify,
        }  # fmt: skip

    def _ask_client(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask with the blocking client."""
        pieces: list[str] = []
        stream = self._clients[version, dialect.name].stream(prompt)
        try:
            with stream as turn:
                pieces += [event.text for event in turn if isinstance(event, Text)]
        except unbroken.TurnError as error:
            return Turn(_outcome(error), stream.text, report=stream.report)
        return Turn("whole", "".join(pieces), report=stream.report)

    def _ask_async_client(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask with the asynchronous client."""

        async def ask() -> Turn:
            stream = self._async_clients[version, dialect.name].stream(prompt)
            try:
                async with stream as turn:
                    await turn.read()
            except unbroken.TurnError as error:
                return Turn(_outcome(error), stream.text, report=stream.report)
            return Turn("whole", stream.text, report=stream.report)

        return self._portal.call(ask)

    def _ask_transport(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask with httpx2 over the transport."""
        path, body = _request(dialect, prompt)
        url = self._origins[version] + path
        received = b""
        try:
            with self._http.stream("POST", url, content=body, headers={"content-type": "application/json"}) as response:
                if response.status_code != 200:
                    return Turn("handed on")
                for chunk in response.iter_raw():
                    received += chunk
        except httpx2.HTTPError:
            return Turn("cut", text_of(dialect, received)[0], received)
        text, failed = text_of(dialect, received)
        return Turn("handed on" if failed else "whole", text, received)

    def _ask_relay(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask the relay with a bare socket."""
        path, body = _request(dialect, prompt)
        with Caller(self.served.port) as caller:
            answer = caller.ask("POST", f"/{version}{path}", [("content-type", "application/json")], body)
        if answer.status != 200:
            return Turn("error" if b"unbroken_error" in answer.body or answer.status in (502, 504) else "handed on")
        text, failed = text_of(dialect, answer.body)
        if not answer.whole:
            return Turn("cut", text, answer.body)
        return Turn("handed on" if failed else "whole", text, answer.body)


async def _make(arguments: dict[str, Any]) -> unbroken.AsyncClient:
    return unbroken.AsyncClient(**arguments)


def _outcome(error: unbroken.TurnError) -> str:
    if isinstance(error, unbroken.StreamCut):
        return "cut"
    return "handed on" if isinstance(error, unbroken.ProviderError) else "error"


def _request(dialect: Dialect, prompt: str) -> tuple[str, bytes]:
    """Path and body of a request for a stream."""
    base_url = "http://lab/v1" if dialect.name.startswith("openai") else "http://lab"
    body = dialect.body("lab", [{"role": "user", "content": prompt}], [], True)
    return dialect.url(base_url, "lab").removeprefix("http://lab"), json.dumps(body).encode()


def text_of(dialect: Dialect, body: bytes) -> tuple[str, bool]:
    """Return the text of a stream, and whether an error stands in it."""
    decoder, pieces, failed = dialect.decoder(), [], False
    for event in Parser().feed(body):
        try:
            typed = decoder.decode(event)
        except unbroken.UnbrokenError:
            continue
        pieces += [one.text for one in typed if isinstance(one, Text)]
        failed = failed or any(type(one).__name__ == "Failed" for one in typed)
    return "".join(pieces), failed
