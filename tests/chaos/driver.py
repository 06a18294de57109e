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

import trustme

from chaos.faces import ANSWER, DIALECTS_ASKED, FACES, POLICY, TEXT, VERSIONS, Faces, Turn, text_of
from unbroken.core.dialect import Dialect
from unbroken.core.failures import Phase
from unbroken.lab import Fault, Upstream
from unbroken.lab.record import RecordedRequest

AT_ONCE = 8
LONGEST = 8000
"""Bytes: about as long as the longest stream of :data:`ANSWER`; an offset beyond a stream's end is at its end."""

SPOKEN = (Phase.OUTPUT, Phase.SETTLED, Phase.COMPLETE)


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
            self.counts["leaks"] += max(0, self._faces.tasks() - 4) + max(0, threading.active_count() - threads)
        return {"seed": self._seed, "turns": self._turns, **self.counts, "violations": self.violations}

    def _open(self) -> None:
        enter = self._stack.enter_context
        authority = trustme.CA()
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server_tls)
        folder = enter(tempfile.TemporaryDirectory())
        ca_file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(ca_file)
        contexts = {"http1": None, "http2": server_tls}
        self._upstreams = {
            version: enter(Upstream(answer=ANSWER, ssl_context=context, faults=list(self._faults(version))))
            for version, context in contexts.items()
        }
        self._indexes = {version: Index(upstream) for version, upstream in self._upstreams.items()}
        self._faces = enter(Faces({version: upstream.origin for version, upstream in self._upstreams.items()}, ca_file))

    def _faults(self, version: str) -> Iterator[Fault | None]:
        chance = random.Random(f"{self._seed} {version}")
        for _ in range(8 * self._turns):
            yield None if chance.random() < 0.45 else fault_of(chance, version)

    def _guarded(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        face, version, dialect = chance.choice(FACES), chance.choice(VERSIONS), chance.choice(DIALECTS_ASKED)
        where = f"turn {number}, {face}, {dialect.name}, {version}"
        try:
            turn = self._faces.ask(face, version, dialect, f"turn {number}.")
            wrong = self._judge(turn, dialect, self._indexes[version].requests_of(f"turn {number}."))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is a violation
            turn, wrong = Turn("error"), f"{type(exc).__name__}: {exc}"
        with self._lock:
            self.counts[turn.outcome] += 1
            if wrong:
                self.violations.append(f"{where}: {wrong}")

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
        text, failed = text_of(dialect, body[len(block) :].lstrip())
        if turn.outcome == "cut" and failed and not text:
            return ""
        return f"{turn.outcome}, but its bytes are not those of its last attempt"


def fault_of(chance: random.Random, version: str) -> Fault:
    """Return a random fault that a version of HTTP can have."""
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
