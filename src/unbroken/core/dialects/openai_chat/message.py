"""The assistant's message, put together from deltas, as it is sent back to continue the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialects.openai_chat.chunk import Delta
from unbroken.core.dialects.openai_chat.merging import append_part, merged, plain
from unbroken.core.dialects.openai_chat.tool_calls import PartialCall
from unbroken.core.events import ToolCall
from unbroken.core.payload import dicts


class AssistantMessage:
    """The message of the first choice: text and tool calls of the answer, and every other field of its deltas."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []

    def add(self, delta: Delta) -> None:
        """Take the fields of a delta that are neither its text nor its tool calls."""
        if delta.reasoning_content is not None:
            merged(self._fields, {"reasoning_content": delta.reasoning_content})
        if delta.reasoning is not None:
            merged(self._fields, {"reasoning": delta.reasoning})
        if delta.extra:
            merged(self._fields, delta.extra)
        if isinstance(delta.content, list):
            for part in dicts(delta.content):
                append_part(self._parts, part)
        elif isinstance(delta.content, str):
            self.add_text(delta.content)

    def add_text(self, content: str) -> None:
        """Take text. It is kept here only among parts: otherwise the answer has it."""
        if self._parts and content:
            append_part(self._parts, {"type": "text", "text": content})

    def build(self, answer: Answer, calls: Sequence[tuple[PartialCall, ToolCall]]) -> list[dict[str, Any]]:
        """Return the message, in a list; an empty list if there is nothing to send back.

        Args:
            answer: the answer.
            calls: the complete tool calls, each as it came and as it was parsed.
        """
        if not (answer.text or answer.refusal or calls or self._parts):
            return []
        message: dict[str, Any] = {"role": "assistant", "content": plain(self._parts) or answer.text or None}
        if answer.refusal:
            message["refusal"] = answer.refusal
        message |= {name: value for name, value in plain(self._fields).items() if value not in ("", [], {})}
        if isinstance(audio := message.get("audio"), dict):  # only its id is accepted back (OpenAI docs, "Audio")
            message["audio"] = {name: value for name, value in audio.items() if name == "id"}
        if calls:
            message["tool_calls"] = [_tool_call(came, call) for came, call in calls]
        return [message]


def _tool_call(came: PartialCall, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": came.kind, "function": function, **plain(came.extra)}
