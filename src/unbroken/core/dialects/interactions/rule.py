"""The meaning of an interaction's events to the rule."""

from __future__ import annotations

from unbroken.core.dialect import Generation, Signal, severity
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.common.google import judged
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.interactions.errors import (
    ENDINGS,
    UPDATES,
    Json,
    error_of_event,
    event_kind,
    interaction_of,
    says_nothing,
    status_of,
)
from unbroken.core.payload import filled, is_done, mapping, text
from unbroken.core.sse import Event

PROGRESS = frozenset(
    {"interaction.created", "interaction.start", "interaction.in_progress", "interaction.queued"}
    | {"step.stop", "content.stop"}
    | UPDATES
)
"""Events that are not part of the answer."""

_LAST = rb"(?:error|interaction\.(?:complete|requires_|incomplete|budget_))"
_ENDED = rb"(?:complete|requires_|incomplete|budget_)"
NOTABLE = Notable(
    [rb'"event_type"%(c)s"' + _LAST],
    rb'"(?:status"%(c)s"'
    + _ENDED
    + rb'|type"%(c)s"'
    + _LAST
    + rb'|error"%(c)s[^n]|(?:%(keys)s|detail|code)"%(c)s)|event: ?'
    + _LAST
    + rb'\w*\n|\[DONE\][^"\n]*\n',
    rare=[b'status"', b"interaction."],
)


class InteractionsReader:
    """A reader of one attempt's events, for their meaning to the rule."""

    def __init__(self, generation: Generation) -> None:  # noqa: ARG002 - there is only ever one choice
        self.finish_reason = ""
        self._finished = False
        self._tools: set[str] = set()
        self._step_error: Json | None = None

    @property
    def runs_tool(self) -> bool:
        """See :class:`unbroken.core.dialect.EventReader`."""
        return bool(self._tools)

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        if event.is_keepalive:
            return Signal.SILENT
        data = event.data.strip()
        if is_done(data):
            return Signal.ENDS
        answer = parsed(data, event.type)
        if not isinstance(answer, dict):
            return Signal.OUTPUT
        kind = event_kind(answer, event)
        if (error := error_of_event(kind, answer, self._step_error)) is not None:
            return severity(judged(error))
        if status := status_of(kind, answer):
            self.finish_reason, self._finished = status, True
            return Signal.SETTLES | (Signal.ENDS if kind in ENDINGS else Signal.SILENT)
        return self._output(self._meaning(kind, answer))

    def _meaning(self, kind: str, answer: Json) -> Signal:
        """Return what of the model's output an event brings that neither ends nor fails."""
        match kind:
            case "step.start" | "content.start":
                step = answer.get("step") if kind == "step.start" else answer.get("content")
                self._note_step(mapping(step))
                return _output_of_start(step)
            case "step.delta" | "content.delta":
                return _output_of(answer.get("delta"))
        if kind in PROGRESS:
            interaction = interaction_of(answer)
            return Signal.OUTPUT if filled([interaction.get("steps"), interaction.get("outputs")]) else Signal.SILENT
        return Signal.SILENT if says_nothing(kind, answer) else Signal.OUTPUT

    def _note_step(self, step: Json) -> None:
        """Note a server tool that starts or ends, and why a step failed."""
        self._step_error = mapping(step.get("error")) or self._step_error
        kind = text(step.get("type"))
        if kind.endswith("_result"):
            self._tools.discard(text(step.get("call_id")))
        elif kind.endswith("_call") and kind != "function_call":
            self._tools.add(text(step.get("id")))

    def _output(self, said: Signal) -> Signal:
        if not said:
            return Signal.SILENT
        reopened, self._finished = self._finished, False
        return said | Signal.REOPENS if reopened else said


_ANNOUNCED = frozenset({"thought", "model_output", "text", "user_input"})
"""Types of steps and contents that are announced while they are still empty, and of what the caller has said."""

_REASONING = frozenset({"thought", "thought_summary", "thought_signature"})
"""Types of the steps and deltas of reasoning."""


def _output_of_start(step: object) -> Signal:
    """Return what the start of a step brings: an empty thought or output is only an announcement."""
    if not isinstance(step, dict):
        return Signal.OUTPUT
    if step.get("type") == "user_input":
        return Signal.SILENT
    return _output_of(step) if text(step.get("type")) in _ANNOUNCED else Signal.OUTPUT


def _output_of(delta: object) -> Signal:
    if not isinstance(delta, dict):
        return Signal.OUTPUT
    if not filled(_without_types(delta)):
        return Signal.SILENT
    return Signal.REASONING if text(delta.get("type")) in _REASONING else Signal.OUTPUT


def _without_types(value: object) -> object:
    """Return a value without the types of its contents, which are filled even where the contents are empty."""
    if isinstance(value, dict):
        return {name: _without_types(inner) for name, inner in value.items() if name != "type"}
    return [_without_types(inner) for inner in value] if isinstance(value, list) else value
