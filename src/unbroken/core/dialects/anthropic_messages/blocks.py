"""The content blocks of Anthropic's messages, assembled from their deltas.

Source: Anthropic API docs, "Streaming messages: content block delta types" and "Fine-grained tool streaming"; that a
signature replaces the one before it is how the ``anthropic`` SDK 2.12 puts a message together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from unbroken.core.events import Reasoning, Signature, Text, ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import UNREADABLE, filled, text


class ContentBlock:
    """One content block, as received so far.

    Args:
        index: its position in the message.
        content: the block as it started.
    """

    def __init__(self, index: int, content: dict[str, Any]) -> None:
        self._index = index
        self._content = content
        self._texts: dict[str, list[str]] = {}
        self._input: list[str] = []
        self._closed = False

    @property
    def content(self) -> dict[str, Any]:
        """The block as the API sends it without streaming."""
        texts = {name: text(self._content.get(name)) + "".join(pieces) for name, pieces in self._texts.items()}
        return {**self._content, **texts}

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the API accepts it back: complete blocks, and text as far as it came, but no empty text."""
        if self.content.get("type") == "text":
            return bool(self.content.get("text"))
        return self._closed

    @property
    def is_call(self) -> bool:
        """Whether it asks the caller to run a tool."""
        return self._content.get("type") == "tool_use"

    def begin(self) -> Iterator[TypedEvent]:
        """Yield the typed events of a block that has just started."""
        content = self._content
        match content.get("type"):
            case "text" if said := text(content.get("text")):
                yield Text(said)
            case "thinking":
                if said := text(content.get("thinking")):
                    yield Reasoning(said)
                if signature := text(content.get("signature")):
                    yield Signature(signature)
            case "redacted_thinking" if signature := text(content.get("data")):
                yield Signature(signature)
            case "tool_use":
                yield ToolCallStart(self._index, text(content.get("id")), text(content.get("name")))

    def add(self, delta: dict[str, Any]) -> Iterator[TypedEvent]:
        """Add a delta; yield its typed events."""
        match delta.get("type"):
            case "text_delta" if (event := self.add_text(text(delta.get("text")))).text:
                yield event
            case "thinking_delta" if said := self._append("thinking", text(delta.get("thinking"))):
                yield Reasoning(said)
            case "signature_delta":
                self._content["signature"] = signature = text(delta.get("signature"))
                if signature:
                    yield Signature(signature)
            case "input_json_delta" if piece := text(delta.get("partial_json")):
                self._input.append(piece)
                if self._content.get("type") == "tool_use":
                    yield ToolCallArguments(self._index, piece)
            case "citations_delta":
                citations = self._content.get("citations")
                self._content["citations"] = [
                    *(citations if isinstance(citations, list) else ()),
                    delta.get("citation"),
                ]
            case "compaction_delta":
                self._content |= {name: value for name, value in delta.items() if name != "type"}

    def add_text(self, said: str) -> Text:
        """Add a piece of text; return its typed event."""
        return Text(self._append("text", said))

    def close(self) -> Iterator[TypedEvent]:
        """Close the block; yield its typed events. The block is complete unless its input is not a JSON object.

        Input may be broken: the server does not check input that it streams eagerly, and a limit may cut it.
        """
        if self._closed:
            return
        self._closed = True
        if not text(self._content.get("type")).endswith("tool_use"):
            return
        started_with = self._content.get("input")
        if self._input:
            self._content["input"] = _object("".join(self._input))
        elif self._content.get("type") == "tool_use" and filled(started_with):
            yield ToolCallArguments(self._index, msgspec.json.encode(started_with).decode())
        self._content.setdefault("input", {})
        self._closed = isinstance(self._content["input"], dict)

    def _append(self, field: str, said: str) -> str:
        self._content.setdefault("type", field)
        self._texts.setdefault(field, []).append(said)
        return said


def _object(document: str) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(document)
    except UNREADABLE:
        return None
    return answer if isinstance(answer, dict) else None
