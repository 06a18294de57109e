"""``unbroken demo``: the same turn, cut before its first token, with and without Unbroken."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from unbroken.cli.output import Output
from unbroken.cli.terminal import harmless, plain
from unbroken.client import Client
from unbroken.core.events import Text
from unbroken.drivers.notices import describe
from unbroken.errors import TurnError
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.local_model import LocalModel, LocalModelMissingError
from unbroken.lab.proxy import CuttingProxy
from unbroken.lab.upstream import Upstream

IDLE = 1.0
"""Seconds of silence after which the demo's proxy cuts a connection."""

TRIES = 5
"""How many times one program asks until its connection is cut; each time the proxy waits half as long."""

THINK = 4.0
"""Seconds that the model should need before its first token."""

QUESTION = "In one short sentence: what is the sea?"
_INDENT = " " * len(" 0.0 s  ")
_FILLER = "The tide goes out and the tide comes in, and the gulls stand on the sand and wait for it. "
_PROBE_TOKENS, _MOST_TOKENS = 400, 6000


@dataclasses.dataclass
class DemoOutcome:
    """The outcome of one of the two programs.

    Attributes:
        title: name of the program.
        answer: the text that it received.
        ending: how it ended, in one line.
        survived: whether it got the whole answer.
        was_spared: whether it was answered before the proxy had anything to cut.
        wire: the events on the wire, with their time on the monotonic clock.
    """

    title: str
    answer: str = ""
    ending: str = ""
    survived: bool = False
    was_spared: bool = False
    wire: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def note(self, what: str, when: float | None = None) -> None:
        """Add an event, by default at the current time."""
        self.wire.append((time.monotonic() if when is None else when, what))

    def hear(self, text: str) -> None:
        """Add a piece of the answer."""
        if text and not self.answer:
            self.note("the first token")
        self.answer += text

    @property
    def timeline(self) -> str:
        """The events on the wire in order, in seconds from the first."""
        events = sorted(self.wire)
        return "\n".join(f"{when - events[0][0]:4.1f} s  {what}" for when, what in events)


@click.command("demo", short_help="Watch a real model's turn survive a cut connection.")
@click.option("--scripted", is_flag=True, help="Use the lab's scripted upstream instead of a real model.")
def command(scripted: bool) -> None:
    """Watch a real model's turn survive a connection that is cut before the first token.

    A small model (SmolLM2) is served on this machine by llama.cpp. Before it stands a proxy that cuts the first
    connection that is silent for a second, as proxies, balancers and NAT do. The model reads a long prompt, which takes
    it some seconds; so the first attempt is cut. The same prompt goes through it twice: by the openai SDK as it comes,
    and by Unbroken. No key and no network are needed.
    """
    logging.getLogger("unbroken").addHandler(logging.NullHandler())  # the table shows it
    with _model(scripted) as (port, body):
        _print(f"  a proxy cuts the first connection that is silent for {IDLE:g} s; the model needs longer")
        outcomes = [_until_cut(ask, port, body) for ask in (_with_openai, _with_unbroken)]
    _print()
    _print(side_by_side(outcomes, min(shutil.get_terminal_size().columns, 120)))
    if not outcomes[-1].survived:
        raise SystemExit(4)


@contextlib.contextmanager
def _model(scripted: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a model; yield its port and the body of the request."""
    if not scripted:
        try:
            with LocalModel() as model:
                _print("· a real model, SmolLM2 135M, served by llama.cpp on this machine")
                yield model.port, _body(_prompt(model))
                return
        except LocalModelMissingError as exc:
            _print(f"· no local model here ({exc})")
    _print("· a scripted upstream of the lab in the place of a model")
    with Upstream(answer=ScriptedAnswer(text="The sea is a large body of salt water.", think=THINK)) as upstream:
        yield upstream.port, _body(QUESTION)


def _body(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": 60, "temperature": 0}


def _prompt(model: LocalModel) -> str:
    """Return a prompt that takes this machine about :data:`THINK` seconds to read, measured with a shorter one."""
    _print("  finding out how fast it reads")
    words_per_token = 0.8
    probe = _filled(int(_PROBE_TOKENS * words_per_token))
    started = time.monotonic()
    with Client(base_url=model.url, proxy="") as client, client.stream(probe, max_tokens=1, cache_prompt=False) as turn:
        turn.read()
    per_second = (turn.usage.input_tokens or _PROBE_TOKENS) / (time.monotonic() - started)
    return _filled(int(min(per_second * THINK, _MOST_TOKENS) * words_per_token))


def _filled(words: int) -> str:
    filler = _FILLER.split()
    text = " ".join(filler[i % len(filler)] for i in range(words))
    return f"{text}\n\n{QUESTION}"


def _until_cut(
    ask: Callable[[int, dict[str, Any], float], DemoOutcome], port: int, body: dict[str, Any]
) -> DemoOutcome:
    """Ask until the proxy has cut a connection; each time the model is quicker than its timer, halve the timer."""
    idle, outcome = IDLE, ask(port, body, IDLE)
    for _ in range(1, TRIES):
        if not outcome.was_spared:
            break
        idle /= 2
        _print(f"  the model was quicker than the proxy's timer; once more, with a timer of {idle:g} s")
        outcome = ask(port, body, idle)
    return outcome


@contextlib.contextmanager
def _cut_once(port: int, outcome: DemoOutcome, idle: float) -> Iterator[str]:
    """Run a proxy in front of the model; afterwards add its events to the outcome."""
    with CuttingProxy(target=("127.0.0.1", port), idle=idle, how="rst", cuts=1) as proxy:
        yield f"http://127.0.0.1:{proxy.port}/v1"
        outcome.was_spared = not proxy.cuts_made
        for number, tunnel in enumerate(proxy.tunnels, 1):
            outcome.note(f"request {number} on a connection of its own", tunnel.opened_at)
            if tunnel.cut_at:
                outcome.note(f"silent for {idle:g} s: the proxy resets connection {number}", tunnel.cut_at)


def _with_openai(port: int, body: dict[str, Any], idle: float) -> DemoOutcome:
    try:
        import openai
    except ImportError:
        return DemoOutcome("openai SDK", ending="not installed: pip install openai")
    outcome = DemoOutcome(f"openai SDK {openai.__version__}")
    _print(f"  asking with the {outcome.title}")
    with _cut_once(port, outcome, idle) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        try:
            extra = {"cache_prompt": False}
            for chunk in client.chat.completions.create(model="smollm2", stream=True, extra_body=extra, **body):
                outcome.hear((chunk.choices[0].delta.content or "") if chunk.choices else "")
        except Exception as exc:  # noqa: BLE001 - any exception is an outcome
            cause = exc.__cause__ or exc
            outcome.ending = f"failed: {type(exc).__name__}: {cause}"
        else:
            outcome.survived, outcome.ending = True, "answered, without a cut"
        finally:
            client.close()
    return outcome


def _with_unbroken(port: int, body: dict[str, Any], idle: float) -> DemoOutcome:
    outcome = DemoOutcome("Unbroken")
    _print("  asking with Unbroken")
    messages = body["messages"]
    options = {key: value for key, value in body.items() if key != "messages"}
    with _cut_once(port, outcome, idle) as url:
        client = Client(base_url=url, model="smollm2", proxy="", on_retry=lambda event: outcome.note(describe(event)))
        try:
            with client, client.stream(messages, cache_prompt=False, **options) as turn:
                for event in turn:
                    outcome.hear(event.text if isinstance(event, Text) else "")
        except TurnError as exc:
            outcome.ending = f"failed: {exc}"
        else:
            outcome.survived = True
            outcome.ending = f"answered, whole; {turn.report.lost} attempt lost on the way"
            outcome.note("the end of the answer")
    return outcome


def _print(text: str = "") -> None:
    stdout = Output(sys.stdout)
    stdout.write(plain(f"{text}\n", stdout.encoding))


def side_by_side(outcomes: list[DemoOutcome], width: int) -> str:
    """Return the outcomes in columns of a table that is ``width`` characters wide."""
    column = (width - 3 * (len(outcomes) - 1)) // len(outcomes)
    rows = [
        [outcome.title for outcome in outcomes],
        ["─" * column for _ in outcomes],
        [outcome.answer.strip() or "(nothing)" for outcome in outcomes],
        ["" for _ in outcomes],
        [f"{'✓' if outcome.survived else '✗'} {outcome.ending}" for outcome in outcomes],
        ["" for _ in outcomes],
        [outcome.timeline for outcome in outcomes],
    ]
    return "\n".join(_row([harmless(cell) for cell in cells], column) for cells in rows)


def _row(cells: list[str], column: int) -> str:
    wrapped = [_wrapped(cell, column) for cell in cells]
    height = max(len(lines) for lines in wrapped)
    padded = [lines + [""] * (height - len(lines)) for lines in wrapped]
    return "\n".join(" │ ".join(line.ljust(column) for line in lines).rstrip() for lines in zip(*padded, strict=True))


def _wrapped(cell: str, column: int) -> list[str]:
    return [
        part
        for line in cell.split("\n")
        for part in textwrap.wrap(line, column, subsequent_indent=_INDENT if line[:1] == " " else "") or [""]
    ]
