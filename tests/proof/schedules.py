"""Random schedules: what a caller has chosen, what its server says, and what goes wrong of each attempt.

A schedule follows from a seed and a number alone, so that any of them can be played again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import parse_qs

from properties.playing import JSON, STREAM, Step, sliced
from properties.world import BEFORE_SENDING, LOSSES
from unbroken.core.continuation.format import Style
from unbroken.core.dialect import Call
from unbroken.core.dialects import recognise
from unbroken.core.failures import Failure
from unbroken.core.http import Head, Request
from unbroken.core.policy import HOLDS, Hold, Policy
from unbroken.core.suspicion import Recovered, SecondFailed, SecondStands, Suspected
from unbroken.lab import Background, Continuation, ScriptedAnswer
from unbroken.lab.anthropic import ANTHROPIC
from unbroken.lab.chat import CHAT
from unbroken.lab.completions import COMPLETIONS
from unbroken.lab.continuing import Manner
from unbroken.lab.dialect import Pieces, ServerDialect
from unbroken.lab.gemini import GEMINI
from unbroken.lab.interactions import INTERACTIONS
from unbroken.lab.responses import RESPONSES

PROMPT = "Once"
MESSAGES = {"messages": [{"role": "user", "content": PROMPT}]}

Choice = Literal["raise", "resume", "background", "continue", "restart"]
CHOICES: tuple[Choice, ...] = ("raise", "resume", "background", "continue", "restart")
"""``resume``: the caller asks for a response that goes on; ``background``: his policy does."""


@dataclasses.dataclass(frozen=True)
class Wire:
    """One dialect, from both sides.

    Attributes:
        server: the lab's.
        path: path of its calls.
        body: fields of a call.
        styles: in which it can be asked to continue.
        keeps: whether its responses can go on at the server.
    """

    server: ServerDialect
    path: str
    body: dict[str, Any]
    styles: tuple[Style, ...] = ()
    keeps: bool = False

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices that mean something in it; ``continue`` is refused where it has no style."""
        return CHOICES if self.keeps else ("raise", "continue", "continue", "restart")


WIRES = {
    "chat": Wire(CHAT, "/v1/chat/completions", MESSAGES, ("prefix", "continue_final_message", "assistant")),
    "messages": Wire(ANTHROPIC, "/v1/messages", MESSAGES, ("assistant",)),
    "legacy": Wire(COMPLETIONS, "/v1/completions", {"prompt": PROMPT}, ("completion",)),
    "responses": Wire(RESPONSES, "/v1/responses", {"input": PROMPT}, keeps=True),
    "interactions": Wire(INTERACTIONS, "/v1beta/interactions", {"input": PROMPT}, keeps=True),
    "gemini": Wire(
        GEMINI,
        "/v1beta/models/lab:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]},
    ),
}

ANSWERS = (
    ScriptedAnswer(text="The tide goes out, and what it leaves is salt."),
    ScriptedAnswer(text=["Yes", "."], reasoning=["Hm", ", so", "."]),
    ScriptedAnswer(text=["x = [\n", "    1,\n", "    2,\n", "]\n\n", "print(x)\n"], usage=None),
    ScriptedAnswer(text=["Ünïcode ", "“🌊”", " ends\r\n", "here"], reasoning=["🤔"]),
    ScriptedAnswer(text=["data: [DONE]\n\n", 'it says "finish_reason":"stop"', '{"error": {}}', " and goes on"]),
    ScriptedAnswer(text=["Look:"], tool_calls=[("call_1", "look", ['{"at":', " 1}"]), ("call_2", "see", ["{}"])]),
    ScriptedAnswer(text=[], tool_calls=[("call_1", "look", ['{"at": "', "here", '"}'])], finish_reason="tool_calls"),
    ScriptedAnswer(text=["cut by a lim"], finish_reason="length", done=False),
    ScriptedAnswer(text=[]),
    ScriptedAnswer(text=["one"]),
)

Kind = Literal[
    "whole",
    "cut",
    "polite",
    "error",
    "malformed",
    "silence",
    "suspect",
    "refused",
    "other",
    "before",
    "headers",
    "caller",
    "astray",
]
"""What goes wrong of an attempt:

``cut``: it is lost; ``polite``: it ends cleanly, too early; ``error``: an error in the stream; ``malformed``: an event
that is none; ``silence``: nothing for a while, then the rest; ``suspect``: the path does not answer for a while;
``refused``: a status; ``other``: a page; ``before``: it is lost before the request is sent; ``headers``: before the
response's headers; ``caller``: a timeout of the caller's own; ``astray``: a stream that is taken up
leaves out an event, or sends one twice.
"""

USUAL: tuple[Kind, ...] = ("cut",) * 6 + ("polite",) * 3 + ("refused",) * 2 + ("error", "silence", "suspect", "before")
RARE: tuple[Kind, ...] = ("whole", "malformed", "other", "headers", "caller", "astray", "astray", *USUAL)
STATUSES = (204, 307, 400, 401, 404, 408, 409, 413, 425, 429, 429, 500, 502, 503, 503, 504, 524, 529)
LOST = tuple(failure for failure in LOSSES if failure is not Failure.MISFIT)  # which no wire reports


@dataclasses.dataclass(frozen=True)
class Act:
    """What becomes of one attempt.

    Attributes:
        kind: what goes wrong.
        at: where: a part of its bytes, or of its events.
        failure: how it is lost.
        status: of the response, where it is refused.
        retry_after: of that, in seconds; ``None`` for none.
        seconds: before the headers, or of a silence.
        passes: whether an error may pass, or a path answers again.
        comments: before how many events there is a heartbeat.
        sizes: of the pieces in which the body comes.
    """

    kind: Kind
    at: float = 0.0
    failure: Failure = Failure.RESET
    status: int = 200
    retry_after: int | None = None
    seconds: float = 0.0
    passes: bool = True
    comments: int = 0
    sizes: tuple[int, ...] = (4096,)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A turn, and all that goes wrong of it.

    Attributes:
        seed, number: from which it follows.
        wire: name of its dialect.
        choice: what is done about a cut after output.
        style, manner: how its server continues.
        hold, retries, replays, resumes, give_up_after, max_hold, max_prelude: of the policy.
        answer: number of the model's answer.
        acts: what becomes of its attempts.
        goes_on: whether the last act is that of all later attempts too; otherwise they are whole.
        pours: whether bytes go through while output flows.
        leaves_at: before which action the caller leaves; negative for never.
    """

    seed: int
    number: int
    wire: str
    choice: Choice
    style: Style | None
    manner: Manner
    hold: Hold
    retries: int
    replays: int
    resumes: int
    give_up_after: float
    max_hold: int
    max_prelude: int
    answer: int
    acts: tuple[Act, ...]
    goes_on: bool
    pours: bool
    leaves_at: int

    def policy(self) -> Policy:
        """The caller's limits."""
        return Policy(
            retries=self.retries,
            replays=self.replays,
            resumes=self.resumes,
            give_up_after=self.give_up_after,
            hold=self.hold,
            max_hold=self.max_hold,
            max_prelude=self.max_prelude,
            after_output=self.choice if self.choice in ("continue", "restart") else "raise",
            background=self.choice == "background",
        )

    def act(self, attempt: int) -> Act:
        """What becomes of an attempt of this number."""
        if attempt <= len(self.acts):
            return self.acts[attempt - 1]
        return self.acts[-1] if self.goes_on else Act("whole")


def draw(seed: int, number: int) -> Schedule:
    """Return the schedule of this seed and number."""
    chance = random.Random(f"{seed} {number}")
    name = chance.choice(tuple(WIRES))
    wire = WIRES[name]
    choice = chance.choice(wire.choices)
    acts = [_act(chance) for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 4, 6)))]
    if choice != "raise" and chance.random() < 0.5:
        acts.insert(0, _act(chance, chance.choice(("cut", "cut", "polite"))))
    return Schedule(
        seed,
        number,
        name,
        choice,
        chance.choice(wire.styles) if wire.styles else None,
        chance.choice(("goes_on",) * 6 + ("refuses", "reasons", "calls_a_tool")),
        chance.choice(("prelude", *HOLDS)),
        retries=chance.randrange(4),
        replays=chance.choice((0, 1, 2, 3, 3)),
        resumes=chance.randrange(1, 4),
        give_up_after=chance.choice((900.0, 900.0, 900.0, 40.0, 0.0)),
        max_hold=chance.choice((100_000, 100_000, 700)),
        max_prelude=chance.choice((100_000, 100_000, 100_000, 300)),
        answer=chance.choice((0, 2, 3, *range(len(ANSWERS)))),
        acts=tuple(acts) or (Act("whole"),),
        goes_on=chance.random() < 0.2,
        pours=chance.random() < 0.5,
        leaves_at=chance.randrange(30) if chance.random() < 0.04 else -1,
    )


def _act(chance: random.Random, kind: Kind | None = None) -> Act:
    kind = kind or chance.choice(RARE if chance.random() < 0.3 else USUAL)
    sizes = chance.choice(((4096,), (4096,), (chance.randrange(1, 60),), (chance.randrange(60, 900), 200)))
    return Act(
        kind,
        chance.choice((chance.random(), chance.random(), chance.random(), 0.0, 1.0)),
        chance.choice(BEFORE_SENDING if kind == "before" else LOST),
        status=chance.choice(STATUSES) if kind == "refused" else 200,
        retry_after=chance.choice((None, None, None, 2, 61)) if kind == "refused" else None,
        seconds=chance.choice((1.0, 30.0, 700.0, 2000.0) if kind == "silence" else (0.0, 0.0, 0.0, 6.0)),
        passes=chance.random() < 0.5,
        comments=chance.choice((0, 0, 1, 3)),
        sizes=sizes,
    )


@functools.cache
def pieces_of(wire: str, answer: int, number: int, *, kept: bool = False) -> Pieces:
    """The pieces of an answer to the request of this number, which may be kept at the server."""
    pieces = WIRES[wire].server.pieces(ANSWERS[answer], number)
    return Background().named(pieces) if kept and wire == "interactions" else pieces


def events_of(pieces: Pieces) -> list[bytes]:
    """The events of an answer."""
    whole = b"".join([pieces.prelude, *pieces.reasoned, *pieces.told, pieces.finish, pieces.usage, pieces.done])
    return [block + b"\n\n" for block in whole.split(b"\n\n")[:-1]]


@functools.cache
def finish_of(wire: str, answer: int) -> int:
    """After how many events an answer has said how it ended."""
    pieces = pieces_of(wire, answer, 1)
    return len(events_of(dataclasses.replace(pieces, usage=b"", done=b"")))


@functools.cache
def _call(url: str, body: str) -> tuple[Request, Call]:
    request = Request("POST", url, (), body.encode())
    call = recognise(request)
    assert call is not None
    return request, call


def request_of(schedule: Schedule) -> tuple[Request, Call]:
    """The caller's request, and what it asks for."""
    wire = WIRES[schedule.wire]
    fields = {"model": "lab", "stream": True, **wire.body}
    if schedule.choice == "resume":
        fields["background"] = True
    return _call("https://llm.example.com" + wire.path, json.dumps(fields))


class ScheduledServer:
    """The server of a schedule.

    Attributes:
        bodies: what each attempt would have been, if nothing had gone wrong but what is inside of it.
        said: of each attempt, at which byte it has said how it ended, or told an error.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._wire = WIRES[schedule.wire]
        takes_space = schedule.style != "assistant"
        self.continuation = Continuation(schedule.style or "", schedule.manner, PROMPT, takes_space)
        self.generations: list[int] = []
        self.bodies: list[bytes] = []
        self.said: list[int | None] = []

    def uncut(self, number: int) -> Pieces:
        """Return the pieces of the answer to a generation, if nothing goes wrong."""
        schedule = self._schedule
        kept = schedule.choice in ("resume", "background")
        return pieces_of(schedule.wire, schedule.answer, number, kept=kept)

    def __call__(self, request: Request, number: int) -> Iterator[Step]:
        """Do what the schedule says about a request."""
        return self._steps(self._schedule.act(number), request, self.expect(request, number))

    def expect(self, request: Request, number: int) -> bytes:
        """Return the body of the answer to a request, with what goes wrong inside of it."""
        events, finish = self._answer(request, number)
        body, said = self._spoiled(self._schedule.act(number), events, finish)
        self.bodies.append(body)
        self.said.append(said)
        return body

    def _answer(self, request: Request, number: int) -> tuple[list[bytes], int]:
        """Return the events that answer a request, and after how many of them it has said how it ended."""
        schedule = self._schedule
        if request.method == "GET":
            generation, after = _position(request)
            events = events_of(self.uncut(generation))[after + 1 :]
            events = _astray(schedule.act(number), events) if schedule.wire == "responses" else events
            return events, finish_of(schedule.wire, schedule.answer) - after - 1
        self.generations.append(number)
        if schedule.choice == "continue" and number > 1:
            asked = json.loads(request.body)
            answer = self.continuation.answer(ANSWERS[schedule.answer], asked)
            if answer is not ANSWERS[schedule.answer]:
                pieces = self._wire.server.pieces(answer, number)
                return events_of(pieces), len(events_of(dataclasses.replace(pieces, usage=b"", done=b"")))
        return events_of(self.uncut(number)), finish_of(schedule.wire, schedule.answer)

    def _spoiled(self, act: Act, events: list[bytes], finish: int) -> tuple[bytes, int | None]:
        """Return the body with what is put into it, and at which byte of it it has said how it ended."""
        server, at = self._wire.server, int(act.at * len(events))
        parts = list(events)
        if act.comments and server.heartbeat:
            for place in range(0, len(parts), max(1, len(parts) // act.comments)):
                parts[place] = server.heartbeat + parts[place]
        ends = [*parts[:finish]]
        if act.kind == "malformed":
            parts[at:at] = [server.malformed]
            return b"".join(parts), len(b"".join(ends)) + (len(server.malformed) if at < finish else 0)
        if act.kind == "error":
            error = server.error_event({} if act.passes else LASTING[self._schedule.wire])
            said = min(finish, at)
            whole = b"".join([*parts[:at], error])
            return whole, len(b"".join(ends)) if said == finish else len(whole)
        return b"".join(parts), len(b"".join(ends))

    def _steps(self, act: Act, request: Request, body: bytes) -> Iterator[Step]:
        if act.kind == "before":
            yield act.failure
            return
        yield act.seconds if act.kind != "silence" else 0.0
        if act.kind == "headers":
            yield act.failure
            return
        if self._refuses(request):
            yield Head(400, JSON)
            yield b'{"error": {"message": "no prefill"}}'
            return
        if act.kind in ("refused", "other"):
            yield from self._other(act)
            return
        yield STREAM
        cut = int(act.at * len(body)) if act.kind in ("cut", "polite", "silence", "suspect", "caller") else len(body)
        yield from sliced(body[:cut], act.sizes)
        if act.kind in ("silence", "suspect"):
            yield from self._pause(act)
            yield from sliced(body[cut:], act.sizes)
        if act.kind == "caller":
            yield Failure.CALLER_TIMEOUT
        elif act.kind == "cut":
            yield act.failure

    def _pause(self, act: Act) -> Iterator[Step]:
        if act.kind == "silence":
            yield act.seconds
            return
        yield 20.0
        yield Suspected(20.0)
        yield SecondFailed(Failure.NO_ROUTE)
        yield 3.0
        yield SecondStands()
        yield 10.0
        if act.passes:
            yield Recovered()
        else:
            yield 60.0
            yield act.failure

    def _refuses(self, request: Request) -> bool:
        if self._schedule.choice != "continue" or request.method != "POST":
            return False
        return len(self.bodies) > 1 and self.continuation.refuses(json.loads(request.body))

    def _other(self, act: Act) -> Iterator[Step]:
        if act.kind == "other":
            yield Head(200, ((b"content-type", b"text/html"),))
            yield from sliced(b"<html><body>Log in</body></html>", act.sizes)
            return
        wait = ((b"retry-after", b"%d" % act.retry_after),) if act.retry_after is not None else ()
        yield Head(act.status, (*JSON, *wait))
        if act.status != 204:
            yield from sliced(self._wire.server.refusal(act.status, {}), act.sizes)


def _astray(act: Act, events: list[bytes]) -> list[bytes]:
    """Return the events of a server that may not go on exactly."""
    at = int(act.at * len(events))
    if act.kind != "astray" or not events[at:]:
        return events
    return [*events[:at], *events[at : at + 1] * (2 if act.passes else 0), *events[at + 1 :]]


LASTING: dict[str, dict[str, Any]] = {name: {"type": "invalid_request_error"} for name in WIRES} | {
    "gemini": {"code": 400, "status": "INVALID_ARGUMENT"},
    "interactions": {"code": "invalid_request"},
}
"""Members of an error that will not pass."""


def _position(request: Request) -> tuple[int, int]:
    """Return which generation a request takes up, and behind which event."""
    query = parse_qs(request.parts.query)
    number = int(request.path.rpartition("_")[2])
    if "starting_after" in query:
        return number, int(query["starting_after"][0])
    return number, int(query["last_event_id"][0].removeprefix("e_"))
