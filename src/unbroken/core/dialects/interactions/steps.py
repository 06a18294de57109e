"""The steps of an interaction, assembled from their deltas.

Sources: Gemini API docs, "Streaming interactions: step types, delta types"; the types of the ``google-genai`` SDK 3.4
(``StepDeltaData``: a ``thought_summary`` is one more item of the summary).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from unbroken.core.events import Reasoning, Signature, Text, ToolCallArguments, ToolCallStart, TypedEvent
from unbroken.core.payload import UNREADABLE, dicts, filled, mapping, text

CONTENTS = frozenset({"text", "image", "audio", "video", "document"})
"""Types of what the model puts out; until May 2026 each was a step of its own."""


class InteractionStep:
    """One step, as received so far.

    Args:
        step: the step as it started.
        call: its number among the function calls of the interaction.
    """

    def __init__(self, step: dict[str, Any], call: int) -> None:
        self._step = step
        self._call = call
        self._content = [dict(part) for part in dicts(step.get("content"))]
        self._said: list[str] = []
        self._arguments: list[str] = []
        self._announced: tuple[str, str] | None = None
        self._closed = False

    @property
    def is_call(self) -> bool:
        """Whether it asks for a function to be run."""
        return self._step.get("type") == "function_call"

    @property
    def step(self) -> dict[str, Any]:
        """The step as the API sends it without streaming."""
        self._join()
        return {**self._step, "content": self._content} if self._content else self._step

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the API accepts it back: complete steps, and output as far as it came; not what the caller said."""
        if self._step.get("type") == "model_output":
            parts = dicts(self.step.get("content"))
            return any(filled(value) for part in parts for name, value in part.items() if name != "type")
        return self._closed and self._step.get("type") != "user_input"

    def begin(self) -> Iterator[TypedEvent]:
        """Yield the typed events of a step that has just started."""
        match self._step.get("type"):
            case "model_output":
                yield from (Text(said) for part in self._content if (said := text(part.get("text"))))
            case "thought":
                told = _parts(self._step.get("summary"))
                yield from (Reasoning(said) for part in told if (said := text(part.get("text"))))
                if signature := text(self._step.get("signature")):
                    yield Signature(signature)
            case "function_call" if self._named != ("", ""):
                yield from self._announce()

    def add(self, delta: dict[str, Any]) -> Iterator[TypedEvent]:
        """Add a delta; yield its typed events."""
        match delta.get("type"):
            case "text":
                if said := text(delta.get("text")):
                    yield self.add_text(said)
                self._annotate(delta)
            case "text_annotation_delta" | "text_annotation":
                self._annotate(delta)
            case "image" | "audio" | "video" | "document":
                self._join()
                self._content.append(dict(delta))
            case "thought_summary":
                yield from self._summarise(mapping(delta.get("content")))
            case "thought_signature":
                self._step["signature"] = signature = text(delta.get("signature"))
                if signature:
                    yield Signature(signature)
            case "arguments_delta" if piece := text(delta.get("arguments")):
                self._arguments.append(piece)
                if self.is_call:
                    yield from self._argue(piece)
            case kind if kind == self._step.get("type"):
                yield from self._fill(delta)

    def add_text(self, said: str) -> Text:
        """Add a piece of text; return its typed event."""
        self._said.append(said)
        return Text(said)

    def close(self) -> Iterator[TypedEvent]:
        """Close the step; yield its typed events. It is complete unless its arguments are not a JSON object."""
        if self._closed:
            return
        self._closed = True
        if not self.is_call:
            return
        if self._arguments:
            self._step["arguments"] = _object("".join(self._arguments))
        elif filled(self._step.get("arguments")):
            yield from self._argue(msgspec.json.encode(self._step["arguments"]).decode())
        self._step.setdefault("arguments", {})
        self._closed = isinstance(self._step["arguments"], dict)

    @property
    def _named(self) -> tuple[str, str]:
        return text(self._step.get("id")), text(self._step.get("name"))

    def _announce(self) -> Iterator[TypedEvent]:
        """Yield the start of a call, again if its id or its name has come late."""
        if self._announced != self._named:
            self._announced = self._named
            yield ToolCallStart(self._call, *self._named)

    def _argue(self, arguments: str) -> Iterator[TypedEvent]:
        yield from self._announce()
        yield ToolCallArguments(self._call, arguments)

    def _summarise(self, content: dict[str, Any]) -> Iterator[TypedEvent]:
        if filled(content):
            self._step["summary"] = [*_parts(self._step.get("summary")), content]
        if said := text(content.get("text")):
            yield Reasoning(said)

    def _fill(self, delta: dict[str, Any]) -> Iterator[TypedEvent]:
        """Take the fields of a delta that brings them whole: a server tool's, and until May 2026 a function call's."""
        self._step |= {name: value for name, value in delta.items() if value is not None}
        if self.is_call:
            yield from self._announce()

    def _annotate(self, delta: dict[str, Any]) -> None:
        if not filled(came := list(dicts(delta.get("annotations")))):
            return
        self._join()
        if not self._content or self._content[-1].get("type") != "text":
            self._content.append({"type": "text", "text": ""})
        last = self._content[-1]
        last["annotations"] = [*dicts(last.get("annotations")), *came]

    def _join(self) -> None:
        """Join the pieces of text that have come to the last text."""
        if not self._said:
            return
        said = "".join(self._said)
        self._said.clear()
        if self._content and self._content[-1].get("type") == "text":
            self._content[-1]["text"] = text(self._content[-1].get("text")) + said
        else:
            self._content.append({"type": "text", "text": said})


def _parts(summary: object) -> list[dict[str, Any]]:
    """Return the items of a summary; previews of the API have sent it as text."""
    return [{"type": "text", "text": summary}] if isinstance(summary, str) and summary else list(dicts(summary))


def _object(document: str) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(document)
    except UNREADABLE:
        return None
    return answer if isinstance(answer, dict) else None
