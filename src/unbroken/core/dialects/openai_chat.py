"""OpenAI's chat completions, as they are really spoken.

Sources: OpenAI API reference, "Chat completions: streaming"; DeepSeek API docs, "Reasoning model" and "Rate limit"
(``: keep-alive`` comments, ``insufficient_system_resource``); OpenRouter docs, "Streaming" (comments while processing,
errors inside the stream, finish reason ``error``); vLLM and llama.cpp's server, whose streams are recorded in
``tests/corpora/openai_chat``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from unbroken.core.dialect import Call, Signal, is_sdk_retry
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Text,
    ToolCallArguments,
    ToolCallStart,
    TypedEvent,
    Usage,
    UsageReport,
)
from unbroken.core.http import Request
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

DONE = b"[DONE]"

FAILED_FINISHES = frozenset({"error", "insufficient_system_resource"})
"""Finish reasons that report a failure of the provider (OpenRouter, DeepSeek), both worth another try."""

EXHAUSTED = frozenset(
    {"insufficient_quota", "insufficient_balance", "billing_hard_limit_reached", "billing_not_active"}
)
"""Error types and codes that mean an exhausted quota or balance, whatever the status."""

_EXHAUSTED_WORDS = re.compile(r"insufficient (balance|quota|credit)|not enough credits", re.I)

_TRANSIENT_KINDS = re.compile(
    r"overloaded|rate.?limit|too.?many.?requests|server.?error|internal|unavailable|timeout|timed.?out|capacity"
    r"|try.?again|bad.?gateway|upstream|engine|provider.?(error|disconnect)",
    re.I,
)
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})


class Function(msgspec.Struct):
    """The function of a tool call's piece."""

    name: str | None = None
    arguments: Any = None


class ToolCallPiece(msgspec.Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    """What one chunk adds to a choice, or the whole message of a non-streaming answer."""

    content: Any = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: Function | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk or of a whole answer."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """OpenAI's breakdown of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """OpenAI's breakdown of the completion's tokens."""

    reasoning_tokens: int | None = None


class UsageFields(msgspec.Struct):
    """Token counts in OpenAI's fields and in DeepSeek's (``prompt_cache_hit_tokens``)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None

    def normalised(self) -> Usage:
        """The same counts in the project's words."""
        details = self.prompt_tokens_details
        cached = self.prompt_cache_hit_tokens
        if cached is None and details is not None:
            cached = details.cached_tokens
        completion = self.completion_tokens_details
        return Usage(
            input=self.prompt_tokens,
            cached=cached,
            output=self.completion_tokens,
            reasoning=completion.reasoning_tokens if completion else None,
        )


class Groq(msgspec.Struct):
    """Groq's extension: it reports usage here in a stream."""

    usage: UsageFields | None = None


class Chunk(msgspec.Struct):
    """One event of the stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: UsageFields | None = None
    error: Any = None
    x_groq: Groq | None = None


_decode_chunk = msgspec.json.Decoder(Chunk, strict=False).decode


class OpenAIChat:
    """The dialect; see :class:`unbroken.core.dialect.Dialect`."""

    name = "openai-chat"
    # In a JSON string a quotation mark is escaped, so these match keys, never the model's words.
    notable = re.compile(
        rb'"finish_reason"\s*:\s*"|\[DONE\]|"error"\s*:\s*[^n\s]|"object"\s*:\s*"error"|"detail"\s*:|event: ?error'
    )

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../chat/completions`` with a JSON object as its body (Azure's deployment paths included)."""
        if request.method != "POST" or not request.path.rstrip("/").endswith("/chat/completions"):
            return None
        try:
            body = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not isinstance(body, dict):
            return None
        n = body.get("n")
        return Call(
            self,
            streaming=body.get("stream") is True,
            choices=n if isinstance(n, int) and n > 0 else 1,
            single_attempt=is_sdk_retry(request),
        )

    def reader(self, call: Call) -> ChatReader:
        """A fresh reader for one attempt."""
        return ChatReader(call.choices)

    def decoder(self) -> ChatDecoder:
        """A fresh decoder for one attempt."""
        return ChatDecoder()

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says, in OpenAI's shape or near it; any other body is not quoted."""
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        error = _error_of(answer) if isinstance(answer, Mapping) else None
        return _failed(error or {}, status)


OPENAI_CHAT = OpenAIChat()


class ChatReader:
    """What the events of one attempt mean to the rule.

    Args:
        choices: how many choices the request asked for; the attempt has settled when each has a finish reason.
    """

    def __init__(self, choices: int = 1) -> None:
        self._asked = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.Reader.read`."""
        data = event.data.strip()
        if not data:
            return Signal.SILENT
        if data == DONE:
            return self._done()
        chunk = _json(data)
        if not isinstance(chunk, dict):
            return Signal.OUTPUT
        if error := _error_of(chunk, event.type):
            return Signal.TRANSIENT_ERROR if _failed(error).transient else Signal.PERMANENT_ERROR
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            return Signal.OUTPUT
        signal = Signal.SILENT if choices or chunk.keys() <= _BOOKKEEPING else Signal.OUTPUT
        for choice in choices:
            signal |= self._choice(choice)
        if signal & Signal.ERROR:
            return signal & Signal.ERROR
        return signal

    def _choice(self, choice: object) -> Signal:
        if not isinstance(choice, dict):
            return Signal.OUTPUT
        signal = Signal.OUTPUT if _speaks(choice) else Signal.SILENT
        index = choice.get("index") or 0
        self._seen.add(index)
        if reason := choice.get("finish_reason"):
            if reason in FAILED_FINISHES:
                return Signal.TRANSIENT_ERROR
            self._finished.add(index)
            if len(self._finished) >= self._asked:
                signal |= Signal.SETTLES
        return signal

    def _done(self) -> Signal:
        """The terminator settles too where every choice that came has finished: some servers ignore ``n``."""
        if self._finished and self._finished == self._seen:
            return Signal.ENDS | Signal.SETTLES
        return Signal.ENDS


class ChatDecoder:
    """Typed events of one attempt."""

    def __init__(self) -> None:
        self._started: set[tuple[int, int]] = set()

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.Decoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE:
            return ()
        chunk = self._chunk(data)
        if chunk.error or event.type == "error":
            raw = _json(data)
            return [_failed(_error_of(raw, event.type) or {})]
        return list(self._events(chunk))

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.Decoder.decode_whole`."""
        try:
            chunk = self._chunk(body)
        except MalformedEvent:
            return ()
        if chunk.error:
            return [_failed(_error_of(_json(body)) or {})]
        return list(self._events(chunk))

    def _chunk(self, data: bytes) -> Chunk:
        try:
            return _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        try:
            return msgspec.convert(_json(data), Chunk, strict=False)
        except msgspec.ValidationError as exc:
            raise MalformedEvent(f"not a chat completion chunk: {exc}") from None

    def _events(self, chunk: Chunk) -> Iterator[TypedEvent]:
        for choice in chunk.choices or ():
            index = choice.index or 0
            if delta := choice.delta or choice.message:
                yield from self._delta(delta, index)
            if choice.finish_reason in FAILED_FINISHES:
                yield Failed(f"the provider ended the answer with {choice.finish_reason}", choice.finish_reason, True)
            elif choice.finish_reason:
                yield Finish(choice.finish_reason, index)
        usage = chunk.usage or (chunk.x_groq and chunk.x_groq.usage)
        if usage:
            yield UsageReport(usage.normalised())

    def _delta(self, delta: Delta, choice: int) -> Iterator[TypedEvent]:
        reasoning = delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else "")
        if reasoning:
            yield Reasoning(reasoning, choice)
        yield from _content(delta.content, choice)
        if delta.refusal:
            yield Refusal(delta.refusal, choice)
        for position, piece in enumerate(delta.tool_calls or ()):
            yield from self._tool_call(piece, position, choice)
        if delta.function_call:
            yield from self._tool_call(ToolCallPiece(0, "", delta.function_call), 0, choice)

    def _tool_call(self, piece: ToolCallPiece, position: int, choice: int) -> Iterator[TypedEvent]:
        index = position if piece.index is None else piece.index
        function = piece.function or Function()
        if (choice, index) not in self._started:
            self._started.add((choice, index))
            yield ToolCallStart(index, piece.id or "", function.name or "", choice)
        if function.arguments:
            arguments = function.arguments
            if not isinstance(arguments, str):  # Ollama has sent an object here
                arguments = msgspec.json.encode(arguments).decode()
            yield ToolCallArguments(index, arguments, choice)


def _content(content: object, choice: int) -> Iterator[TypedEvent]:
    """Text, or Mistral's list of typed pieces (``text``, ``thinking``)."""
    if isinstance(content, str):
        if content:
            yield Text(content, choice)
    elif isinstance(content, list):
        for piece in content:
            if not isinstance(piece, dict):
                continue
            if isinstance(text := piece.get("text"), str) and text:
                yield Text(text, choice)
            for thought in piece.get("thinking") or ():
                if isinstance(thought, dict) and thought.get("text"):
                    yield Reasoning(str(thought["text"]), choice)


def _speaks(choice: dict[str, Any]) -> bool:
    """Whether a choice carries anything that the model produced: any filled field of its delta but the role."""
    delta = choice.get("delta") or choice.get("message") or {}
    if not isinstance(delta, dict):
        return True
    return any(_filled(value) for name, value in delta.items() if name != "role") or _filled(choice.get("text"))


def _filled(value: object) -> bool:
    """Whether there is anything in it: nested emptiness (``{"arguments": ""}``) is still empty."""
    if isinstance(value, dict):
        return any(_filled(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_filled(inner) for inner in value)
    return value not in (None, "", False)


_BOOKKEEPING = frozenset(
    {"id", "object", "created", "model", "usage", "system_fingerprint", "service_tier", "timings", "provider"}
    | {"prompt_filter_results", "x_groq", "prompt_progress", "obfuscation", "choices"}
)
"""Fields of a chunk without choices that say nothing of the answer; any other makes it unknown, hence output."""


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # invalid UTF-8 inside is replaced, not refused, as the event stream's format asks
        return msgspec.json.decode(data.decode("utf-8", "replace"))
    except msgspec.DecodeError:
        raise MalformedEvent("an event's data is not JSON") from None


def _error_of(answer: Mapping[str, Any], event_type: str = "message") -> Mapping[str, Any] | None:
    """The error that an object reports, in the shapes seen: nested, flat with ``object: error``, or a bare string."""
    error = answer.get("error")
    if isinstance(error, Mapping):
        return error
    if error:
        return {"message": str(error)}
    if answer.get("object") == "error" or event_type == "error" or ("detail" in answer and "choices" not in answer):
        return answer
    return None


def _failed(error: Mapping[str, Any], status: int | None = None) -> Failed:
    message = _text(error.get("message")) or _text(error.get("detail"))
    names = [name for key in ("type", "code", "status") if (name := _text(error.get(key)))]
    kind = next((name for name in names if not name.isdigit()), names[0] if names else "")
    codes = [int(name) for name in names if name.isdigit()] + ([status] if status else [])
    exhausted = not EXHAUSTED.isdisjoint(name.lower() for name in names) or bool(_EXHAUSTED_WORDS.search(message))
    transient = not exhausted and _may_pass(codes, names, message)
    return Failed(message or (f"HTTP {status}" if status else "the provider reported an error"), kind, transient)


def _may_pass(codes: Sequence[int], names: Sequence[str], message: str) -> bool:
    if codes:
        return any(code in _TRANSIENT_STATUSES or 500 <= code <= 599 for code in codes)
    if any(_TRANSIENT_KINDS.search(name) for name in names):
        return True
    return not names and bool(_TRANSIENT_KINDS.search(message))


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
