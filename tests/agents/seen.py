"""What came of a turn that was cut, for a client alone and for one behind a relay."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import running
from agents.clients import ANSWER, Client
from unbroken.lab import Answer, Fault, RecordedRequest, Upstream

BEFORE_OUTPUT = (Fault("rst", "before_headers"), Fault("fin", "after_role"), Fault("clean_end", "after_role"))
AFTER_OUTPUT = (Fault("fin", "after_token"), Fault("clean_end", "after_token"))

NO_WEBSOCKET = Fault("status", "before_headers", status=426)
"""What a client that tries a WebSocket first is told, so that it asks over HTTP."""


@dataclass(frozen=True)
class Seen:
    """What came of it.

    Attributes:
        ran: how the client ended.
        received: the requests that the server got, by method and path.
        turns: those of them that were the turn, with when they came, in seconds since the first of them.
        log: the relay's entries; empty for a client alone.
        outcome: "whole", "doubled" (all of the answer and more), "error", "silent" (not all of it, as if it were) or
            "hangs".
    """

    ran: running.Ran
    received: tuple[str, ...]
    turns: tuple[float, ...]
    log: tuple[dict[str, Any], ...]
    outcome: str

    @property
    def sent(self) -> tuple[str, ...]:
        """What the client behind the relay sent, by method and path under the upstream's name."""
        return tuple(f"{entry['method']} /{entry['path'].split('/', 2)[2]}" for entry in self.log)

    @property
    def turn(self) -> dict[str, Any]:
        """The relay's entry for the turn: the longest request."""
        return max(self.log, key=lambda entry: entry["bytes_in"])


def alone(client: Client, fault: Fault | None) -> Seen:
    """Run a client straight at a server that breaks its turn."""
    before = [NO_WEBSOCKET if sent.startswith("GET") else None for sent in client.sends[: client.turn]]
    with Upstream(answer=Answer(text=ANSWER), faults=[*before, fault]) as upstream:
        ran = running.run(client, running.straight_at(upstream.origin))
        return _seen(client, ran, upstream.requests)


def relayed(client: Client, fault: Fault | None, *options: str, upstream: Upstream | None = None) -> Seen:
    """Run a client behind a relay whose upstream breaks its turn.

    Args:
        client: which.
        fault: what goes wrong with the turn.
        options: the relay's.
        upstream: another server than the usual one, which is running already; it knows of no fault.
    """
    if upstream:
        return _relayed(client, upstream, options)
    with Upstream(answer=Answer(text=ANSWER), faults=[*faults_before(client), fault]) as usual:
        return _relayed(client, usual, options)


def faults_before(client: Client) -> list[None]:
    """None for each request that reaches an upstream behind a relay before the turn does."""
    return [None for sent in client.sends[: client.turn] if not sent.startswith("GET")]


def _relayed(client: Client, upstream: Upstream, options: Sequence[str]) -> Seen:
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        with running.relay(Path(folder), upstream.origin, *options) as relay:
            ran = running.run(client, running.through(relay))
        return _seen(client, ran, upstream.requests, tuple(relay.requests()))


def _seen(
    client: Client, ran: running.Ran, requests: Sequence[RecordedRequest], log: tuple[dict[str, Any], ...] = ()
) -> Seen:
    turns = _turns(requests)
    return Seen(
        ran,
        tuple(f"{request.method} {path_of(request)}" for request in requests),
        tuple(request.received_at - turns[0].received_at for request in turns),
        log,
        _outcome(client, ran),
    )


def path_of(request: RecordedRequest) -> str:
    """The path without its query."""
    return request.target.partition("?")[0]


def _turns(requests: Sequence[RecordedRequest]) -> list[RecordedRequest]:
    """The turn and its repetitions: titles and the like are far shorter, repetitions are not."""
    enough = 0.9 * max((len(request.body) for request in requests), default=0)
    return [request for request in requests if request.method == "POST" and len(request.body) >= enough]


def _outcome(client: Client, ran: running.Ran) -> str:
    said = client.said(ran.stdout)
    if ran.code is None:
        return "hangs"
    if said == ANSWER and ran.code == 0:
        return "whole"
    if ANSWER in said:
        return "doubled"
    complains = client.complaint and re.search(client.complaint, ran.stdout + ran.stderr)
    return "error" if ran.code or complains else "silent"
