"""The events of a stream of content as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning, finish_meaning
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import failing_reason, parsed
from unbroken.core.dialects.common.google import judged
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.dialects.common.usage import reported
from unbroken.core.dialects.gemini.errors import error_of
from unbroken.core.dialects.gemini.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.gemini.parts import Parts
from unbroken.core.dialects.gemini.plain import TokenCounts, plain_response
from unbroken.core.dialects.gemini.rule import reason_of
from unbroken.core.events import Failed, Finish, TypedEvent, Usage
from unbroken.core.payload import count, dicts, is_done, mapping
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class GeminiDecoder(PlainFirstDecoder):
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._candidates: dict[int, Parts] = {}

    def decode_plain(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_plain`."""
        if event.type != "message" or not (plain := plain_response(event.data)):
            return ()
        candidate = plain.candidates[0]
        said = self._parts(candidate.index).add_text(candidate.content.parts[0].text)
        return [said, *reported(_usage(plain.usage))] if plain.usage else [said]

    def decode_full(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_full`."""
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

    def _parts(self, index: int) -> Parts:
        if (parts := self._candidates.get(index)) is None:
            parts = self._candidates[index] = Parts(index)
        return parts

    def _events(self, answer: Mapping[str, Any], event_type: str) -> Iterator[TypedEvent]:
        said = [event for candidate in dicts(answer.get("candidates")) for event in self._candidate(candidate)]
        failures = [event for event in said if isinstance(event, Failed)]
        yield from (event for event in said if event not in failures)
        if reason := reason_of(mapping(answer.get("promptFeedback")).get("blockReason")):
            yield Finish(reason)
        yield from reported(_usage(_counts(mapping(answer.get("usageMetadata")))))
        yield from failures  # an error is the last that is read
        if (error := error_of(answer, event_type)) is not None:
            yield judged(error)

    def _candidate(self, candidate: Mapping[str, Any]) -> Iterator[TypedEvent]:
        index = count(candidate.get("index")) or 0
        parts = self._parts(index)
        for part in dicts(mapping(candidate.get("content")).get("parts")):
            yield from parts.add(part)
        if reason := reason_of(candidate.get("finishReason")):
            is_failure = finish_meaning(FINISH_REASONS, reason) is FinishMeaning.FAILED
            yield failed(failing_reason(reason)) if is_failure else Finish(reason, index)


def _counts(fields: Mapping[str, Any]) -> TokenCounts:
    """Read the counts one by one; one that is no count is ignored."""
    names = zip(TokenCounts.__struct_fields__, TokenCounts.__struct_encode_fields__, strict=True)
    return TokenCounts(**{name: count(fields.get(field)) for name, field in names})


def _usage(counts: TokenCounts) -> Usage:
    """Convert the counts. Google counts thoughts separately from the candidates, tool results from the prompt."""
    return Usage(
        input_tokens=_sum(counts.prompt_token_count, counts.tool_use_prompt_token_count),
        cached_tokens=counts.cached_content_token_count,
        output_tokens=_sum(counts.candidates_token_count, counts.thoughts_token_count),
        reasoning_tokens=counts.thoughts_token_count,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)
