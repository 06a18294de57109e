"""Clients that leave in the middle, and come back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from relay.serving import Caller, Received, Served, settings_to
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.upstream import Upstream
from waiting import poll

KEY = "sk-test-0123456789-0123456789-0123456789"
OTHER_KEY = "sk-test-9876543210-9876543210-9876543210"

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "lab", "stream": True, "messages": [{"role": "user", "content": "?"}]}
TEXT = tuple(f" word{number}" for number in range(30))
LONG = ScriptedAnswer(text=TEXT, gap=0.02)

RETRY = (("x-stainless-retry-count", "1"),)


class Relays:
    """An upstream, and relays before it.

    Args:
        stack: what is started is ended with it.
        store_url: where turns are kept.
    """

    def __init__(self, stack: ExitStack, store_url: str) -> None:
        self.store_url = store_url
        self._stack = stack
        self.lab: Upstream

    def serve(self, answer: ScriptedAnswer = LONG, faults: Sequence[Any] = (), **settings: Any) -> Client:
        """Start an upstream and a relay; return a client of it."""
        self.lab = self._stack.enter_context(Upstream(answer=answer, faults=list(faults)))
        return self.another(**settings)

    def another(self, **settings: Any) -> Client:
        """Start another relay before the same upstream, with the same store."""
        given = {"keep": 20.0, "store": self.store_url, **settings}
        return Client(self._stack, self._stack.enter_context(Served(settings_to(self.lab.url, **given))))

    @property
    def asked_upstream(self) -> int:
        """How often the upstream was asked."""
        return len(self.lab.requests)


class Client:
    """Asks one relay."""

    def __init__(self, stack: ExitStack, served: Served) -> None:
        self.served = served
        self._stack = stack

    def connect(self) -> Caller:
        return self._stack.enter_context(Caller(self.served.port))

    def begin(self, *fields: tuple[str, str], key: str = KEY, body: Any = BODY, path: str = CHAT) -> Caller:
        """Send a generation call."""
        caller = self.connect()
        caller.begin("POST", path, headers_of(key, *fields), json.dumps(body).encode())
        return caller

    def ask(self, *fields: tuple[str, str], key: str = KEY, body: Any = BODY, path: str = CHAT) -> Received:
        """Send one and read the whole response."""
        return self.begin(*fields, key=key, body=body, path=path).answer()

    def leave(self, *fields: tuple[str, str], after: bytes = b"word3", key: str = KEY) -> Received:
        """Ask, and leave in the middle of the answer; return its head and what had come of it."""
        caller = self.begin(*fields, key=key)
        head = caller.head()
        head.body = unchunked(caller.until(after))
        caller.close()
        turn_id = head.value("x-unbroken-turn")
        poll(lambda: self._knows_that_it_left(turn_id))
        return head

    def _knows_that_it_left(self, turn_id: str | None) -> bool:
        turn = self.served.relay._keeper._running.get(turn_id)
        return turn is None or turn.is_detached

    def collect(self, turn_id: str | None, after: int = 0, *fields: tuple[str, str], key: str = KEY) -> Received:
        """Come for a turn by position."""
        return self.own("GET", f"/{turn_id}?after={after}", *fields, key=key)

    def own(self, method: str, rest: str = "", *fields: tuple[str, str], key: str = KEY) -> Received:
        return self.connect().ask(method, f"/_unbroken/turns{rest}", headers_of(key, *fields))

    def metric(self, event: str) -> float:
        """How many turns the relay has counted with this event."""
        text = self.connect().ask("GET", "/_unbroken/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith(f'unbroken_kept_turns_total{{event="{event}"}}')]
        return float(lines[0].split()[-1]) if lines else 0.0


def headers_of(key: str, *fields: tuple[str, str]) -> list[tuple[str, str]]:
    return [("content-type", "application/json"), *([("authorization", f"Bearer {key}")] if key else []), *fields]


def text_in(body: bytes) -> str:
    """What a chat's stream says."""
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))


def is_whole(answer: Received) -> bool:
    """Whether a response is one whole answer."""
    return answer.status == 200 and answer.whole and text_in(answer.body) == "".join(TEXT)


def unchunked(data: bytes) -> bytes:
    """The bytes of a body, of which the last chunk need not be whole."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body
