"""Who asks: the plain openai SDK, ``unbroken run``, the SDK through a relay, and what each of them got and said."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from cli.programs import Heard, environment
from intermediaries.running import TEXT, Trust
from relay.serving import RelayProgram
from waiting import poll

PROMPT = "What does the tide do?"
LIMIT = 300.0
"""Seconds after which a program that still waits is ended."""

ADVICE = re.compile(rb'"advice":\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Way:
    """The way to the origin.

    Attributes:
        url: the base URL that is asked.
        proxy: URL of the proxy, or ``""``.
        trust: the certificates.
        http2: whether the plain SDK is given HTTP/2.
    """

    url: str
    proxy: str
    trust: Trust
    http2: bool


@dataclass
class Seen:
    """What a program got, and what it said.

    Attributes:
        outcome: "whole", "error", "silent" (a part, as if it were all of it), "doubled" or "waits" (for too long).
        detail: the error in its own words.
        requests: how many of its requests the origin read.
        said: every sentence for its user.
        seconds: from the request to the end.
        arrived: when each piece came, in seconds on the clock of the machine.
        ended: when the turn ended, on the same clock; 0 if it has not.
    """

    outcome: str
    detail: str = ""
    requests: int = 0
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    arrived: list[float] = field(default_factory=list)
    ended: float = 0.0


def judged(text: str, error: str | None) -> str:
    """Return the outcome for the text that came, and the error, if there was one."""
    if error is not None:
        return "error"
    if text == TEXT:
        return "whole"
    return "silent" if TEXT.startswith(text) else "doubled"


def plain(way: Way, model: str) -> Seen:
    """Ask with the openai SDK as it comes, its own retries included."""
    http = openai.DefaultHttpxClient(
        proxy=way.proxy or None, verify=way.trust.client(), http2=way.http2, trust_env=False
    )
    with http, openai.OpenAI(api_key="sk-lab", base_url=way.url, http_client=http) as client:
        return collected(client, model)


def collected(client: openai.OpenAI, model: str) -> Seen:
    """Ask once, and collect what the SDK gives."""
    arrived: list[float] = []
    text, error, began = "", None, time.monotonic()
    try:
        for chunk in client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": PROMPT}], stream=True
        ):
            arrived.append(time.monotonic())
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as exc:  # noqa: BLE001 - whatever its user would get
        error = f"{type(exc).__name__}: {_cause(exc)}"
    ended = time.monotonic()
    return Seen(judged(text, error), error or "", seconds=ended - began, arrived=arrived, ended=ended)


def _cause(exc: Exception) -> str:
    """Return the message, and that of the cause, where the SDK's own says nothing."""
    cause = exc.__cause__
    return f"{exc} ({type(cause).__name__}: {cause})" if cause and str(exc).startswith("Connection error") else str(exc)


def options(way: Way, ping: float | None) -> Sequence[str]:
    """Return the options that ``run`` and ``relay`` have in common; ``ping=None`` leaves it as it comes."""
    given = ["--ca-file", str(way.trust.ca), *(["--proxy", way.proxy] if way.proxy else ["--no-proxy"])]
    return [*given, *([] if ping is None else ["--ping", f"{ping:g}"])]


def user(home: Path) -> dict[str, str]:
    """Return the environment of a user who has nothing set."""
    home.mkdir(parents=True, exist_ok=True)
    return environment(home, UNBROKEN_CONFIG=os.devnull)


class Waiting:
    """A program that waits for its prompt on stdin.

    Attributes:
        process: the program.
    """

    def __init__(self, process: Any) -> None:
        self.process = process

    def wait_until_ready(self) -> None:
        """Wait until it reads its prompt."""
        poll(lambda: "pipe" in Path(f"/proc/{self.process.pid}/wchan").read_text(), 60.0, every=0.01)

    def ask(self, limit: float = LIMIT) -> Seen:
        """Give it the prompt and wait for its end, so many seconds at most."""
        began, said = time.monotonic(), Heard(self.process.stderr.read1)
        answer = Heard(self.process.stdout.read1)
        self.process.stdin.write(PROMPT.encode())
        self.process.stdin.close()
        try:
            answer.wait_for_end(limit)
        except AssertionError:
            return Seen("waits", seconds=time.monotonic() - began)
        ended = time.monotonic()
        return _read(answer.text, said.wait_for_end().decode(), self.process.wait(), ended - began, ended)


@contextmanager
def begun(command: Sequence[str], home: Path) -> Iterator[Waiting]:
    """Start a program that waits for its prompt, and end it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *command], env=user(home), cwd=home, **pipes)  # type: ignore[call-overload]
    try:
        yield Waiting(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def _read(out: str, err: str, code: int, seconds: float, ended: float) -> Seen:
    said = [line.strip() for line in err.splitlines() if line.strip()]
    error = "\n".join(line for line in said if line.startswith(("unbroken:", "Traceback"))) or f"exit code {code}"
    outcome = judged(out.rstrip("\n"), error if code else None)
    return Seen(outcome, error if code else "", said=said, seconds=seconds, ended=ended)


def run_command(way: Way, model: str, ping: float | None, *more: str) -> Sequence[str]:
    """Return the arguments of Python that run ``unbroken run``."""
    where = ["--base-url", way.url, "--model", model, "-v", *options(way, ping), *more]
    return ["-m", "unbroken", "run", *where, "-"]


def run(way: Way, model: str, ping: float | None, home: Path, *more: str) -> Seen:
    """Ask with ``unbroken run``, and more options."""
    with begun(run_command(way, model, ping, *more), home) as waiting:
        return waiting.ask()


def relayed(way: Way, model: str, ping: float | None, home: Path, *more: str) -> Seen:
    """Ask with the plain SDK through an ``unbroken relay`` of its own, and more options."""
    arguments = ["relay", "--port", "0", "--upstream", f"lab={way.url}", *options(way, ping), *more]
    with RelayProgram(*arguments, env=user(home)) as program:
        said = program.err.wait_for("\n", timeout=60.0)
        listening = re.search(r"listening on (http://\S+)", said)
        assert listening, said
        near = Way(f"{listening[1]}/lab/v1", "", way.trust, False)
        seen = plain(near, model)
        program.err.wait_for("/chat/completions ·")  # its line in the access log
        seen.said = [line.strip() for line in program.err.text.splitlines()[1:]]
        if shown := _on_the_page(listening[1]):
            seen.said.append(shown)
    return seen


def _on_the_page(relay: str) -> str:
    """Return the advice on the relay's status page."""
    with urllib.request.urlopen(f"{relay}/_unbroken/feed", timeout=10) as feed:
        feed.readline()
        found = ADVICE.search(feed.readline())
    return json.loads(b'"' + found[1] + b'"') if found else ""
