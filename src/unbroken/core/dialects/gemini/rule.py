"""The meaning of a content stream's events to the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unbroken.core.dialect import Generation, Signal
from unbroken.core.dialects.common.errors import parsed
from unbroken.core.dialects.gemini.errors import error_of, judged
from unbroken.core.payload import DONE, count, filled, mapping
from unbroken.core.sse import Event

_UNSPECIFIED = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

# In a JSON string a quotation mark is escaped and a line break too, so these match keys and whole lines, never the
# model's words. (Arguments of a function call are not a string here: one named "error" costs a parse.)
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
NOTABLE = re.compile(
    rb'"(?:(?:finishReason|blockReason)"%(c)s"|(?<!\n  ")error"%(c)s[^n])|event: ?error\n|\[DONE\] *\n' % {b"c": _COLON}
)
"""Skips an ``"error"`` that is indented at a line's start: Google writes some errors as bare JSON over several lines,
outside of any event. Such an error is handed on, and the attempt ends without settling."""


class GeminiReader:
    """A reader of one attempt's events, for their meaning to the rule.

    Args:
        generation: what the request asks for; the attempt settles when each candidate has a finish reason.
    """

    def __init__(self, generation: Generation) -> None:
        self._requested = generation.choices
        self._finished: set[int] = set()
        self._settled = False

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        data = event.data.strip()
        if not data:
            return Signal.SILENT
        if data == DONE:
            return Signal.ENDS
        answer = parsed(data, event.type)
        if not isinstance(answer, dict):
            return Signal.OUTPUT
        if (error := error_of(answer, event.type)) is not None:
            return Signal.TRANSIENT_ERROR if judged(error).transient else Signal.PERMANENT_ERROR
        signal = _output_if(_has_more_than(_BOOKKEEPING, answer))
        candidates = answer.get("candidates") or []
        for candidate in candidates if isinstance(candidates, list) else [None]:
            signal |= self._candidate(candidate)
        return signal | self._settle(names_a_reason(mapping(answer.get("promptFeedback")).get("blockReason")))

    def _candidate(self, candidate: object) -> Signal:
        if not isinstance(candidate, dict):
            return Signal.OUTPUT
        if names_a_reason(candidate.get("finishReason")):
            self._finished.add(count(candidate.get("index")) or 0)
        return _output_if(_has_more_than(_BESIDE_CONTENT, candidate) or _says_something(candidate.get("content")))

    def _settle(self, blocked: bool) -> Signal:
        """Return ``SETTLES`` once, when all candidates have finished or the prompt was refused."""
        if self._settled or not (blocked or len(self._finished) >= self._requested):
            return Signal.SILENT
        self._settled = True
        return Signal.SETTLES


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


def names_a_reason(reason: object) -> bool:
    """Return whether a reason was given."""
    return isinstance(reason, str) and reason not in _UNSPECIFIED


def _says_something(content: object) -> bool:
    """Return whether content has more than a role; a part that is only marked as a thought is empty."""
    if not isinstance(content, dict):
        return filled(content)
    parts = content.get("parts")
    if not isinstance(parts, list):
        return _has_more_than(frozenset({"role"}), content)
    return _has_more_than(frozenset({"role", "parts"}), content) or any(
        _has_more_than(frozenset({"thought"}), part) if isinstance(part, dict) else filled(part) for part in parts
    )
