"""Anthropic's messages, as Anthropic and those who imitate it really speak them.

Sources: Anthropic API docs, "Streaming messages" (event flow, ping, error events, unknown event types), "Extended
thinking", "Fine-grained tool streaming" (input that is no JSON), "Errors"; the types of the ``anthropic`` SDK 2.12;
the path on Vertex AI is that of the SDK's Vertex client; llama.cpp's server and vLLM, see
``tests/corpora/anthropic_messages``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unbroken.core.dialect import Call, Signal, is_sdk_retry
from unbroken.core.dialects.anthropic_blocks import Block
from unbroken.core.dialects.openai_errors import FAILED_FINISHES, failed, parsed
from unbroken.core.dialects.payload import DONE, count, dicts, filled, json_object, mapping, only_object, text
from unbroken.core.events import Failed, Finish, TypedEvent, Usage, UsageReport
from unbroken.core.http import Request
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

_PATH = re.compile(
    r"/messages/*\Z|/publishers/anthropic/models/(?!count-tokens:)[^/:]+:(?:rawPredict|streamRawPredict)\Z"
)

_KINDS = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop"}
    | {"message_delta", "message_stop", "ping", "error"}
)

_ACTING_TOOLS = ("code_execution_", "mcp_toolset")
"""Beginnings of the types of server tools that act. Computer, browser, bash and memory tools run at the client."""

# In a JSON string a quotation mark is escaped and a line break too, so these match keys and whole lines, never the
# model's words. JSON may be broken over several `data` lines.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
_NOTABLE = re.compile(
    rb'"(?:stop_reason"%(c)s"|type"%(c)s"(?:message_stop|error)"|error"%(c)s[^n])'
    rb"|event: ?(?:message_stop|error)\n|\[DONE\] *\n" % {b"c": _COLON}
)


class AnthropicMessages:
    """The dialect; see :class:`unbroken.core.dialect.Dialect`."""

    name = "anthropic-messages"
    notable = _NOTABLE

    def serves(self, path: str) -> bool:
        """See :class:`unbroken.core.dialect.Dialect`."""
        return _PATH.search(path) is not None

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../messages``, or to Vertex's path for Claude, with a list of messages in its body.

        Other services have a path that ends so (OpenAI's threads, chat rooms); they do not send a list of messages.
        """
        if request.method != "POST" or not self.serves(request.path):
            return None
        body = json_object(request.body)
        if body is None or not isinstance(body.get("messages"), list):
            return None
        return Call(self, streaming=body.get("stream") is True, acts=_acts(body), single_attempt=is_sdk_retry(request))

    def reader(self, call: Call) -> MessagesReader:  # noqa: ARG002 - there is only ever one choice
        """A fresh reader for one attempt."""
        return MessagesReader()

    def decoder(self) -> MessagesDecoder:
        """A fresh decoder for one attempt."""
        return MessagesDecoder()

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says, in Anthropic's shape or near it; any other body is not quoted."""
        error = only_object(body).get("error")
        return judged(error if isinstance(error, Mapping) else {}, status)


ANTHROPIC_MESSAGES = AnthropicMessages()


# Errors

_TRANSIENT = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
_SPENT = re.compile(r"spend_limit_reached|billing_unavailable")
_SPENT_WORDS = re.compile(r"credit balance is too low", re.I)


def judged(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """An error in the project's words.

    A status counts for more than a type: where there is none, Anthropic's types speak. Those who imitate Anthropic
    often report errors as OpenAI does (llama.cpp), so what is not Anthropic's is judged like OpenAI's.
    """
    said = failed(error, status)
    code = text(mapping(error.get("details")).get("error_code"))
    if said.kind == "billing_error" or _SPENT.search(code) or _SPENT_WORDS.search(said.message):
        return Failed(said.message, said.kind, transient=False)
    if status is None and said.kind in _TRANSIENT:
        return Failed(said.message, said.kind, transient=True)
    return said


def _error_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The error of an event that is known to be one: nested, flat, or a bare string."""
    error = answer.get("error")
    if isinstance(error, Mapping):
        return error
    return {"message": text(error)} if error else answer


def _kind(answer: Mapping[str, Any], event_type: str) -> str:
    """What an event is: the JSON says so; where it does not, or names nothing known, the ``event`` field does."""
    kind = text(answer.get("type"))
    if kind in _KINDS:
        return kind
    if event_type in _KINDS:  # llama.cpp writes `event: error` over {"type": "server_error", ...}
        return event_type
    return "error" if filled(answer.get("error")) else kind


# The rule


class MessagesReader:
    """What the events of one attempt mean to the rule."""

    def __init__(self) -> None:
        self._settled = False

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        data = event.data.strip()
        if not data or event.type == "ping":
            return Signal.SILENT
        if data == DONE:
            return Signal.ENDS
        answer = parsed(data, event.type)
        if not isinstance(answer, dict):
            return Signal.OUTPUT
        match _kind(answer, event.type):
            case "ping" | "content_block_stop":
                return Signal.SILENT
            case "message_start":
                return _output_if(filled(mapping(answer.get("message")).get("content")))
            case "content_block_start":
                return _output_if(_starts_with_something(answer.get("content_block")))
            case "content_block_delta":
                return _output_if(_adds_something(answer.get("delta")))
            case "message_delta":
                return self._message_delta(answer.get("delta"))
            case "message_stop":
                return Signal.ENDS
            case "error":
                return _severity(judged(_error_of(answer)))
        return Signal.OUTPUT

    def _message_delta(self, delta: object) -> Signal:
        if not isinstance(delta, dict):
            return _output_if(filled(delta))
        reason = text(delta.get("stop_reason"))
        if reason in FAILED_FINISHES:
            return Signal.TRANSIENT_ERROR
        signal = _output_if(any(filled(value) for name, value in delta.items() if name not in _ENDING))
        if reason and not self._settled:
            self._settled = True
            signal |= Signal.SETTLES
        return signal


_ENDING = frozenset({"stop_reason", "stop_sequence", "stop_details"})
"""What says how a message ended; anything else in its delta was produced."""


def _output_if(produced: bool) -> Signal:
    return Signal.OUTPUT if produced else Signal.SILENT


def _starts_with_something(block: object) -> bool:
    """An empty text or thinking block is an announcement; any other block is itself a product of the model."""
    if not isinstance(block, dict) or block.get("type") not in ("text", "thinking"):
        return True
    return _adds_something(block)


def _adds_something(delta: object) -> bool:
    if not isinstance(delta, dict):
        return True
    return any(filled(value) for name, value in delta.items() if name != "type")


def _severity(error: Failed) -> Signal:
    return Signal.TRANSIENT_ERROR if error.transient else Signal.PERMANENT_ERROR


def _acts(body: Mapping[str, Any]) -> bool:
    """Whether the server acts on the world for this call, or keeps something of it (a container, a thread)."""
    if any(filled(body.get(name)) for name in ("mcp_servers", "container", "thread")):
        return True
    return any(text(tool.get("type")).startswith(_ACTING_TOOLS) for tool in dicts(body.get("tools")))


# The typed client


class MessagesDecoder:
    """Typed events of one attempt."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._counts: dict[str, int] = {}

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE or event.type == "ping":
            return ()
        answer = parsed(data, event.type)
        return list(self._events(answer, _kind(answer, event.type))) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = parsed(body)
        except MalformedEvent:
            return ()
        if not isinstance(answer, dict):
            return ()
        if filled(answer.get("error")):
            return [judged(_error_of(answer))]
        return list(self._whole(answer)) if isinstance(answer.get("content"), list) else ()

    def messages(self) -> list[dict[str, Any]]:
        """See :meth:`unbroken.core.dialect.EventDecoder.messages`."""
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        content = [block.content for block in blocks if block.is_worth_keeping]
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
                yield from self._end(mapping(answer.get("delta")).get("stop_reason"))
                yield from self._count(answer.get("usage"))
            case "error":
                yield judged(_error_of(answer))

    def _whole(self, message: Mapping[str, Any]) -> Iterator[TypedEvent]:
        yield from self._content(message.get("content"))
        yield from self._end(message.get("stop_reason"))
        yield from self._count(message.get("usage"))

    def _content(self, blocks: object) -> Iterator[TypedEvent]:
        """Blocks that come whole: those of a whole answer. A stream begins with none, mostly."""
        for index, block in enumerate(dicts(blocks)):
            yield from self._start(index, block)
            yield from self._block(index).close()

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[TypedEvent]:
        self._blocks[index] = Block(index, dict(block))
        yield from self._blocks[index].begin()

    def _block(self, index: int) -> Block:
        """The block that something is added to; some servers start none."""
        return self._blocks.setdefault(index, Block(index, {}))

    def _end(self, reason: object) -> Iterator[TypedEvent]:
        if not isinstance(reason, str) or not reason:
            return
        if reason in FAILED_FINISHES:
            yield Failed(f"the provider ended the answer with {reason}", reason, transient=True)
        else:
            yield Finish(reason)

    def _count(self, usage: object) -> Iterator[TypedEvent]:
        """Counts are totals, and what is not said again stays as it was said first."""
        details = mapping(usage).get("output_tokens_details")
        said = mapping(usage) | {"thinking_tokens": mapping(details).get("thinking_tokens")}
        now = {name: value for name in _COUNTED if (value := count(said.get(name))) is not None}
        if now:
            self._counts |= now
            yield UsageReport(_usage(self._counts))


_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_COUNTED = (*_INPUT, "output_tokens", "thinking_tokens")


def _usage(counts: Mapping[str, int]) -> Usage:
    """Anthropic counts what the cache gave and took apart from the rest of the input."""
    return Usage(
        input_tokens=sum(counts.get(name, 0) for name in _INPUT) if not counts.keys().isdisjoint(_INPUT) else None,
        cached_tokens=counts.get("cache_read_input_tokens"),
        output_tokens=counts.get("output_tokens"),
        reasoning_tokens=counts.get("thinking_tokens"),
    )
