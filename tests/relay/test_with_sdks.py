"""The real SDKs through a relay: what its heartbeats, its errors and its broken connections are to them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from real.parts import missing
from relay.serving import Served, settings_to
from sdks import matrix
from unbroken.core.policy import Policy
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.lab.speech import MESSAGE
from unbroken.relay.settings import UpstreamSettings

SCRIPT = Path(__file__).with_name("ask_with_sdk.py")
LIMIT = 120
TEXT = "Hello from the lab."
HEARTBEAT = 0.2
SILENCE = 3.0
"""Seconds: many heartbeats, and some of them on a busy machine, where a dozen programs that start together are late."""

FACES: Mapping[str, Sequence[str]] = {
    "openai": ("openai chat", "openai responses", "openai completions", "openai chat, not streamed"),
    "anthropic": ("anthropic", "anthropic .stream()", "anthropic, not streamed"),
    "google-genai": ("google-genai", "google-genai, not streamed"),
}


@dataclass(frozen=True)
class Case:
    """What happens upstream.

    Attributes:
        faults: with each request, in order.
        answer: otherwise.
        replays: how often the relay may replay.
        early: whether heartbeats come before the upstream's headers.
    """

    faults: Sequence[Fault] = ()
    answer: ScriptedAnswer = ScriptedAnswer(text=TEXT)  # noqa: RUF009 - frozen
    replays: int = 3
    early: bool = False


# The SDKs' own retries are not the point here.
NO_RETRY = {"retry-after": "90", "x-should-retry": "false"}
CASES: Mapping[str, Case] = {
    "silence after the headers": Case(answer=ScriptedAnswer(text=TEXT, think=SILENCE, think_at="after_headers")),
    "silence in the prelude": Case(answer=ScriptedAnswer(text=TEXT, think=SILENCE, think_at="after_role")),
    "silence before the headers": Case(
        answer=ScriptedAnswer(text=TEXT, think=SILENCE, think_at="before_headers"), early=True
    ),
    "silence between tokens": Case(answer=ScriptedAnswer(text=TEXT, gap=SILENCE / 6)),
    "a cut before output": Case([Fault("rst", "after_role")]),
    "a cut after heartbeats": Case([Fault("rst", "after_headers", seconds=SILENCE)]),
    "a cut after output": Case([Fault("rst", "after_token")]),
    "a cut in half an event": Case([Fault("truncated_chunk", "after_token")]),
    "a polite end after output": Case([Fault("clean_end", "after_token")]),
    "a final cut": Case([Fault("rst", "before_headers")], replays=0),
    "a final cut after heartbeats": Case([Fault("rst", "after_headers", seconds=SILENCE)], replays=0),
    "a 429": Case([Fault("status", "before_headers", status=429, headers=NO_RETRY)]),
    "a late 429": Case([Fault("status", "before_headers", seconds=SILENCE, status=429, headers=NO_RETRY)], early=True),
    "a 401": Case([Fault("status", "before_headers", status=401)]),
}


@dataclass(frozen=True)
class Found:
    """What a program came to.

    Attributes:
        text: of the answer, ``None`` where there was an error.
        error: its class.
        said: its words.
        requests: how many the relay got.
        upstream: how many the upstream got.
        heartbeats: how many were sent.
    """

    text: str | None
    error: str
    said: str
    requests: int
    upstream: int
    heartbeats: int


class Setup:
    """An upstream and a relay for every face and case."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._labs: dict[tuple[str, str], tuple[str, Served, Upstream]] = {}
        self._relays: dict[tuple[int, bool], Served] = {}

    def ask_for(self, face: str, name: str) -> dict[str, str]:
        """What a program is told."""
        case, key = CASES[name], f"lab{len(self._labs)}"
        lab = self._stack.enter_context(Upstream(faults=case.faults, answer=case.answer))
        relay = self._relay(case)
        relay.settings.upstreams[key] = UpstreamSettings(key, lab.url)  # type: ignore[index]  # a dict, in truth
        self._labs[face, name] = (key, relay, lab)
        return {"face": face, "case": name, "origin": f"{relay.origin}/{key}"}

    def found(self, told: Mapping[str, Any]) -> Found:
        """What a program came to, from all sides."""
        key, relay, lab = self._labs[told["face"], told["case"]]
        entries = [entry for entry in relay.entries if entry["upstream"] == key]
        beats = sum(entry["heartbeats"] for entry in entries)
        return Found(told["text"], told["error"], told["said"], len(entries), len(lab.requests), beats)

    def _relay(self, case: Case) -> Served:
        kind = (case.replays, case.early)
        if kind not in self._relays:
            policy = Policy(replays=case.replays, backoff_initial=0.01, settle_timeout=0.2)
            settings = settings_to({}, policy=policy, heartbeat=HEARTBEAT, early_heartbeat=case.early)
            self._relays[kind] = self._stack.enter_context(Served(settings))
        return self._relays[kind]


Matrix = Mapping[tuple[str, str], Found]


def run(rows: Sequence[str]) -> Matrix:
    if not matrix.python().exists():
        missing("the SDKs are missing; `make .venv-sdks` installs them")
    with ExitStack() as stack:
        setup = Setup(stack)
        asked = {sdk: [setup.ask_for(face, case) for face in faces for case in rows] for sdk, faces in FACES.items()}
        with ThreadPoolExecutor() as pool:
            told = [one for part in pool.map(ask_with, asked, asked.values()) for one in part]
        return {(one["face"], one["case"]): setup.found(one) for one in told}


FOUR_ROWS = ("silence in the prelude", "a cut before output", "a cut after output", "a 429")
"""A row of each kind: heartbeats; a replay; an error in the stream; an error by its status."""


@pytest.fixture(scope="module")
def four_rows() -> Matrix:
    return run(FOUR_ROWS)


@pytest.fixture(scope="module")
def every_row() -> Matrix:
    return run(list(CASES))


def ask_with(sdk: str, asked: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [str(matrix.python()), str(SCRIPT), sdk]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT, env=environ, check=False
    )
    assert not done.returncode, done.stderr[-2000:]
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


# What is to come of it

IN_BAND = {
    "openai": "openai.APIError",
    "anthropic": "anthropic.APIStatusError",
    "google-genai": "google.genai.errors.ServerError",
}
BY_STATUS = {
    "openai": {401: "openai.AuthenticationError", 429: "openai.RateLimitError", 502: "openai.InternalServerError"},
    "anthropic": {
        401: "anthropic.AuthenticationError",
        429: "anthropic.RateLimitError",
        502: "anthropic.InternalServerError",
    },
    "google-genai": {
        401: "google.genai.errors.ClientError",
        429: "google.genai.errors.ClientError",
        502: "google.genai.errors.ServerError",
    },
}
"""The SDKs' own errors, by how the relay told of it."""


def beats(face: str) -> bool:
    """Whether it gets heartbeats."""
    return "not streamed" not in face and "google" not in face


def is_whole(got: Found, *, upstream: int) -> None:
    """All of the answer has come, by one request of the SDK's."""
    assert (got.text, got.error) == (TEXT, "")
    assert (got.requests, got.upstream) == (1, upstream)


def is_error(got: Found, error: str, said: str) -> None:
    """It is the SDK's own, it says what happened, and the SDK has not asked again."""
    assert (got.text, got.error) == (None, error)
    assert said in got.said
    assert (got.requests, got.upstream) == (1, 1)


def is_as_expected(got: Found, sdk: str, face: str, case: str) -> None:
    in_time = IN_BAND[sdk] if beats(face) else ""  # where heartbeats have begun the response, there is no status left
    match case:
        case "a cut before output":
            is_whole(got, upstream=2)
        case "a cut after heartbeats":
            is_whole(got, upstream=2)
            assert (got.heartbeats > 0) is beats(face)
        case _ if case.startswith("silence"):
            is_whole(got, upstream=1)
            assert (got.heartbeats > 0) is beats(face)
        case "a cut after output" | "a cut in half an event" | "a polite end after output" if "not streamed" in face:
            is_whole(got, upstream=2)  # an answer in one piece has no "after output"
        case "a cut after output" | "a cut in half an event" | "a polite end after output":
            is_error(got, IN_BAND[sdk], "after output: the answer is not whole")
        case "a final cut":
            is_error(got, BY_STATUS[sdk][502], "before any output: connection reset (no replays allowed)")
        case "a final cut after heartbeats":
            is_error(got, in_time or BY_STATUS[sdk][502], "before any output: connection reset")
        case "a 401" | "a 429":
            is_error(got, BY_STATUS[sdk][int(case[2:])], MESSAGE)
        case "a late 429":
            is_error(got, in_time or BY_STATUS[sdk][429], MESSAGE)
        case _:
            raise AssertionError(f"nothing is expected of {case}")


def cells_of(rows: Sequence[str]) -> pytest.MarkDecorator:
    cells = [
        pytest.param(sdk, face, case, id=f"{face}-{case}")
        for sdk, faces in FACES.items()
        for face in faces
        for case in rows
    ]
    return pytest.mark.parametrize(("sdk", "face", "case"), cells)


@cells_of(FOUR_ROWS)
def test_four_rows_through_the_relay(four_rows: Matrix, sdk: str, face: str, case: str) -> None:
    is_as_expected(four_rows[face, case], sdk, face, case)


@pytest.mark.slow
@cells_of(list(CASES))
def test_every_row_through_the_relay(every_row: Matrix, sdk: str, face: str, case: str) -> None:
    is_as_expected(every_row[face, case], sdk, face, case)
