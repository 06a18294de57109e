"""Part of chat completions and legacy completions: how an answer of one choice is continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from unbroken.core.continuation.format import Part
from unbroken.core.dialect import finish_reason
from unbroken.core.dialects.common.error_shapes import error_of, parsed
from unbroken.core.payload import DONE, RequestBody, count, dicts, filled, is_done, mapping, text
from unbroken.core.sse import Event, encode

LIMITS = ("max_tokens", "max_completion_tokens")

_IDENTITY = ("id", "created", "model")
"""Fields by which a client tells one answer from another."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")

_CONSTRAINTS = (
    *("grammar", "json_schema", "regex", "ebnf", "structural_tag", "structured_outputs"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_decoding_backend"),
)
"""Fields by which vLLM, SGLang and llama.cpp constrain the output: it would have to begin anew."""


def obstacle_of(body: RequestBody) -> str:
    """Return why the answer to a request cannot be continued exactly, ``""`` if it can."""
    if (count(body.get("n")) or 1) > 1 or (count(body.get("best_of")) or 1) > 1:
        return "several choices were asked for"
    if body.get("logprobs") not in (None, False) or filled(body.get("top_logprobs")):
        return "logprobs were asked for"
    wanted = body.get("response_format")
    if filled(wanted) and mapping(wanted).get("type") != "text":
        return "the output is constrained (response_format)"
    for name in _CONSTRAINTS:
        if filled(body.get(name)):
            return f"the output is constrained ({name})"
    if body.get("echo"):
        return "echo was asked for"
    return ""


def stops_of(body: RequestBody) -> list[str]:
    """Return the sequences at which the server stops."""
    stop = body.get("stop")
    return [stop] if isinstance(stop, str) else [one for one in stop if isinstance(one, str)] if stop else []


class ChoiceTranscript:
    """What the caller has of the only choice; see :class:`unbroken.core.continuation.format.Transcript`.

    A dialect says where the model's words are in a choice, with :meth:`said`.
    """

    text_field: ClassVar[str]

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.deltas = 0
        self.size = 0
        self.identity: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: dict[str, list[str]] = {}
        self._reasons = False
        self._obstacle = ""

    @classmethod
    def said(cls, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a choice that hold what the model said."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> Mapping[str, str]:
        """The reasoning, by the field in which it came."""
        return {name: "".join(pieces) for name, pieces in self._reasoning.items()}

    @property
    def obstacle(self) -> str:
        """Why the answer cannot be continued from here."""
        if self._obstacle or not self._texts:
            return self._obstacle or "no text had come"
        return "the model was reasoning" if self._reasons else ""

    def rewriter(self) -> ChoiceRewriter:
        """Return a rewriter for an attempt that continues from here."""
        return ChoiceRewriter(type(self), self.identity)

    def read(self, event: Event) -> None:
        """Take the next event."""
        if event.is_keepalive or event.type == "ping" or is_done(event.data):
            return
        chunk = parsed(event.data, event.type)
        if not isinstance(chunk, dict):
            return
        for name in _IDENTITY:
            if chunk.get(name) is not None:
                self.identity.setdefault(name, chunk[name])
        told = count(mapping(chunk.get("usage")).get("completion_tokens"))
        self.tokens = self.tokens if told is None else told
        for choice in dicts(chunk.get("choices")):
            self._choice(choice)

    def _choice(self, choice: Mapping[str, Any]) -> None:
        if count(choice.get("index")):
            self._obstacle = "it has several choices"
        if filled(choice.get("logprobs")):
            self._obstacle = "it has logprobs"
        fields = {name: value for name, value in self.said(choice).items() if filled(value)}
        self.deltas += bool(fields)
        for name, value in fields.items():
            self._field(name, value)
        if finish_reason(choice.get("finish_reason")):
            self._obstacle = "its finish had come"

    def _field(self, name: str, value: object) -> None:
        if name == self.text_field and isinstance(value, str):
            self._texts.append(value)
            self.size += len(value)
            self._reasons = False
        elif name in _REASONING:
            self._reasons = True
            if isinstance(value, str):
                self._reasoning.setdefault(name, []).append(value)
                self.size += len(value)
        elif name in ("tool_calls", "function_call"):
            self._obstacle = "a tool call had begun"
        else:
            self._obstacle = f"it has more than text ({name})"


class ChoiceRewriter:
    """A rewriter of a continuation's events: they get the identity of the answer, and lose the role.

    Args:
        transcript: the class that knows where the words are.
        identity: the fields of the first attempt.
    """

    def __init__(self, transcript: type[ChoiceTranscript], identity: Mapping[str, Any]) -> None:
        self._transcript = transcript
        self._identity = identity

    def part(self, event: Event) -> Part:
        """See :meth:`unbroken.core.continuation.format.Rewriter.part`."""
        if is_done(event.data):
            return Part("", lambda _: b"data: " + DONE + b"\n\n", decides=True)
        chunk = {} if event.is_keepalive or event.type == "ping" else parsed(event.data, event.type)
        if not isinstance(chunk, dict) or not chunk:
            return Part("", lambda _: b"")
        chunk |= {name: value for name, value in self._identity.items() if name in chunk}
        event_type = "" if event.type == "message" else event.type
        if error_of(chunk, event.type) is not None:
            return Part("", lambda _: _encoded(chunk, event_type), decides=True)
        choices = list(dicts(chunk.get("choices")))
        words = "".join(text(self._transcript.said(choice).get(self._transcript.text_field)) for choice in choices)
        decides, problem = self._judge(choices)
        return Part(words, lambda text: self._written(chunk, choices, text, event_type), decides, problem)

    def _judge(self, choices: list[dict[str, Any]]) -> tuple[bool, str]:
        """Return whether a chunk ends the text, and what of it cannot continue a text."""
        decides, problem = False, ""
        for choice in choices:
            said = self._transcript.said(choice)
            names = {name for name, value in said.items() if filled(value)}
            decides = decides or bool(names & {"tool_calls", "function_call"})
            decides = decides or bool(finish_reason(choice.get("finish_reason")))
            if names & set(_REASONING):
                problem = "it begins with reasoning: it is another answer"
            elif names - {"tool_calls", "function_call", self._transcript.text_field}:
                problem = "it begins with more than text"
            elif names and not isinstance(said.get(self._transcript.text_field), str | None):
                problem = "its text comes in another form"
            elif count(choice.get("index")):
                problem = "it has several choices"
        return decides, problem

    def _written(self, chunk: dict[str, Any], choices: list[dict[str, Any]], words: str, event_type: str) -> bytes:
        """Encode a chunk with these words; ``b""`` if nothing else is in it."""
        is_worth_it = bool(words) or filled(chunk.get("usage"))
        for choice in choices:
            for holder in _holders(choice):
                holder.pop("role", None)
                if self._transcript.text_field in holder:
                    holder[self._transcript.text_field] = words
            rest = {name for name, value in self._transcript.said(choice).items() if filled(value)}
            is_worth_it = is_worth_it or bool(rest) or bool(finish_reason(choice.get("finish_reason")))
        return _encoded(chunk, event_type) if is_worth_it else b""


def _holders(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield choice
    yield from (value for name in ("delta", "message") if isinstance(value := choice.get(name), dict))


def _encoded(chunk: Mapping[str, Any], event_type: str) -> bytes:
    return encode(msgspec.json.encode(chunk).decode(), event=event_type)
