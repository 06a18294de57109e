"""Proxies that are killed and started again in the middle of a turn: the third section of ``docs/intermediaries.md``.

python -m intermediaries.restarts                all of them, and the section
python -m intermediaries.restarts --only squid   one, and no section
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import httpx
import openai

import unbroken
from intermediaries import kinds
from intermediaries.kinds import BY_NAME, VERSIONS, Intermediary, Site, Version
from intermediaries.page import head, table, write
from intermediaries.running import Trust, bytes_before, listening, make_trust
from ports import free_port
from unbroken.core.events import Text
from unbroken.core.failures import Phase
from unbroken.core.policy import Policy
from unbroken.lab import Continuation, Fault, ScriptedAnswer, Upstream
from waiting import poll

COMMAND = "make restarts"
NAMES = ("v2ray-connect", "v2ray-socks5", "sing-box", "squid", "tinyproxy", "privoxy", "haproxy-tcp", "nginx-stream")

Place = Literal["before headers", "in the prelude", "after output"]
PLACES: tuple[Place, ...] = ("before headers", "in the prelude", "after output")

Way = Literal["openai SDK", "default", 'hold="answer"', 'after_output="continue"']
WAYS: tuple[Way, ...] = ("openai SDK", "default", 'hold="answer"', 'after_output="continue"')

KEY = "sk-lab-0123456789"
TEXT = "The tide goes out and the tide comes in."
PATIENT = 600
"""Seconds of every proxy's idle timer here: it is no timer that cuts."""

LIMIT = 120.0
"""Seconds that a turn may take."""

CHOICES: Mapping[Way, Mapping[str, Any]] = {
    "default": {},
    'hold="answer"': {"hold": "answer"},
    'after_output="continue"': {"after_output": "continue"},
}


@dataclasses.dataclass(frozen=True)
class Ended:
    """What came of a turn.

    Attributes:
        outcome: ``whole``, ``error``, ``silent`` (a part of the answer as if it were all) or ``doubled``.
        requests: how many the origin got.
        error: what was raised, ``""`` for nothing.
    """

    outcome: str
    requests: int
    error: str = ""

    @property
    def cell(self) -> str:
        """As it stands in the table."""
        shown = {"whole": "**whole**", "error": "error", "silent": "**cut, silently**", "doubled": "**doubled**"}
        return f"{shown[self.outcome]} ×{self.requests}"


class Proxy:
    """An intermediary that can be killed and started again at the same port."""

    def __init__(self, intermediary: Intermediary, origin: int, trust: Trust, folder: Path) -> None:
        folder.mkdir(parents=True)
        site = Site(folder, [free_port(), free_port()], origin, trust.pem, trust.authority)
        with mock.patch.object(kinds, "TIMER", PATIENT):
            [self._command] = intermediary.commands(site)
        self._folder, self.port = folder, site.port
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = self._stack.enter_context(listening(self._command, self.port, self._folder))

    def restart(self) -> None:
        """Kill it with its workers and every connection, and start it again."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it."""
        self._stack.close()


def fault_at(place: Place) -> Fault:
    """Return the silence of the first answer in which the proxy is killed."""
    match place:
        case "before headers":
            return Fault("stall", "before_headers")
        case "in the prelude":
            return Fault("stall", "after_role")
        case _:
            return Fault("stall", "after_bytes", offset=bytes_before(ScriptedAnswer(text=TEXT), 1))


def interrupted(
    intermediary: Intermediary, version: Version, place: Place, way: Way, trust: Trust, folder: Path
) -> Ended:
    """Run a turn whose proxy is killed and started again at this place."""
    upstream = Upstream(
        faults=[fault_at(place)],
        answer=ScriptedAnswer(text=TEXT),
        continuation=Continuation("prefix"),
        ssl_context=trust.server(),
        http2=version == "HTTP/2",
    )
    with upstream:
        proxy = Proxy(intermediary, upstream.port, trust, folder)
        proxy.start()
        try:
            return _asked(upstream, proxy, intermediary, place, way, trust)
        finally:
            proxy.stop()


def _asked(upstream: Upstream, proxy: Proxy, intermediary: Intermediary, place: Place, way: Way, trust: Trust) -> Ended:
    through = f"{intermediary.scheme}://127.0.0.1:{proxy.port}" if intermediary.scheme else ""
    base_url = upstream.url if through else f"https://127.0.0.1:{proxy.port}/v1"
    turn = Plain(base_url, through, trust) if way == "openai SDK" else Ours(base_url, through, trust, CHOICES[way])
    turn.start()
    poll(lambda: upstream.requests, LIMIT)
    if place != "before headers":
        poll(lambda: turn.phase is (Phase.OUTPUT if place == "after output" else Phase.PRELUDE), LIMIT)
    proxy.restart()
    turn.join(LIMIT)
    assert not turn.is_alive(), f"the turn does not end: {intermediary.name}, {place}, {way}"
    return Ended(turn.outcome, len(upstream.requests), str(turn.error or ""))


class Asking(threading.Thread):
    """One turn, on a thread of its own.

    Attributes:
        text: what has come of the answer.
        error: what was raised.
        phase: how far it has come.
    """

    def __init__(self, base_url: str, proxy: str, trust: Trust) -> None:
        super().__init__(name="turn", daemon=True)
        self.text = ""
        self.error: Exception | None = None
        self._base_url, self._proxy, self._tls = base_url, proxy, trust.client()

    @property
    def phase(self) -> Phase:
        raise NotImplementedError

    @property
    def outcome(self) -> str:
        """In the words of :class:`Ended`."""
        if not TEXT.startswith(self.text):
            return "doubled"
        return "error" if self.error else "whole" if self.text == TEXT else "silent"

    def run(self) -> None:
        """See :meth:`threading.Thread.run`."""
        try:
            for piece in self.pieces():
                self.text += piece
        except (unbroken.UnbrokenError, openai.OpenAIError, httpx.HTTPError) as error:
            self.error = error

    def pieces(self) -> Iterator[str]:
        """Yield the answer as it comes."""
        raise NotImplementedError


class Ours(Asking):
    """A turn of the typed client's."""

    def __init__(self, base_url: str, proxy: str, trust: Trust, choice: Mapping[str, Any]) -> None:
        super().__init__(base_url, proxy, trust)
        self._choice = choice
        self._turn: unbroken.TurnStream | None = None

    @property
    def phase(self) -> Phase:
        """See :class:`Asking`."""
        return self._turn.progress.phase if self._turn else Phase.CONNECT

    def pieces(self) -> Iterator[str]:
        """See :meth:`Asking.pieces`."""
        policy = Policy(unreachable_for=60.0, **self._choice)
        with unbroken.Client(
            base_url=self._base_url,
            api_key=KEY,
            model="lab",
            verify=self._tls,
            proxy=self._proxy,
            policy=policy,
            continuation="prefix",
        ) as client:
            self._turn = client.stream("Hello?")
            with self._turn as turn:
                for event in turn:
                    if isinstance(event, Text):
                        yield event.text


class Plain(Asking):
    """A turn of the plain SDK's."""

    _has_begun = False

    @property
    def phase(self) -> Phase:
        """See :class:`Asking`."""
        return Phase.OUTPUT if self.text else Phase.PRELUDE if self._has_begun else Phase.HEADERS

    def pieces(self) -> Iterator[str]:
        """See :meth:`Asking.pieces`."""
        http = httpx.Client(proxy=self._proxy or None, verify=self._tls, trust_env=False)
        with openai.OpenAI(base_url=self._base_url, api_key=KEY, http_client=http) as client:
            messages: Any = [{"role": "user", "content": "Hello?"}]
            stream = client.chat.completions.create(model="lab", messages=messages, stream=True)
            self._has_begun = True
            for chunk in stream:
                for one in chunk.choices:
                    yield one.delta.content or ""


Found = dict[tuple[str, Version, Place, Way], Ended]


def expected(place: Place, way: Way) -> str:
    """Return what must come of a turn of ours."""
    return "error" if place == "after output" and way == "default" else "whole"


def measure(names: Sequence[str], folder: Path, progress: Callable[[str], None]) -> Found:
    """Run every turn."""
    folder.mkdir()
    trust = make_trust(folder, "127.0.0.1", "localhost")
    found: Found = {}
    for number, (name, version, place, way) in enumerate(itertools.product(names, VERSIONS, PLACES, WAYS)):
        progress(f"{name}, {version}, {place}, {way}")
        found[name, version, place, way] = interrupted(BY_NAME[name], version, place, way, trust, folder / str(number))
    return found


def wrong(found: Found) -> list[str]:
    """Return the cells of ours that are not as demanded."""
    return [
        f"{name}, {version}, {place}, {way}: {ended.outcome} ×{ended.requests} {ended.error}"
        for (name, version, place, way), ended in found.items()
        if way != "openai SDK" and ended.outcome != expected(place, way)
    ]


def section(found: Found, names: Sequence[str]) -> str:
    """Return the section of the page."""
    rows = [
        [name, version, place, *(found[name, version, place, way].cell for way in WAYS)]
        for name, version, place in itertools.product(names, VERSIONS, PLACES)
    ]
    ways = [way if way == "openai SDK" else f"`{way}`" if "=" in way else way for way in WAYS]
    return f"""
## Proxies that are killed and started again

{head(COMMAND, {})}

Each proxy is killed (SIGKILL) in the middle of a turn, with every connection through it, and started again at the same
port: before the response's headers, in the prelude, and after three tokens. Its idle timer is long. Beside the plain
SDK the typed client asks, as it comes, holding the whole answer, and continuing it by prefix, which the origin can.

Before output every turn survives. After it the default is an error that says so; what is held is replayed, and what
may be continued is. “×2” means that the origin got two requests.

{table(["proxy", "HTTP", "killed", *ways], rows)}

### Not as demanded

{chr(10).join(f"* {one}" for one in wrong(found)) or "Nothing."}
"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Proxies that are killed and started again in the middle of a turn.")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME")
    options = parser.parse_args()
    names = [name for name in options.only or NAMES if BY_NAME[name].installed]

    def progress(doing: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{doing:70}")
            sys.stderr.flush()

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for programs that give up root's rights
        found = measure(names, Path(folder) / "run", progress) if names else {}
    if not options.only:
        write(COMMAND, section(found, names))
    told = {f"{name}, {version}, {place}, {way}": one.cell for (name, version, place, way), one in found.items()}
    sys.stdout.write("\n".join([json.dumps(told, indent=1, ensure_ascii=False), *wrong(found), ""]))
    return int(bool(wrong(found)))


if __name__ == "__main__":
    sys.exit(main())
