"""Turns with faults at random bytes, over every dialect, face and HTTP version, each judged by the rule.

    make chaos                          40,000 turns
    python -m chaos.driver --turns 1000 --seed 7

A turn breaks the rule if what its caller got is anything else than the bytes (or the text) of one attempt, whole or
with an error; if it is called whole and is not; if another request was sent after one that had spoken; or if more
requests were sent than the budget allows.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import random
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
import trustme

import unbroken
from relay.serving import Caller, Served, settings_to
from unbroken.core.dialect import Dialect
from unbroken.core.dialects import DIALECTS
from unbroken.core.dialects.openai_completions import OPENAI_COMPLETIONS
from unbroken.core.events import Text
from unbroken.core.failures import Phase
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.sse import Parser
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.lab.record import RecordedRequest
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
AT_ONCE = 8
LONGEST = 8000
"""Bytes: about as long as the longest stream of :data:`ANSWER`; an offset beyond a stream's end is at its end."""

SPOKEN = (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)
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


class Chaos:
    """The world in which turns are run: upstreams, clients, a relay.

    Args:
        turns: how many are to be run.
        seed: of everything that is random.
    """

    def __init__(self, turns: int, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._turns = turns
        self._seed = seed
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def run(self, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Run all turns; return the counts."""
        with self._stack:
            self._open()
            threads = threading.active_count()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for done, _ in enumerate(pool.map(self._guarded, range(self._turns)), 1):
                    progress(done)
            for upstream in self._upstreams.values():
                self.counts["requests"] += len(upstream.requests)
            self.counts["leaks"] += max(0, self._served.tasks() - 4) + max(0, threading.active_count() - threads)
        return {"seed": self._seed, "turns": self._turns, **self.counts, "violations": self.violations}

    def _open(self) -> None:
        enter = self._stack.enter_context
        authority = trustme.CA()
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_tls)
        folder = enter(tempfile.TemporaryDirectory())
        ca_file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        self._verify = str(ca_file)
        contexts = {"http1": None, "http2": server_tls}
        self._upstreams = {
            version: enter(Upstream(answer=ANSWER, ssl_context=context, faults=list(self._faults(version))))
            for version, context in contexts.items()
        }
        self._indexes = {version: Index(upstream) for version, upstream in self._upstreams.items()}
        self._http = enter(httpx2.Client(transport=Transport(verify=self._verify, policy=POLICY, proxy="")))
        to = {
            version: UpstreamSettings(version, upstream.origin, ca_file=self._verify)
            for version, upstream in self._upstreams.items()
        }
        self._served = enter(Served(settings_to(to, policy=POLICY, heartbeat=0)))
        self._portal = enter(anyio.from_thread.start_blocking_portal())
        self._clients: dict[tuple[str, str], unbroken.Client] = {}
        self._async_clients: dict[tuple[str, str], unbroken.AsyncClient] = {}
        for version, dialect in itertools.product(VERSIONS, DIALECTS_ASKED):
            arguments = self._client_arguments(version, dialect)
            self._clients[version, dialect.name] = enter(unbroken.Client(**arguments))
            client = self._portal.call(lambda made=arguments: _make(made))
            self._async_clients[version, dialect.name] = enter(self._portal.wrap_async_context_manager(client))

    def _client_arguments(self, version: str, dialect: Dialect) -> dict[str, Any]:
        base_url = self._upstreams[version].origin + ("/v1" if dialect.name.startswith("openai") else "")
        return {
            "base_url": base_url, "dialect": dialect.name, "api_key": "sk-chaos-0123456789", "model": "lab",
            "policy": POLICY, "proxy": "", "verify": self._verify,
        }  # fmt: skip

    def _faults(self, version: str) -> Iterator[Fault | None]:
        chance = random.Random(f"{self._seed} {version}")
        for _ in range(8 * self._turns):
            yield None if chance.random() < 0.45 else _fault(chance, version)

    def _guarded(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        face, version, dialect = chance.choice(FACES), chance.choice(VERSIONS), chance.choice(DIALECTS_ASKED)
        where = f"turn {number}, {face}, {dialect.name}, {version}"
        try:
            turn = getattr(self, f"ask_{face.replace(' ', '_')}")(version, dialect, f"turn {number}.")
            wrong = self._judge(turn, dialect, self._indexes[version].requests_of(f"turn {number}."))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is a violation
            turn, wrong = Turn("error"), f"{type(exc).__name__}: {exc}"
        with self._lock:
            self.counts[turn.outcome] += 1
            if wrong:
                self.violations.append(f"{where}: {wrong}")

    # Faces

    def ask_client(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask with the blocking client."""
        pieces: list[str] = []
        stream = self._clients[version, dialect.name].stream(prompt)
        try:
            with stream as turn:
                pieces += [event.text for event in turn if isinstance(event, Text)]
        except unbroken.TurnError as error:
            return Turn(_outcome(error), stream.text, report=stream.report)
        return Turn("whole", "".join(pieces), report=stream.report)

    def ask_async_client(self, version: str, dialect: Dialect, prompt: str) -> Turn:
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

    def ask_transport(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask with httpx2 over the transport."""
        path, body = _request(dialect, prompt)
        url = self._upstreams[version].origin + path
        received = b""
        try:
            with self._http.stream("POST", url, content=body, headers={"content-type": "application/json"}) as response:
                if response.status_code != 200:
                    return Turn("handed on")
                for chunk in response.iter_raw():
                    received += chunk
        except httpx2.HTTPError:
            return Turn("cut", _text(dialect, received)[0], received)
        text, failed = _text(dialect, received)
        return Turn("handed on" if failed else "whole", text, received)

    def ask_relay(self, version: str, dialect: Dialect, prompt: str) -> Turn:
        """Ask the relay with a bare socket."""
        path, body = _request(dialect, prompt)
        with Caller(self._served.port) as caller:
            answer = caller.ask("POST", f"/{version}{path}", [("content-type", "application/json")], body)
        if answer.status != 200:
            return Turn("error" if b"unbroken_error" in answer.body or answer.status in (502, 504) else "handed on")
        text, failed = _text(dialect, answer.body)
        if not answer.whole:
            return Turn("cut", text, answer.body)
        return Turn("handed on" if failed else "whole", text, answer.body)

    # The rule

    def _judge(self, turn: Turn, dialect: Dialect, requests: list[RecordedRequest]) -> str:
        """Return how the turn broke the rule, ``""`` if it did not."""
        if len(requests) > 1 + POLICY.replays + POLICY.retries * (1 + POLICY.replays):
            return f"{len(requests)} requests"
        fault = requests[-1].fault
        if fault and fault.kind in ("malformed", "error_event"):  # which may tear an event: the text says nothing
            return self._judge_bytes(turn, dialect, requests[-1].sent) if turn.body else ""
        if not TEXT.startswith(turn.text):
            return f"foreign or doubled text {turn.text!r}"
        if turn.outcome == "whole" and turn.text != TEXT:
            return f"{turn.text!r} called whole"
        if turn.report and any(attempt.phase in SPOKEN for attempt in turn.report.attempts[:-1]):
            return "sent again after an attempt that had spoken"
        return self._judge_bytes(turn, dialect, requests[-1].sent) if turn.body else ""

    def _judge_bytes(self, turn: Turn, dialect: Dialect, sent: bytes) -> str:
        """The bytes are those of the last attempt, the beginning of them, or that and an error event of the relay."""
        body = turn.body or b""
        if body == sent or (sent.startswith(body) and turn.outcome != "whole"):
            return ""
        common = next((at for at, (one, other) in enumerate(zip(body, sent, strict=False)) if one != other), len(sent))
        block = body[: body.rfind(b"\n\n", 0, common) + 2] if b"\n\n" in body[:common] else b""
        text, failed = _text(dialect, body[len(block) :].lstrip())
        if turn.outcome == "cut" and failed and not text:
            return ""
        return f"{turn.outcome}, but its bytes are not those of its last attempt"


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


def _text(dialect: Dialect, body: bytes) -> tuple[str, bool]:
    """The text of a stream, and whether an error stands in it."""
    decoder, pieces, failed = dialect.decoder(), [], False
    for event in Parser().feed(body):
        try:
            typed = decoder.decode(event)
        except unbroken.UnbrokenError:
            continue
        pieces += [one.text for one in typed if isinstance(one, Text)]
        failed = failed or any(type(one).__name__ == "Failed" for one in typed)
    return "".join(pieces), failed


def _fault(chance: random.Random, version: str) -> Fault:
    offset = chance.randrange(LONGEST)
    kinds = ["rst", "fin", "clean_end", "short_length", "error_event", "malformed"]
    kinds += ["truncated_chunk", "bad_chunk"] if version == "http1" else ["rst_stream", "goaway"]
    match chance.random():
        case roll if roll < 0.08:
            return Fault("status", "before_headers", status=chance.choice([400, 401, 429, 500, 502, 503, 529]))
        case roll if roll < 0.1:
            return Fault("stall", "after_bytes", offset=offset, seconds=2)
        case roll if roll < 0.16:
            return Fault(chance.choice(["rst", "fin"]), "before_headers")
    kind = chance.choice(kinds)
    more: dict[str, Any] = {"then": "close"} if kind == "goaway" else {}
    if kind == "error_event":
        more = {"error": {"type": chance.choice(["server_error", "invalid_request_error"])}}
    return Fault(kind, "after_bytes", offset=offset, **more)  # type: ignore[arg-type]


class Index:
    """The requests of an upstream by the turn that made them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def requests_of(self, prompt: str) -> list[RecordedRequest]:
        """The requests of one turn, in order."""
        wanted = prompt.encode()
        return [request for request in list(self._upstream.requests)[-400:] if wanted in request.body]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Turns with faults at random bytes, judged by the rule.")
    parser.add_argument("--turns", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    began = time.monotonic()

    def progress(done: int) -> None:
        if done % 500 == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {options.turns} turns")
            sys.stderr.flush()

    counts = Chaos(options.turns, options.seed).run(progress)
    violations = counts.pop("violations")
    result = {**counts, "seconds": round(time.monotonic() - began), "violations": len(violations)}
    sys.stdout.write("\n".join([json.dumps(result), *violations[:20], ""]))
    return bool(violations or counts.get("leaks"))


if __name__ == "__main__":
    sys.exit(main())
