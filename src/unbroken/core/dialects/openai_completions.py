"""OpenAI's legacy completions: a prompt in, its continuation out.

Sources: OpenAI API reference, "Completions"; vLLM's and DeepSeek's documentation of ``/completions`` (DeepSeek fills in
the middle); Mistral's ``/v1/fim/completions``, whose choices carry a ``delta`` as in a chat; llama.cpp's server, whose
streams are recorded in ``tests/corpora/openai_completions``.

Each of several prompts gets ``n`` choices, numbered in a row; the attempt has settled when each has a finish reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.dialect import Call, is_sdk_retry
from unbroken.core.dialects.openai_choices import ChoicesReader
from unbroken.core.dialects.openai_errors import error_of, error_of_choice, failed, parsed, refused
from unbroken.core.dialects.payload import DONE, count, dicts, filled, json_object, mapping, text
from unbroken.core.events import Failed, Finish, Reasoning, Text, TypedEvent, Usage, UsageReport
from unbroken.core.http import Request
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

# In a JSON string quotation marks and line ends are escaped, so these match the protocol, never the model's words. JSON
# may be broken over several `data` lines. The indexes tell how many choices there are, which matters where more than
# one was asked for.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
_NOTABLE = re.compile(
    rb'"(?:finish_reason"%(c)s"|error"%(c)s[^n\s]|object"%(c)s"error"|detail"%(c)s|index"%(c)s[1-9])'
    rb"|: ?error\n|\[DONE\]\s*\n" % {b"c": _COLON}
)


class OpenAICompletions:
    """The dialect; see :class:`unbroken.core.dialect.Dialect`."""

    name = "openai-completions"
    notable = _NOTABLE

    def serves(self, path: str) -> bool:
        """See :class:`unbroken.core.dialect.Dialect`. At the root llama.cpp has another format of its own."""
        path = path.rstrip("/")
        return path.endswith("/completions") and not path.endswith("/chat/completions") and path != "/completions"

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../completions`` that is no chat, with a JSON object that asks a model."""
        if request.method != "POST" or not self.serves(request.path):
            return None
        body = json_object(request.body)
        if body is None or body.keys().isdisjoint({"model", "prompt"}):
            return None
        return Call(
            self,
            streaming=body.get("stream") is True,
            choices=_choices(body),
            single_attempt=is_sdk_retry(request),
        )

    def reader(self, call: Call) -> CompletionsReader:
        """A fresh reader for one attempt."""
        return CompletionsReader(call.choices)

    def decoder(self) -> CompletionsDecoder:
        """A fresh decoder for one attempt."""
        return CompletionsDecoder()

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says, in OpenAI's shape or near it; any other body is not quoted."""
        return refused(status, body)


OPENAI_COMPLETIONS = OpenAICompletions()


class CompletionsReader(ChoicesReader):
    """What the events of one attempt mean to the rule."""

    def speaks(self, choice: Mapping[str, Any]) -> bool:
        """Any filled field, here or in what some servers nest as in chat, but for the asides."""
        fields = [*choice.items(), *mapping(choice.get("delta")).items(), *mapping(choice.get("message")).items()]
        return filled([value for name, value in fields if name not in _ASIDES])


class CompletionsDecoder:
    """Typed events of one attempt."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE or event.type == "ping":
            return ()
        return list(_events(mapping(parsed(data, event.type)), event.type))

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            return list(_events(mapping(parsed(body))))
        except MalformedEvent:
            return ()

    def messages(self) -> list[dict[str, Any]]:
        """None: this dialect knows no conversation."""
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
        error = error_of_choice(choice) if error is None else error
        if error is None and (reason := text(choice.get("finish_reason"))):
            yield Finish(reason, index)
    if usage := mapping(chunk.get("usage")):
        yield UsageReport(_usage(usage))
    if error is not None:
        yield failed(error)


def _usage(fields: Mapping[str, Any]) -> Usage:
    """OpenAI's counts, or DeepSeek's (``prompt_cache_hit_tokens``)."""
    hits = count(fields.get("prompt_cache_hit_tokens"))
    prompt, total = count(fields.get("prompt_tokens")), count(fields.get("total_tokens"))
    cached = count(mapping(fields.get("prompt_tokens_details")).get("cached_tokens"))
    output = count(fields.get("completion_tokens"))
    return Usage(
        input_tokens=prompt,
        cached_tokens=cached if hits is None else hits,
        output_tokens=output if prompt is None or total is None else total - prompt,
        reasoning_tokens=count(mapping(fields.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def _choices(body: Mapping[str, Any]) -> int:
    """How many choices a request asks for: ``n`` for each of its prompts."""
    prompts = _prompts(body.get("prompt")) + _prompts(body.get("prompt_embeds"))
    return max(1, prompts) * max(1, count(body.get("n")) or 1)


def _prompts(prompt: object) -> int:
    """How many prompts are in one: several stand in a list, but a list of numbers is one, as tokens."""
    if not isinstance(prompt, list):
        return 0 if prompt is None else 1
    return 1 if any(isinstance(item, int) for item in prompt) else len(prompt)


_ASIDES = frozenset(
    {"index", "role", "delta", "message", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop"}
    | {"content_filter_results", "content_filter_offsets"}
)
"""Fields of a choice that are not what the model produced."""
