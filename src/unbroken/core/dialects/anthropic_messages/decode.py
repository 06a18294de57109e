"""The events of a message as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning, finish_meaning, finish_reason
from unbroken.core.dialects.anthropic_messages.blocks import ContentBlock
from unbroken.core.dialects.anthropic_messages.errors import error_of, judged
from unbroken.core.dialects.anthropic_messages.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.anthropic_messages.plain import KIND, plain_delta
from unbroken.core.dialects.anthropic_messages.rule import event_kind
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import failing_reason, parsed
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.events import Finish, TypedEvent, Usage, UsageReport
from unbroken.core.payload import count, dicts, is_done, mapping
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent


class MessagesDecoder(PlainFirstDecoder):
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._blocks: dict[int, ContentBlock] = {}
        self._counts: dict[str, int] = {}

    def decode_plain(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_plain`."""
        if event.type not in (KIND, "message") or not (plain := plain_delta(event.data)):
            return ()
        return [self._block(plain.index).add_text(plain.delta.text)]

    def decode_full(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_full`."""
        data = event.data.strip()
        if event.is_keepalive or event.type == "ping" or is_done(data):
            return ()
        answer = parsed(data, event.type)
        return list(self._events(answer, event_kind(answer, event.type))) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = parsed(body)
        except MalformedEvent:
            return ()
        if not isinstance(answer, dict):
            return ()
        if (error := error_of(answer)) is not None:
            return [judged(error)]
        return list(self._whole(answer)) if isinstance(answer.get("content"), list) else ()

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """See :meth:`unbroken.core.dialect.EventDecoder.messages`."""
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        whole = answer.completes_calls()
        content = [block.content for block in blocks if block.is_worth_keeping and (whole or not block.is_call)]
        return [{"role": "assistant", "content": content}] if content else []

    def _events(self, answer: Mapping[str, Any], kind: str) -> Iterator[TypedEvent]:
        index = count(answer.get("index")) or 0
        match kind:
            case "message_start":
                message = mapping(answer.get("message"))
                yield from self._content(message.get("content"))
                yield from self._count(message.get("usage"))
            case "content_block_start":
                yield from self._start(index, mapping(answer.get("content_block")))
            case "content_block_delta":
                yield from self._block(index).add(mapping(answer.get("delta")))
            case "content_block_stop":
                yield from self._block(index).close()
            case "message_delta":
                yield from self._count(answer.get("usage"))  # before an end that is a failure
                yield from self._end(mapping(answer.get("delta")).get("stop_reason"))
            case "error":
                yield judged(error_of(answer, "error") or {})

    def _whole(self, message: Mapping[str, Any]) -> Iterator[TypedEvent]:
        yield from self._content(message.get("content"))
        yield from self._end(message.get("stop_reason"))
        yield from self._count(message.get("usage"))

    def _content(self, blocks: object) -> Iterator[TypedEvent]:
        """Yield the events of complete blocks: those of a whole answer. A stream mostly begins without any."""
        for index, block in enumerate(dicts(blocks)):
            yield from self._start(index, block)
            yield from self._block(index).close()

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[TypedEvent]:
        self._blocks[index] = ContentBlock(index, dict(block))
        yield from self._blocks[index].begin()

    def _block(self, index: int) -> ContentBlock:
        """Return the block at an index; create it if the server did not start it."""
        if (block := self._blocks.get(index)) is None:
            block = self._blocks[index] = ContentBlock(index, {})
        return block

    def _end(self, reason: object) -> Iterator[TypedEvent]:
        if not (name := finish_reason(reason)):
            return
        if finish_meaning(FINISH_REASONS, name) is FinishMeaning.FAILED:
            yield failed(failing_reason(name))
        else:
            yield Finish(name)

    def _count(self, usage: object) -> Iterator[TypedEvent]:
        """Yield the usage. Counts are totals; a count that is not sent again keeps its value."""
        details = mapping(usage).get("output_tokens_details")
        said = mapping(usage) | {"thinking_tokens": mapping(details).get("thinking_tokens")}
        now = {name: value for name in _COUNTED if (value := count(said.get(name))) is not None}
        if now:
            self._counts |= now
            yield UsageReport(_usage(self._counts))


_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_COUNTED = (*_INPUT, "output_tokens", "thinking_tokens")


def _usage(counts: Mapping[str, int]) -> Usage:
    """Convert the counts. Anthropic counts cache reads and cache writes separately from the rest of the input."""
    return Usage(
        input_tokens=sum(counts.get(name, 0) for name in _INPUT) if not counts.keys().isdisjoint(_INPUT) else None,
        cached_tokens=counts.get("cache_read_input_tokens"),
        output_tokens=counts.get("output_tokens"),
        reasoning_tokens=counts.get("thinking_tokens"),
    )
