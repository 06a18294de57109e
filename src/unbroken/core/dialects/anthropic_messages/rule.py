"""The meaning of a message's events to the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import FinishMeaning, Generation, Signal, finish_meaning, finish_reason, severity
from unbroken.core.dialects.anthropic_messages.errors import error_of, judged
from unbroken.core.dialects.anthropic_messages.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.payload import filled, is_done, mapping, text
from unbroken.core.sse import Event

_KINDS = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop"}
    | {"message_delta", "message_stop", "ping", "error"}
)

NOTABLE = Notable(
    [rb'"type"%(c)s"(?:message_stop|error)"'],
    rb'"(?:stop_reason"%(c)s"|error"%(c)s[^n]|(?:%(keys)s|detail|code)"%(c)s)'
    rb'|event: ?(?:message_stop|error)\n|\[DONE\][^"\n]*\n',
    rare=[b'stop_reason"', b"message_stop\n"],
)


def event_kind(answer: Mapping[str, Any], event_type: str) -> str:
    """Return the kind of an event: the JSON's ``type``, or the ``event`` field if the type is missing or unknown."""
    kind = text(answer.get("type"))
    if kind in _KINDS:
        return kind
    if event_type in _KINDS:  # llama.cpp writes `event: error` over {"type": "server_error", ...}
        return event_type
    is_event = kind and not kind.endswith("error") and not filled(answer.get("error"))  # of a type that is not known
    return kind if is_event or error_of(answer) is None else "error"


class MessagesReader:
    """A reader of one attempt's events, for their meaning to the rule."""

    def __init__(self, generation: Generation) -> None:  # noqa: ARG002 - there is only ever one choice
        self.finish_reason = ""
        self._finished = False
        self._tools: set[str] = set()

    @property
    def runs_tool(self) -> bool:
        """See :class:`unbroken.core.dialect.EventReader`."""
        return bool(self._tools)

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        if event.is_keepalive or event.type == "ping":
            return Signal.SILENT
        data = event.data.strip()
        if is_done(data):
            return Signal.ENDS
        answer = parsed(data, event.type)
        if not isinstance(answer, dict):
            return Signal.OUTPUT
        match event_kind(answer, event.type):
            case "ping" | "content_block_stop":
                return Signal.SILENT
            case "message_start":
                said = Signal.OUTPUT if filled(mapping(answer.get("message")).get("content")) else Signal.SILENT
                return self._output(said)
            case "content_block_start":
                return self._block(answer.get("content_block"))
            case "content_block_delta":
                return self._output(_output_of(answer.get("delta")))
            case "message_delta":
                return self._message_delta(answer)
            case "message_stop":
                return Signal.ENDS
            case "error":
                return severity(judged(error_of(answer, "error") or {}))
        return Signal.OUTPUT

    def _block(self, block: object) -> Signal:
        """Take the start of a block, which may be a server tool's or its result."""
        kind = text(mapping(block).get("type"))
        if kind in ("server_tool_use", "mcp_tool_use"):
            self._tools.add(text(mapping(block).get("id")))
        elif kind.endswith("_tool_result"):
            self._tools.discard(text(mapping(block).get("tool_use_id")))
        return self._output(_output_of_start(block))

    def _output(self, said: Signal) -> Signal:
        if not said:
            return Signal.SILENT
        reopened, self._finished = self._finished, False
        return said | Signal.REOPENS if reopened else said

    def _message_delta(self, answer: Mapping[str, Any]) -> Signal:
        delta = answer.get("delta") or {}
        if not isinstance(delta, dict):
            return Signal.OUTPUT
        reason = finish_reason(delta.get("stop_reason"))
        if finish_meaning(FINISH_REASONS, reason) is FinishMeaning.FAILED:
            return Signal.TRANSIENT_ERROR
        unknown = any(filled(value) for name, value in delta.items() if name not in _ENDING)
        signal = Signal.OUTPUT if unknown else Signal.SILENT
        if reason:
            self.finish_reason, self._finished = reason, True
            return signal | Signal.SETTLES
        return signal | (Signal.USAGE if filled(answer.get("usage")) else Signal.SILENT)


_ENDING = frozenset({"stop_reason", "stop_sequence", "stop_details"})
"""Fields that say how a message ended; any other field of its delta is output."""


_REASONING = frozenset({"thinking", "redacted_thinking", "thinking_delta", "signature_delta"})
"""Types of the blocks and deltas of reasoning."""


def _output_of_start(block: object) -> Signal:
    """Return what the start of a block brings: an empty text or thinking block is only an announcement."""
    if not isinstance(block, dict) or block.get("type") in ("text", "thinking"):
        return _output_of(block)
    return Signal.REASONING if text(block.get("type")) in _REASONING else Signal.OUTPUT


def _output_of(delta: object) -> Signal:
    if not isinstance(delta, dict):
        return Signal.OUTPUT
    if not any(filled(value) for name, value in delta.items() if name != "type"):
        return Signal.SILENT
    return Signal.REASONING if text(delta.get("type")) in _REASONING else Signal.OUTPUT
