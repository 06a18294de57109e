"""The events of a response as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialect import FinishMeaning, finish_meaning
from unbroken.core.dialects.common.error_judgement import failed
from unbroken.core.dialects.common.error_shapes import error_of, parsed
from unbroken.core.dialects.common.plain_first import PlainFirstDecoder
from unbroken.core.dialects.common.usage import reported
from unbroken.core.dialects.openai_responses.errors import (
    ENDINGS,
    Json,
    error_of_event,
    event_kind,
    failure,
    reason_of,
)
from unbroken.core.dialects.openai_responses.finish_reasons import FINISH_REASONS
from unbroken.core.dialects.openai_responses.items import OutputItem, OutputItems
from unbroken.core.dialects.openai_responses.plain import KIND, plain_piece
from unbroken.core.events import Finish, TypedEvent, Usage
from unbroken.core.payload import count, dicts, is_done, mapping, text
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

PIECES: Mapping[str, tuple[str, str, str]] = {
    "response.output_text": ("message", "content", "output_text"),
    "response.content_part": ("message", "content", "output_text"),  # its deltas: OpenRouter's documentation
    "response.refusal": ("message", "content", "refusal"),
    "response.reasoning_text": ("reasoning", "content", "reasoning_text"),
    "response.reasoning_summary_text": ("reasoning", "summary", "summary_text"),
    "response.reasoning_summary_part": ("reasoning", "summary", "summary_text"),
    "response.reasoning": ("reasoning", "content", "reasoning_text"),  # the names of two of the above in 2025
    "response.reasoning_summary": ("reasoning", "summary", "summary_text"),
    "response.function_call_arguments": ("function_call", "arguments", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input", "input"),
}
"""Events with text, without their last part (``.delta``, ``.done``): the item's type, its field, the part's type."""


class ResponsesDecoder(PlainFirstDecoder):
    """A decoder of one attempt's events."""

    def __init__(self) -> None:
        self._items = OutputItems()
        self._finish_reason = ""
        self._spoken: tuple[str, int | None, OutputItem] | None = None  # by the last event, with what it was found by

    def decode_plain(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_plain`."""
        if event.type not in (KIND, "message") or not (plain := plain_piece(event.data)):
            return ()
        name, index, spoken = plain.item_id, plain.output_index, self._spoken
        item = spoken[2] if spoken and spoken[:2] == (name, index) else self._items.of("message", name, index)
        self._spoken = (name, index, item)
        return list(item.say(plain.delta, ("content", plain.content_index), "output_text"))

    def decode_full(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`PlainFirstDecoder.decode_full`."""
        self._spoken = None
        data = event.data.strip()
        if event.is_keepalive or is_done(data):
            return ()
        answer = parsed(data, event.type)
        return list(self._events(event_kind(answer, event), answer)) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = mapping(parsed(body))
        except MalformedEvent:
            return ()
        if answer.get("object") == "response" or "output" in answer:
            return list(self._ending("response.done", answer, failure("response.done", answer)))
        error = error_of(answer)
        return () if error is None else [failed(error)]

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """Return the output items, to append to the next ``input``.

        Reasoning is included with its id and encrypted content, unless no item follows it: OpenAI refuses that
        ("provided without its required following item"). A message that was cut is included as far as it came, without
        its id: the server does not know it as whole.
        """
        whole = answer.completes_calls() or finish_meaning(FINISH_REASONS, self._finish_reason) is FinishMeaning.WHOLE
        items = [item for item in self._items.all if not item.is_call or (whole and item.is_started)]
        has_ended = bool(self._finish_reason)
        done = [item.as_history() for item in items if item.is_done or (has_ended and item.has_said)]
        while done and done[-1].get("type") == "reasoning":
            done.pop()
        cut = "".join(item.text for item in items if item.kind == "message" and not item.is_done)
        return [*done, {"role": "assistant", "content": cut}] if cut and not has_ended else done

    def _events(self, kind: str, answer: Json) -> Iterator[TypedEvent]:
        index = count(answer.get("output_index"))
        error = error_of_event(kind, answer)
        item = mapping(answer.get("item"))
        stem, _, last = kind.rpartition(".")
        if kind in ENDINGS:
            yield from self._ending(kind, mapping(answer.get("response")), error)
        elif error is not None:
            yield failed(error)
        elif kind == "response.output_item.added" and item:
            yield from self._items.announce(item, index).start()
        elif kind == "response.output_item.done" and item:
            finished = self._items.finished(item, index)
            finished.is_done = True
            yield from finished.take(item)
        elif stem in PIECES and last in ("delta", "done"):
            yield from self._piece(stem, last, answer, index)

    def _piece(self, stem: str, last: str, answer: Json, index: int | None) -> Iterator[TypedEvent]:
        """Yield the events of a piece of text, or of a whole text."""
        kind, field, part_kind = PIECES[stem]
        part = mapping(answer.get("part"))
        if stem == "response.content_part" and last == "done":
            part_kind = text(part.get("type")) or part_kind
            kind = "reasoning" if part_kind == "reasoning_text" else kind
        words = _words(answer.get("delta")) if last == "delta" else _whole(answer, part)
        if not words:
            return
        item = self._items.of(kind, text(answer.get("item_id")), index)
        place = (field, count(answer.get("summary_index" if field == "summary" else "content_index")) or 0)
        yield from item.say(words, place, part_kind) if last == "delta" else item.tell(words, place, part_kind)

    def _ending(self, kind: str, response: Json, error: Json | None) -> Iterator[TypedEvent]:
        output = list(dicts(response.get("output")))
        self._items.forget_anonymous(output)
        for item, came in list(self._items.matching(output)):
            yield from item.take(came) if not item.is_adopted else ()
            item.is_done = True
        for item in self._items.all:
            if not item.has_said and not item.is_adopted:
                yield from item.take(item.came)  # what was only announced
            yield from item.close()
        yield from reported(_usage(mapping(response.get("usage"))))
        if error is not None:
            yield failed(error)
            return
        self._finish_reason = reason_of(kind, response)
        yield Finish(self._finish_reason)


def _usage(fields: Json) -> Usage:
    return Usage(
        input_tokens=count(fields.get("input_tokens")),
        cached_tokens=count(mapping(fields.get("input_tokens_details")).get("cached_tokens")),
        output_tokens=count(fields.get("output_tokens")),
        reasoning_tokens=count(mapping(fields.get("output_tokens_details")).get("reasoning_tokens")),
    )


def _words(delta: object) -> str:
    """Return a piece of text, also from an object that holds one."""
    return text(mapping(delta).get("text") or delta)


def _whole(answer: Json, part: Json) -> str:
    """Return the text of a ``.done`` event."""
    fields = ("text", "refusal", "arguments", "input")
    return next((words for place in (answer, part) for name in fields if (words := text(place.get(name)))), "")
