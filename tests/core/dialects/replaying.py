"""A recorded stream, fed to what reads it: the rule, an attempt, the decoder."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from core.corpus import Recording
from unbroken.core.answer import Answer
from unbroken.core.attempt import Attempt, Mode
from unbroken.core.dialect import Call, Dialect, FinishMeaning, Signal
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Signature,
    Text,
    ToolCallArguments,
    ToolCallStart,
    TypedEvent,
    Usage,
    UsageReport,
)
from unbroken.core.failures import Phase
from unbroken.core.http import Head
from unbroken.core.policy import Policy
from unbroken.core.sse import Event, Parser, encode, parse

WORDS = {
    Signal.ANSWER: "output",
    Signal.REOPENS: "reopens",
    Signal.FINISHES: "finishes",
    Signal.SETTLES: "settles",
    Signal.USAGE: "usage",
    Signal.ENDS: "ends",
    Signal.TRANSIENT_ERROR: "error:transient",
    Signal.PERMANENT_ERROR: "error:permanent",
}


UNREMARKABLE = ("silent", "reasoning", "reasoning+reopens", "output", "output+reopens", "usage")
"""Labels of events that matter only before the first output, or once a choice has finished."""


def label(signal: Signal) -> str:
    """The meaning of an event in the corpus's words."""
    said = [word for flag, word in WORDS.items() if signal & flag]
    if signal & Signal.OUTPUT == Signal.REASONING:
        said.insert(0, "reasoning")
    return "+".join(said) or "silent"


Cutter = Callable[[Recording], Iterable[bytes]]
CUTS: dict[str, Cutter] = {
    "whole": lambda recording: [recording.body],
    "as it arrived": lambda recording: recording.pieces(),
    "byte by byte": lambda recording: (recording.body[i : i + 1] for i in range(len(recording.body))),
}


def labelled(dialect: Dialect, call: Call, pieces: Iterable[bytes]) -> list[str]:
    """What each event means, in the corpus's words."""
    reader, parser = dialect.reader(call.generation), Parser()
    return [label(reader.read(event)) for piece in pieces for event in parser.feed(piece)]


def attempted(call: Call, pieces: Iterable[bytes], policy: Policy | None = None) -> tuple[Attempt, bytes]:
    """An attempt that got these bytes and then a clean end, and what of them was handed on."""
    attempt = Attempt(1, call, policy or Policy(), 0.0)
    attempt.open(Head(200, ((b"content-type", b"text/event-stream"),)), Mode.STREAM)
    given = b""
    for piece in pieces:
        given += attempt.data(piece)
        if attempt.failure:
            return attempt, given
    return attempt, given + attempt.end()


def is_settled(attempt: Attempt) -> bool:
    return attempt.phase is Phase.COMPLETE and not attempt.noted and not attempt.failure


def blocks(recording: Recording) -> list[tuple[bytes, str]]:
    """Each event's block, in the form that the needle is shown, and its label."""
    whole = Parser().blocks.feed(recording.body).split(b"\n\n")
    dispatched = [block + b"\n\n" for block in whole if list(parse(block))]
    return list(zip(dispatched, recording.labels, strict=True))


def rewritten(block: bytes) -> Iterable[bytes]:
    """The same event with its JSON written in other ways."""
    [event] = parse(block)
    value = json.loads(event.data)
    for style in ({"indent": 1}, {"separators": (", ", " : ")}, {"indent": 0}, {"separators": ("\n,\n", "\n:\n")}):
        yield encode(json.dumps(value, **style), event="" if event.type == "message" else event.type)


class Collected:
    """The answer of a stream, put together in the plainest way."""

    def __init__(self, dialect: Dialect, pieces: Iterable[bytes], *, with_rest: bool = False) -> None:
        self.dialect = dialect
        self.decoder = dialect.decoder()
        self.answer = Answer(dialect, self.decoder)
        self.pieces: dict[tuple[type, int], str] = defaultdict(str)
        self.signatures: list[str] = []
        self.finishes: list[str] = []
        self.failures: list[Failed] = []
        self.usage: Usage | None = None
        self.calls: dict[tuple[int, int], dict[str, str]] = {}
        parser = Parser()
        for piece in pieces:
            for event in parser.feed(piece):
                self.add(self.decoded(event))
        for event in parser.end() if with_rest else ():
            self.add(self.decoded(event))

    def decoded(self, event: Event) -> Iterable[TypedEvent]:
        if not event.is_bare:
            return self.decoder.decode(event)
        error = self.dialect.error_in(event.data)
        return [error] if error else []

    def add(self, events: Iterable[TypedEvent]) -> None:
        for event in events:
            self.answer.add(event)
            match event:
                case Text(text, choice) | Reasoning(text, choice) | Refusal(text, choice):
                    self.pieces[type(event), choice] += text
                case Signature(signature, 0):
                    self.signatures.append(signature)
                case ToolCallStart(index, call_id, name, choice):
                    call = self.calls.setdefault((choice, index), {"id": "", "name": "", "arguments": ""})
                    assert (call["id"], call["name"]) != (call_id, name), "it starts again only with a late id or name"
                    assert call["id"] in ("", call_id)
                    assert call["name"] in ("", name)
                    call |= {"id": call_id, "name": name}
                case ToolCallArguments(index, arguments, choice, replaces):
                    before = "" if replaces else self.calls[choice, index]["arguments"]
                    self.calls[choice, index]["arguments"] = before + arguments
                case Finish(reason, 0):
                    self.finishes.append(reason)
                case UsageReport(usage):
                    self.usage = usage
                case Failed():
                    self.failures.append(event)

    def check(self, expect: dict[str, Any]) -> None:
        assert self.pieces[Text, 0] == expect.get("text", "")
        assert self.pieces[Reasoning, 0] == expect.get("reasoning", "")
        assert self.pieces[Refusal, 0] == expect.get("refusal", "")
        assert self.signatures == expect.get("signatures", [])
        calls = [call for (choice, _), call in sorted(self.calls.items()) if choice == 0]
        assert calls == [{"id": "", **call} for call in expect.get("tool_calls", [])]
        self.check_messages(expect.get("messages"))
        self.check_usage(expect.get("usage"))
        self.check_end(expect.get("finish_reason"), expect.get("error"))

    def check_messages(self, expected: str | list[str] | None) -> None:
        """What a conversation goes on with: in full, as JSON; or the types of its items."""
        if isinstance(expected, str):
            assert self.answer.messages == json.loads(expected)
        elif expected is not None:
            assert [item.get("type", item.get("role")) for item in self.answer.messages] == expected

    def check_usage(self, expected: dict[str, int] | None) -> None:
        if expected is None:
            assert self.usage is None
            return
        assert self.usage is not None
        new = self.usage.new if self.usage.cached_tokens is not None else None
        known = msgspec.structs.asdict(self.usage) | {"new": new}
        assert {name: value for name, value in known.items() if value is not None} == expected

    def check_end(self, finish_reason: str | None, error: dict[str, Any] | None) -> None:
        failed = self.dialect.finish_reasons.get(finish_reason or "") is FinishMeaning.FAILED
        assert self.finishes[:1] == ([finish_reason] if finish_reason and not failed else [])
        if error:
            kind = str(error.get("kind", error.get("type", error.get("code", ""))))
            assert (self.failures[0].message, self.failures[0].kind) == (error["message"], kind)
            assert len(self.failures) == error.get("told", 1)
        else:
            assert bool(self.failures) is failed
