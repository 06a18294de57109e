"""The events of a stream of content as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning, finish_meaning
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import failing_reason, parsed
from unbroken.core.dialects.common.usage import reported
from unbroken.core.dialects.gemini.errors import error_of, judged
from unbroken.core.dialects.gemini.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.gemini.parts import Parts
from unbroken.core.dialects.gemini.rule import reason_of
from unbroken.core.events import Failed, Finish, TypedEvent, Usage
from unbroken.core.payload import count, dicts, is_done, mapping
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class GeminiDecoder:
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._candidates: dict[int, Parts] = {}

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if event.is_keepalive or is_done(data):
            return ()
        answer = parsed(data, event.type)
        return list(self._events(answer, event.type)) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = parsed(body)
        except MalformedEvent:
            return ()
        return list(self._events(answer, "message")) if isinstance(answer, dict) else ()

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """See :meth:`unbroken.core.dialect.EventDecoder.messages`. Uses the first candidate."""
        kept = self._candidates[0].kept if 0 in self._candidates else []
        parts = [part for part in kept if "functionCall" not in part or answer.completes_calls()]
        return [{"role": "model", "parts": parts}] if parts else []

    def _events(self, answer: Mapping[str, Any], event_type: str) -> Iterator[TypedEvent]:
        said = [event for candidate in dicts(answer.get("candidates")) for event in self._candidate(candidate)]
        failures = [event for event in said if isinstance(event, Failed)]
        yield from (event for event in said if event not in failures)
        if reason := reason_of(mapping(answer.get("promptFeedback")).get("blockReason")):
            yield Finish(reason)
        yield from reported(_usage(mapping(answer.get("usageMetadata"))))
        yield from failures  # an error is the last that is read
        if (error := error_of(answer, event_type)) is not None:
            yield judged(error)

    def _candidate(self, candidate: Mapping[str, Any]) -> Iterator[TypedEvent]:
        index = count(candidate.get("index")) or 0
        parts = self._candidates.setdefault(index, Parts(index))
        for part in dicts(mapping(candidate.get("content")).get("parts")):
            yield from parts.add(part)
        if reason := reason_of(candidate.get("finishReason")):
            is_failure = finish_meaning(FINISH_REASONS, reason) is FinishMeaning.FAILED
            yield failed(failing_reason(reason)) if is_failure else Finish(reason, index)


def _usage(counts: Mapping[str, Any]) -> Usage:
    """Convert the counts. Google counts thoughts separately from the candidates, tool results from the prompt."""
    thoughts = count(counts.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=_sum(counts, "promptTokenCount", "toolUsePromptTokenCount"),
        cached_tokens=count(counts.get("cachedContentTokenCount")),
        output_tokens=_sum(counts, "candidatesTokenCount", "thoughtsTokenCount"),
        reasoning_tokens=thoughts,
    )


def _sum(counts: Mapping[str, Any], *names: str) -> int | None:
    said = [value for name in names if (value := count(counts.get(name))) is not None]
    return sum(said) if said else None
