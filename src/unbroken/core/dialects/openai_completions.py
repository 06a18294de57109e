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

import msgspec

from unbroken.core.dialect import Call, Signal, is_sdk_retry
from unbroken.core.dialects.openai_errors import UNREADABLE, error_of, error_of_choice, failed, parsed, severity
from unbroken.core.dialects.payload import count, dicts, filled, mapping, text
from unbroken.core.events import Failed, Finish, Reasoning, Text, TypedEvent, Usage, UsageReport
from unbroken.core.http import Request
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

DONE = b"[DONE]"

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

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../completions`` that is no chat. At the root llama.cpp has another format of its own."""
        path = request.path.rstrip("/")
        ours = path.endswith("/completions") and not path.endswith("/chat/completions") and path != "/completions"
        if request.method != "POST" or not ours:
            return None
        try:
            body = msgspec.json.decode(request.body)
        except UNREADABLE:
            return None
        if not isinstance(body, dict) or body.keys().isdisjoint({"model", "prompt"}):
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
        try:
            answer = mapping(msgspec.json.decode(body))
        except UNREADABLE:
            answer = {}
        return failed(error_of(answer) or {}, status)


OPENAI_COMPLETIONS = OpenAICompletions()


class CompletionsReader:
    """What the events of one attempt mean to the rule.

    Args:
        choices: how many choices the request asked for; the attempt has settled when each has a finish reason.
    """

    def __init__(self, choices: int = 1) -> None:
        self._asked = choices
        self._begun = 0
        self._finished: set[int] = set()
        self._settled = False

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.Reader.read`."""
        data = event.data.strip()
        if not data or event.type == "ping":
            return Signal.SILENT
        if data == DONE:
            return Signal.ENDS | self._settle(self._begun)  # some servers ignore how many choices were asked for
        chunk = parsed(data, event.type)
        if not isinstance(chunk, dict):
            return Signal.SILENT if chunk is None else Signal.OUTPUT  # llama.cpp begins several prompts with a null
        if (error := error_of(chunk, event.type)) is not None:
            return severity(error)
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            return Signal.OUTPUT
        signal = Signal.SILENT if choices or chunk.keys() <= _BOOKKEEPING else Signal.OUTPUT
        for choice in choices:
            signal |= self._choice(choice)
        return signal & Signal.ERROR or signal

    def _choice(self, choice: object) -> Signal:
        if not isinstance(choice, dict):
            return Signal.OUTPUT
        if (error := error_of_choice(choice)) is not None:
            return severity(error)
        index = count(choice.get("index")) or 0
        self._begun = max(self._begun, index + 1)
        if text(choice.get("finish_reason")):
            self._finished.add(index)
        return (Signal.OUTPUT if _speaks(choice) else Signal.SILENT) | self._settle(self._asked)

    def _settle(self, choices: int) -> Signal:
        """The one event with which the last of the choices has finished."""
        if self._settled or not self._finished or len(self._finished) < choices:
            return Signal.SILENT
        self._settled = True
        return Signal.SETTLES


class CompletionsDecoder:
    """Typed events of one attempt."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.Decoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE or event.type == "ping":
            return ()
        return list(_events(mapping(parsed(data, event.type)), event.type))

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.Decoder.decode_whole`."""
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
        input=prompt,
        cached=cached if hits is None else hits,
        output=output if prompt is None or total is None else total - prompt,
        reasoning=count(mapping(fields.get("completion_tokens_details")).get("reasoning_tokens")),
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


def _speaks(choice: Mapping[str, Any]) -> bool:
    """Whether a choice carries anything that the model produced."""
    fields = [*choice.items(), *mapping(choice.get("delta")).items(), *mapping(choice.get("message")).items()]
    return filled([value for name, value in fields if name not in _ASIDES])


_ASIDES = frozenset(
    {"index", "role", "delta", "message", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop"}
    | {"content_filter_results", "content_filter_offsets"}
)
"""Fields of a choice that are not what the model produced."""

_BOOKKEEPING = frozenset(
    {"id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "timings", "provider"}
    | {"prompt_filter_results", "prompt_progress", "obfuscation", "choices"}
)
"""Fields of a chunk without choices that say nothing of the answer; any other makes it unknown, hence output."""
