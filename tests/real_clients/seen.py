"""What came of a turn that was cut, for a client alone and for one behind a relay."""

from __future__ import annotations

import json
import re
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trustme

from real_clients import running
from real_clients.clients import ANSWER, CLIENTS, Client
from unbroken.core.dialect import GatewayError
from unbroken.core.dialects import find_dialect
from unbroken.lab import Background, Continuation, CuttingProxy, Fault, RecordedRequest, ScriptedAnswer, Upstream

BEFORE_OUTPUT = (Fault("rst", "before_headers"), Fault("fin", "after_role"), Fault("clean_end", "after_role"))
AFTER_OUTPUT = (Fault("fin", "after_token"), Fault("clean_end", "after_token"))

NO_WEBSOCKET = Fault("status", "before_headers", status=426)
"""What a client that tries a WebSocket first is told, so that it asks over HTTP."""

MIDDLE = Fault("fin", "after_characters", offset=len(ANSWER) // 2)
ANSWERING = ScriptedAnswer(text=ANSWER)
REASONED = ScriptedAnswer(text=ANSWER, reasoning=("A harbour", " has", " a tide", " table."))

TRIES = 3

IDLE = 1.0
"""Seconds of silence after which a path cuts a connection."""

THINKING = ScriptedAnswer(text=ANSWER, think=3 * IDLE)

SPEAKING = ScriptedAnswer(text=re.findall(r" ?[^ ]+", ANSWER), gap=0.5)
"""Word by word, so that the model still speaks when the client that was cut asks again."""

PATIENCE = 60.0
"""Seconds after which a client alone is not waited for any longer, where it will be cut every time."""


@dataclass(frozen=True)
class Choice:
    """What a user may choose for turns that are cut after output, and the cut that shows it.

    Attributes:
        options: of ``unbroken relay``.
        fault: the cut.
        answer: the answer of the model.
        background: what the server makes of calls that ask it to go on by itself, ``None`` if it knows no such field.
    """

    options: tuple[str, ...]
    fault: Fault = MIDDLE
    answer: ScriptedAnswer = ANSWERING
    background: Background | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the server refuses a call as the relay makes it, so that it is made once more."""
        return self.background is not None and bool(self.background.refuses)


HOLD_ANSWER = Choice(("--hold", "answer"))
HOLD_REASONING = Choice(("--hold", "reasoning"), Fault("fin", "after_reasoning"), REASONED)
CONTINUE = Choice(("--after-output", "continue"))
BACKGROUND = Choice(("--background",), background=Background())
REFUSED_BACKGROUND = Choice(("--background", "--hold", "answer"), background=Background(refuses="background"))
"""As the server behind Codex does; what is left is to hold the answer."""
REFUSED_STORE = Choice(("--background", "--hold", "answer"), background=Background(refuses="store"))
"""As OpenAI does to a call that says ``store: false``, which is what Codex says."""

GOES_ON_IF_ASKED = Continuation("asked")
"""After a cut a program may ask the model to go on from there, and models do."""

CUT_ERROR = GatewayError(502, "stream_cut", "connection lost: the stream was cut")


def forms(client: Client) -> Mapping[str, Fault]:
    """Return the forms in which a client can be told of a cut in the middle of its answer."""
    dialect = {"chat": "openai-chat", "responses": "openai-responses", "anthropic": "anthropic-messages"}
    document = find_dialect(dialect.get(client.dialect, client.dialect)).error_body(CUT_ERROR)
    error = json.loads(document)["error"]
    return {
        "end": Fault("clean_end", "after_token"),
        "break": Fault("fin", "after_token"),
        "reset": Fault("rst", "after_token", 0.1),
        "error, end": Fault("error_event", "after_token", error=error),
        "error, break": Fault("error_event", "after_token", error=error, then="close"),
    }


WITHOUT_PREFIX = ("responses", "gemini")
"""Formats that cannot continue an answer by prefix."""

NOT_CONTINUED = {
    "Claude Code",  # its model does not continue a message of the assistant
    *(client.name for client in CLIENTS if client.dialect in WITHOUT_PREFIX),
}
"""Whose answers are not continued by prefix."""


@dataclass(frozen=True)
class Seen:
    """What came of it.

    Attributes:
        ran: how the client ended.
        received: the requests that the server got, by method and path.
        turns: those of them that were the turn, with when they came, in seconds since the first of them.
        log: the relay's entries; empty for a client alone.
        hit: whether it was the turn that met the fault, if there was one.
        user_agent: how the client names itself.
        outcome: "whole", "doubled" (all of the answer and more), "error", "silent" (not all of it, as if it were) or
            "hangs".
    """

    ran: running.Ran
    received: tuple[str, ...]
    turns: tuple[float, ...]
    log: tuple[dict[str, Any], ...]
    hit: bool
    user_agent: str
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
    return _until_hit(lambda: _alone(client, fault))


def _alone(client: Client, fault: Fault | None) -> Seen:
    faults = [*_refusals(client), fault]
    with Upstream(answer=ANSWERING, faults=faults, continuation=GOES_ON_IF_ASKED) as upstream:
        ran = running.run(client, running.straight_at(upstream.origin))
        return _seen(client, ran, upstream)


def _until_hit(run: Callable[[], Seen]) -> Seen:
    """Run it again where something else than the turn met the fault: opencode asks for its title at the same time."""
    for _ in range(TRIES - 1):
        seen = run()
        if seen.hit:
            return seen
    return run()


def alone_in_silence(client: Client) -> Seen:
    """Run a client at a server that thinks for longer than the path there bears silence; nobody waits for ever."""
    with (
        Upstream(answer=THINKING, faults=_refusals(client)) as upstream,
        CuttingProxy(target=("127.0.0.1", upstream.port), idle=IDLE) as path,
    ):
        ran = running.run(client, running.straight_at(f"http://127.0.0.1:{path.port}"), limit=PATIENCE)
        return _seen(client, ran, upstream)


def relayed(client: Client, fault: Fault | None) -> Seen:
    """Run a client behind a relay whose upstream breaks its turn."""
    return _until_hit(lambda: _relayed(client, fault))


def _relayed(client: Client, fault: Fault | None) -> Seen:
    faults = [*faults_before(client), fault]
    with Upstream(answer=ANSWERING, faults=faults, continuation=GOES_ON_IF_ASKED) as upstream:
        return relayed_to(upstream, client, upstream.origin)


def chosen(client: Client, choice: Choice) -> Seen:
    """Run a client behind a relay with a choice, before a server that cuts the turn where that choice saves it."""
    return _until_hit(lambda: _chosen(client, choice))


def _chosen(client: Client, choice: Choice) -> Seen:
    """Run it once. Behind ``--after-output`` the server continues an answer, in a style that the relay is told."""
    style = "prefix" if client.name == "Reasonix" else "assistant"
    continues = choice is CONTINUE
    before = faults_before(client)
    if choice.background and not choice.is_refused:  # the answers to requests before the turn are deleted at the server
        before = before * 2
    faults = [*before, *([None] if choice.is_refused else []), choice.fault]
    continuation = Continuation(style) if continues else None
    with Upstream(
        answer=choice.answer, faults=faults, continuation=continuation, background=choice.background
    ) as upstream:
        told = ("--continuation", style) if continues else ()
        return relayed_to(upstream, client, upstream.origin, *choice.options, *told)


def relayed_in_silence(client: Client) -> Seen:
    """Run a client behind a relay, which asks over HTTP/2, on the path of `alone_in_silence`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with (
        authority.cert_pem.tempfile() as ca_file,
        Upstream(answer=THINKING, ssl_context=context) as upstream,
        CuttingProxy(target=("127.0.0.1", upstream.port), idle=IDLE) as path,
    ):
        return relayed_to(upstream, client, f"https://127.0.0.1:{path.port}", "--ca-file", ca_file, "--ping", "0.4")


def relayed_to(upstream: Upstream, client: Client, origin: str, *options: str) -> Seen:
    """Run a client behind a relay.

    Args:
        upstream: the server.
        client: the client.
        origin: where the relay finds the server.
        options: further ones of the relay.
    """
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        with running.relay(Path(folder), origin, *options) as relay:
            ran = running.run(client, running.through(relay))
        return _seen(client, ran, upstream, tuple(relay.requests()))


def cut_on_its_way(client: Client, cut_after: int) -> Seen:
    """Run a client behind a relay that keeps turns; its own connection to the relay is cut, once.

    Args:
        client: the client.
        cut_after: behind how many bytes of what the relay sends.
    """
    with Upstream(answer=SPEAKING) as upstream, tempfile.TemporaryDirectory(prefix="relay-") as folder:
        with running.relay(Path(folder), upstream.origin, "--keep", "120", "--attach-identical") as relay:
            target = ("127.0.0.1", int(relay.origin.rpartition(":")[2]))
            with CuttingProxy(target=target, cut_after=cut_after, cuts=1) as way:
                there = running.through(replace(relay, origin=f"http://127.0.0.1:{way.port}"))
                ran = running.run(client, there)
        return _seen(client, ran, upstream, tuple(relay.requests()))


def faults_before(client: Client) -> list[None]:
    """None for each request that reaches an upstream behind a relay before the turn does."""
    return [None for sent in client.sends[: client.turn] if not sent.startswith("GET")]


def _refusals(client: Client) -> list[Fault | None]:
    """What happens to each request of a client alone before its turn."""
    return [NO_WEBSOCKET if sent.startswith("GET") else None for sent in client.sends[: client.turn]]


def _seen(client: Client, ran: running.Ran, upstream: Upstream, log: tuple[dict[str, Any], ...] = ()) -> Seen:
    requests = upstream.requests
    turns = _turns(requests)
    return Seen(
        ran,
        tuple(f"{request.method} {path_of(request)}" for request in requests),
        tuple(request.received_at - turns[0].received_at for request in turns),
        log,
        not any(request.fault not in (None, NO_WEBSOCKET) for request in requests if request not in turns),
        dict(turns[0].headers).get("user-agent", "") if turns else "",
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
