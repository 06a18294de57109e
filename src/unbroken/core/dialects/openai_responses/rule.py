"""The meaning of a response's events to the rule."""

from __future__ import annotations

import re

from unbroken.core.dialect import Generation, Signal, severity
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.openai_responses.errors import ENDINGS, ERRORS, Json, error_of_event, event_kind, reason_of
from unbroken.core.payload import filled, is_done, mapping, text
from unbroken.core.sse import Event

PROGRESS = frozenset(
    {"response.created", "response.queued", "response.in_progress", "response.metadata"}
    | {"keepalive", "ping", "heartbeat", "response.keep_alive", "response.heartbeat", "codex.keepalive"}
    | {"codex.rate_limits", "codex.response.metadata", "responsesapi.websocket_timing"}
)
"""Events that are not part of the answer: the response's progress, heartbeats, OpenAI's events for Codex."""

_LAST = [name.encode() for name in sorted(ENDINGS.keys() | ERRORS)]
_ANY_LAST = b"(?:%s)" % b"|".join(map(re.escape, _LAST))
NOTABLE = Notable(
    [rb'"type"%(c)s"' + _ANY_LAST + b'"'],
    rb'"(?:error"%(c)s[^n\s]|object"%(c)s"error"|(?:%(keys)s|detail)"%(c)s)|: ?' + _ANY_LAST + rb'\n|\[DONE\][^"\n]*\n',
    rare=[name + b"\n" for name in _LAST],
)


class ResponsesReader:
    """A reader of one attempt's events, for their meaning to the rule."""

    def __init__(self, generation: Generation) -> None:  # noqa: ARG002 - there is only ever one choice
        self.finish_reason = ""
        self._tools: set[str] = set()

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
        if (error := error_of_event(kind, answer)) is not None:
            return severity(failed(error))
        if kind in ENDINGS:
            self.finish_reason = reason_of(kind, mapping(answer.get("response")))
            return Signal.SETTLES | Signal.ENDS
        self._note_tool(kind, answer)
        if kind in PROGRESS or _is_empty(kind, answer):
            return Signal.SILENT
        return Signal.REASONING if _is_reasoning(kind, answer) else Signal.OUTPUT

    def _note_tool(self, kind: str, answer: Json) -> None:
        """Note a server tool that starts or ends: by its item, or by an event of its own."""
        item = mapping(answer.get("item"))
        if kind in ("response.output_item.added", "response.output_item.done"):
            name, state = text(item.get("type")), kind.rpartition(".")[2]
        else:
            _, _, rest = kind.partition("response.")
            name, _, state = rest.partition(".")
        if name not in _SERVER_TOOLS:
            return
        tool = text(item.get("id")) or text(answer.get("item_id"))
        if state in ("added", "in_progress"):
            self._tools.add(tool)
        elif state in ("done", "completed", "failed", "incomplete"):
            self._tools.discard(tool)


_SERVER_TOOLS = frozenset(
    {"web_search_call", "code_interpreter_call", "file_search_call", "image_generation_call"}
    | {"mcp_call", "mcp_list_tools"}
)
"""Items during which the server works and the model says nothing."""


def _is_empty(kind: str, answer: Json) -> bool:
    """Return whether an event announces something that is still empty, or is an empty piece."""
    if kind == "response.output_item.added":
        item = mapping(answer.get("item"))
        return item.get("type") in ("reasoning", "message") and not filled([item.get("content"), item.get("summary")])
    if kind == "response.output_item.done" or not kind.endswith((".delta", ".done", "_part.added")):
        return False
    fields = [*answer.items(), *mapping(answer.get("part")).items()]
    return not filled([value for name, value in fields if name not in _PLACES])


def _is_reasoning(kind: str, answer: Json) -> bool:
    """Return whether an event brings a piece, a part or an item of reasoning, its summary or its encrypted content."""
    if kind.startswith(("response.output_item.", "response.content_part.")):
        whole = mapping(answer.get("item") or answer.get("part"))
        return whole.get("type") in ("reasoning", "reasoning_text", "summary_text")
    return kind.startswith("response.reasoning")


_PLACES = frozenset(
    {"type", "sequence_number", "event_id", "response_id", "item_id", "obfuscation", "agent", "part"}
    | {"output_index", "content_index", "summary_index", "command_index", "annotation_index"}
)
"""Fields of a piece that say where it belongs, not what it contains."""
