"""How a message is continued: its last message is the assistant's text (a prefill).

Source: Anthropic docs, "Prefill Claude's response"; see also :mod:`unbroken.core.dialects.common.claude`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from unbroken.core.continuation.format import ContinuationFormat, Part, Style
from unbroken.core.dialects.anthropic_messages.errors import error_of
from unbroken.core.dialects.anthropic_messages.rule import event_kind
from unbroken.core.dialects.common.claude import refusal_of_prefill
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.payload import DONE, RequestBody, count, dicts, filled, is_done, mapping, text
from unbroken.core.sse import Event, encode

_THINKING = ("thinking", "redacted_thinking")


class MessageTranscript:
    """What the caller has of a message; see :class:`unbroken.core.continuation.format.Transcript`."""

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.deltas = 0
        self.size = 0
        self.reasoning: Mapping[str, str] = {}
        self._texts: list[str] = []
        self._kind = ""
        self._index = 0
        self._obstacle = ""

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self._texts)

    @property
    def obstacle(self) -> str:
        """Why the message cannot be continued from here."""
        if self._obstacle:
            return self._obstacle
        if self._kind in _THINKING:
            return "the model was reasoning"
        return "" if self.size else "no text had come"

    def rewriter(self) -> MessageRewriter:
        """Return a rewriter for an attempt that continues from here."""
        return MessageRewriter(self._index)

    def read(self, event: Event) -> None:
        """Take the next event."""
        if event.is_keepalive or event.type == "ping" or is_done(event.data):
            return
        answer = parsed(event.data, event.type)
        if not isinstance(answer, dict):
            return
        match event_kind(answer, event.type):
            case "message_start":
                if filled(mapping(answer.get("message")).get("content")):
                    self._obstacle = "it begins with content"
            case "content_block_start":
                self._start(count(answer.get("index")) or 0, mapping(answer.get("content_block")))
            case "content_block_delta":
                self._delta(mapping(answer.get("delta")))
            case "content_block_stop" if self._kind not in _THINKING:
                self._obstacle = self._obstacle or "its text had ended"
            case "message_delta" if filled(mapping(answer.get("delta")).get("stop_reason")):
                self._obstacle = "its finish had come"

    def _start(self, index: int, block: Mapping[str, Any]) -> None:
        self._kind, self._index = text(block.get("type")), index
        if self._kind == "text":
            self._add(text(block.get("text")))
        elif self._kind not in _THINKING:
            self._obstacle = (
                "a tool call had begun" if "tool" in self._kind else f"it has more than text ({self._kind})"
            )

    def _delta(self, delta: Mapping[str, Any]) -> None:
        self.deltas += 1
        kind = text(delta.get("type"))
        if kind == "text_delta" and self._kind == "text":
            self._add(text(delta.get("text")))
        elif self._kind not in _THINKING:
            self._obstacle = self._obstacle or f"it has more than text ({kind})"

    def _add(self, words: str) -> None:
        self._texts.append(words)
        self.size += len(words)


class MessageRewriter:
    """A rewriter of a continuation's events: its first text is that of the open block; later blocks are numbered on.

    Args:
        index: the index of the block that the caller has, and that is open.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._shift: int | None = None
        self._is_open = True

    def part(self, event: Event) -> Part:
        """See :meth:`unbroken.core.continuation.format.Rewriter.part`."""
        if is_done(event.data):
            return Part("", lambda _: b"data: " + DONE + b"\n\n", decides=True)
        answer = {} if event.is_keepalive else parsed(event.data, event.type)
        if not isinstance(answer, dict) or not answer:
            return Part("", lambda _: b"")
        kind = event_kind(answer, event.type)
        encoded = _encoded(answer, event.type)
        match kind:
            case "message_start":
                return Part("", lambda _: b"")
            case "content_block_start":
                return self._start(answer, event.type)
            case "content_block_delta":
                return self._delta(answer, event.type)
            case "content_block_stop":
                return self._stop(answer, event.type)
            case "message_delta" | "message_stop" if not error_of(answer):
                stop = self._close()
                return Part("", lambda _: stop + encoded, decides=True)
            case "error":
                return Part("", lambda _: encoded, decides=True)
        return Part("", lambda _: encoded)

    def _start(self, answer: dict[str, Any], event_type: str) -> Part:
        index, block = count(answer.get("index")) or 0, mapping(answer.get("content_block"))
        kind = text(block.get("type"))
        if self._shift is None and kind == "text":
            self._shift = self._index - index
            words = text(block.get("text"))
            return Part(words, lambda text: self._text_delta(text) if text else b"")
        stop = self._close()
        if self._shift is None:
            self._shift = self._index + 1 - index
        encoded = _encoded(answer | {"index": index + self._shift}, event_type)
        problem = "it begins with reasoning: it is another answer" if kind in _THINKING else ""
        return Part("", lambda _: stop + encoded, decides=True, problem=problem)

    def _delta(self, answer: dict[str, Any], event_type: str) -> Part:
        delta = mapping(answer.get("delta"))
        answer = self._shifted(answer)
        if delta.get("type") == "text_delta":
            return Part(text(delta.get("text")), lambda words: self._with_text(answer, words, event_type))
        encoded = _encoded(answer, event_type)
        is_ours = answer["index"] == self._index
        return Part("", lambda _: encoded, problem="it begins with more than text" if is_ours else "")

    def _stop(self, answer: dict[str, Any], event_type: str) -> Part:
        answer = self._shifted(answer)
        if answer["index"] == self._index:
            was_open, self._is_open = self._is_open, False
            return Part("", lambda _: _encoded(answer, event_type) if was_open else b"", decides=True)
        return Part("", lambda _: _encoded(answer, event_type))

    def _shifted(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"index": (count(answer.get("index")) or 0) + (self._shift or 0)}

    def _close(self) -> bytes:
        """Return the end of the open block, if it is still open."""
        if not self._is_open:
            return b""
        self._is_open = False
        return _encoded({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _text_delta(self, words: str) -> bytes:
        delta = {"type": "text_delta", "text": words}
        return _encoded({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")

    def _with_text(self, answer: dict[str, Any], words: str, event_type: str) -> bytes:
        return _encoded(answer | {"delta": {**answer["delta"], "text": words}}, event_type) if words else b""


def obstacle(body: RequestBody, url: str) -> str:
    """Return why the answer to a request cannot be continued exactly, ``""`` if it can."""
    messages = list(dicts(body.get("messages")))
    if not messages or messages[-1].get("role") == "assistant":
        return "the request itself ends with a message of the assistant"
    if filled(body.get("output_format")) or filled(mapping(body.get("output_config")).get("format")):
        return "the output is constrained (output_format)"
    thinks = text(mapping(body.get("thinking")).get("type")) not in ("", "disabled")
    return refusal_of_prefill(text(body.get("model")) or url, thinks=thinks)


def extended(body: RequestBody, style: Style, words: str, reasoning: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    """Return the fields with which a request asks for the rest of its answer."""
    return {"messages": [*body["messages"], {"role": "assistant", "content": words}]}


def stops(body: RequestBody) -> list[str]:
    """Return the sequences at which the server stops."""
    return [one for one in body.get("stop_sequences") or () if isinstance(one, str)]


def _encoded(answer: Mapping[str, Any], event_type: str) -> bytes:
    return encode(msgspec.json.encode(answer).decode(), event="" if event_type == "message" else event_type)


CONTINUATION = ContinuationFormat(
    styles=frozenset({"assistant"}),
    transcript=MessageTranscript,
    obstacle=obstacle,
    extended=extended,
    limits=("max_tokens",),
    stops=stops,
    keeps_space=lambda _body, _url, _style: False,
)
