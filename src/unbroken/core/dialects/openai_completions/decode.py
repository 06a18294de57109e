"""The events of a legacy completion as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import finish_reason
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, error_of_choice, parsed
from unbroken.core.dialects.common.usage import reported, usage_of
from unbroken.core.dialects.openai_completions.finish_reasons import FINISH_REASONS
from unbroken.core.events import Finish, Reasoning, Text, TypedEvent, Usage
from unbroken.core.payload import count, dicts, is_done, mapping, text
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class CompletionsDecoder:
    """A decoder of one attempt's events."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if event.is_keepalive or event.type == "ping" or is_done(data):
            return ()
        return list(_events(mapping(parsed(data, event.type)), event.type))

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            return list(_events(mapping(parsed(body))))
        except MalformedEvent:
            return ()

    def messages(self, answer: Answer) -> list[dict[str, Any]]:  # noqa: ARG002 - there is no conversation
        """Return an empty list: this dialect has no conversation."""
        return []


def _events(chunk: Mapping[str, Any], event_type: str = "message") -> Iterator[TypedEvent]:
    error = error_of(chunk, event_type)
    for choice in dicts(chunk.get("choices")):
        index = count(choice.get("index")) or 0
        said = {**choice, **mapping(choice.get("message")), **mapping(choice.get("delta"))}
        if words := text(said.get("reasoning")) or text(said.get("reasoning_content")):
            yield Reasoning(words, index)
        if words := text(said.get("text")) or text(said.get("content")):
            yield Text(words, index)
        error = error_of_choice(choice, FINISH_REASONS) if error is None else error
        if error is None and (reason := finish_reason(choice.get("finish_reason"))):
            yield Finish(reason, index)
    yield from reported(_usage(mapping(chunk.get("usage"))))
    if error is not None:
        yield failed(error)


def _usage(fields: Mapping[str, Any]) -> Usage:
    """Convert OpenAI's counts, or DeepSeek's (``prompt_cache_hit_tokens``)."""
    hits = count(fields.get("prompt_cache_hit_tokens"))
    cached = count(mapping(fields.get("prompt_tokens_details")).get("cached_tokens"))
    return usage_of(
        prompt=count(fields.get("prompt_tokens")),
        completion=count(fields.get("completion_tokens")),
        total=count(fields.get("total_tokens")),
        cached=cached if hits is None else hits,
        reasoning=count(mapping(fields.get("completion_tokens_details")).get("reasoning_tokens")),
    )
