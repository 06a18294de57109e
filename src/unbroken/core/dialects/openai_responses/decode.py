"""The events of a response as typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.answer import Answer
from unbroken.core.dialects.common.errors import error_of, failed, parsed
from unbroken.core.dialects.openai_responses.errors import ENDINGS, Json, error_in, event_kind, failure, status_of
from unbroken.core.dialects.openai_responses.tool_calls import ResponseToolCalls, is_call
from unbroken.core.events import Finish, Reasoning, Refusal, Signature, Text, TypedEvent, Usage, UsageReport
from unbroken.core.payload import DONE, count, dicts, mapping, text
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

DELTAS: Mapping[str, type[Text | Reasoning | Refusal]] = {
    "response.output_text.delta": Text,
    "response.content_part.delta": Text,  # OpenRouter's documentation
    "response.refusal.delta": Refusal,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,  # the names of the two above in 2025
    "response.reasoning_summary.delta": Reasoning,
}
"""Events with a piece of text, and the typed event of each."""

ARGUMENT_DELTAS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})


class ResponsesDecoder:
    """A decoder of one attempt's events.

    Servers identify items in different ways: GitHub Copilot changes their ids between events, llama.cpp sends no
    indexes, vLLM has sent wrong ones. So an item is found by either, and the text of a finished item is used only if
    none of it came in pieces.
    """

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._unfinished: list[str] = []
        self._said: set[tuple[type, str | int | None]] = set()
        self._calls = ResponseToolCalls()

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE:
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

    def messages(self, answer: Answer) -> list[dict[str, Any]]:  # noqa: ARG002 - items come whole
        """Return the output items as they came, to append to the next ``input``.

        Reasoning is included with its id and encrypted content, unless no item follows it: OpenAI refuses that
        ("provided without its required following item"). A message that was cut is included as far as it came.
        """
        items = [item for item in self._items if not (is_call(item) and item.get("status") == "incomplete")]
        while items and items[-1].get("type") == "reasoning":
            items.pop()
        if self._unfinished:
            items.append({"role": "assistant", "content": "".join(self._unfinished)})
        return items

    def _events(self, kind: str, answer: Json) -> Iterator[TypedEvent]:
        index = count(answer.get("output_index"))
        error = error_in(kind, answer)
        if kind in ENDINGS:
            yield from self._ending(kind, mapping(answer.get("response")), error)
        elif error is not None:
            yield failed(error)
        elif words := _words(answer.get("delta")):
            if sort := DELTAS.get(kind):
                yield self._say(sort(words), text(answer.get("item_id")), index)
            elif kind in ARGUMENT_DELTAS:
                yield from self._calls.argue(words, text(answer.get("item_id")), index)
        elif item := mapping(answer.get("item")):
            if kind == "response.output_item.done":
                yield from self._finish(item, index)
            elif kind == "response.output_item.added" and is_call(item):
                yield from self._calls.begin(item, index)

    def _say(self, event: Text | Reasoning | Refusal, item_id: str, index: int | None) -> TypedEvent:
        sort = type(event)
        self._said |= {(sort, item_id), (sort, index), (sort, None)}
        if sort is Text:
            self._unfinished.append(event.text)
        return event

    def _finish(self, item: dict[str, Any], index: int | None) -> Iterator[TypedEvent]:
        """Take a finished item. In ``_said``, ``None`` stands for the item that is running."""
        self._items.append(item)
        if is_call(item):
            yield from self._calls.finish(item, index)
        for event in _contents(item):
            sort = type(event)
            if self._said.isdisjoint({(sort, text(item.get("id"))), (sort, index), (sort, None)}):
                yield event
        self._said -= {(Text, None), (Reasoning, None), (Refusal, None)}
        if item.get("type", "message") == "message":
            self._unfinished.clear()

    def _ending(self, kind: str, response: Json, error: Json | None) -> Iterator[TypedEvent]:
        output = list(dicts(response.get("output")))
        if not self._items:
            said = {sort for sort, _ in self._said}
            for index, item in enumerate(output):
                yield from (event for event in self._finish(item, index) if type(event) not in said)
        self._items = output or self._items
        if usage := mapping(response.get("usage")):
            yield UsageReport(_usage(usage))
        if error is not None:
            yield failed(error)
        else:
            reason = text(mapping(response.get("incomplete_details")).get("reason"))
            yield Finish(reason or status_of(kind, response))


def _contents(item: Json) -> Iterator[Text | Reasoning | Refusal | Signature]:
    """Yield the events of a finished message or reasoning."""
    kind = item.get("type", "message")  # xAI has omitted it
    if kind == "message":
        for part in dicts(item.get("content")):
            if words := text(part.get("text")):
                yield Text(words)
            if words := text(part.get("refusal")):
                yield Refusal(words)
    elif kind == "reasoning":
        for part in list(dicts(item.get("content"))) or dicts(item.get("summary")):
            if words := text(part.get("text")):
                yield Reasoning(words)
        if signature := text(item.get("encrypted_content")):
            yield Signature(signature)


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
