"""The meaning of a content stream's events to the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import FinishMeaning, Generation, Signal, finish_meaning, finish_reason, severity
from unbroken.core.dialects.common.error_shapes import parsed
from unbroken.core.dialects.common.google import judged
from unbroken.core.dialects.common.notable import Notable
from unbroken.core.dialects.gemini.errors import error_of
from unbroken.core.dialects.gemini.finish_reasons import FINISH_REASONS
from unbroken.core.payload import count, filled, is_done, mapping
from unbroken.core.sse import Event

_UNSPECIFIED = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

# Arguments of a function call are not a string here: one named "error" costs a parse.
NOTABLE = Notable(
    [rb'"finishReason"%(c)s"'],
    rb'"(?:blockReason"%(c)s"|error"%(c)s[^n]|(?:%(keys)s|detail)"%(c)s|code"%(c)s\d)'
    rb'|event: ?error\n|\[DONE\][^"\n]*\n',
    rare=[b'blockReason"'],
)


class GeminiReader:
    """A reader of one attempt's events, for their meaning to the rule.

    Args:
        generation: what the request asks for; the attempt settles when each candidate has a finish reason.
    """

    def __init__(self, generation: Generation) -> None:
        self.finish_reason = ""
        self.runs_tool = False
        self._requested = generation.choices
        self._finished: set[int] = set()

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
        if (error := error_of(answer, event.type)) is not None:
            return severity(judged(error))
        signal = _output_if(_has_more_than(_BOOKKEEPING, answer))
        candidates = answer.get("candidates") or []
        for candidate in candidates if isinstance(candidates, list) else [None]:
            signal |= self._candidate(candidate)
        if reason := reason_of(mapping(answer.get("promptFeedback")).get("blockReason")):
            self.finish_reason = reason
            signal |= Signal.SETTLES
        return signal & Signal.ERROR or signal

    def _candidate(self, candidate: object) -> Signal:
        if not isinstance(candidate, dict):
            return Signal.OUTPUT
        index = count(candidate.get("index")) or 0
        signal = _output_if(_has_more_than(_BESIDE_CONTENT, candidate))
        self._note_tools(mapping(candidate.get("content")).get("parts"))
        if said := _output_of(candidate.get("content")):
            signal |= said | (Signal.REOPENS if index in self._finished else Signal.SILENT)
            self._finished.discard(index)
        if reason := reason_of(candidate.get("finishReason")):
            signal |= self._finish(index, reason)
        return signal

    def _note_tools(self, parts: object) -> None:
        """Note whether the server runs code: from ``executableCode`` to ``codeExecutionResult``."""
        for part in parts if isinstance(parts, list) else []:
            if "executableCode" in mapping(part):
                self.runs_tool = True
            elif "codeExecutionResult" in mapping(part):
                self.runs_tool = False

    def _finish(self, index: int, reason: str) -> Signal:
        if finish_meaning(FINISH_REASONS, reason) is FinishMeaning.FAILED:
            return Signal.TRANSIENT_ERROR
        self._finished.add(index)
        if index == 0:
            self.finish_reason = reason
        settles = len(self._finished) >= self._requested
        return Signal.SETTLES if settles else Signal.FINISHES


_BOOKKEEPING = frozenset(
    {"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime", "modelStatus"}
)
"""Fields of a response that are not part of the answer; any other is unknown and counts as output."""

_BESIDE_CONTENT = frozenset(
    {"content", "finishReason", "finishMessage", "index", "safetyRatings", "tokenCount", "avgLogprobs"}
)
"""Fields of a candidate that are not part of the answer. Grounding and citations are: they name what was found."""


def _output_if(produced: bool) -> Signal:
    return Signal.OUTPUT if produced else Signal.SILENT


def _has_more_than(known: frozenset[str], answer: Mapping[str, Any]) -> bool:
    return any(filled(value) for name, value in answer.items() if name not in known)


def reason_of(value: object) -> str:
    """Return a finish reason or block reason, ``""`` if none was given."""
    reason = finish_reason(value)
    return "" if reason in _UNSPECIFIED else reason


def _output_of(content: object) -> Signal:
    """Return what content brings besides a role."""
    if not isinstance(content, dict):
        return _output_if(filled(content))
    parts = content.get("parts")
    if not isinstance(parts, list):
        return _output_if(_has_more_than(frozenset({"role"}), content))
    signal = _output_if(_has_more_than(frozenset({"role", "parts"}), content))
    for part in parts:
        signal |= _output_of_part(part)
    return signal


def _output_of_part(part: object) -> Signal:
    """Return what a part brings. One that is only marked as a thought is empty, one with only a signature reasoning."""
    if not isinstance(part, dict):
        return _output_if(filled(part))
    if not _has_more_than(frozenset({"thought"}), part):
        return Signal.SILENT
    thought = {"thought", "thoughtSignature", *(("text",) if part.get("thought") is True else ())}
    return Signal.OUTPUT if _has_more_than(frozenset(thought), part) else Signal.REASONING
