"""OpenAI's Responses, as they are really spoken.

Sources: OpenAI API reference, "Responses: streaming events" and "Create a model response"; the types of openai-python
3.54; openai-node #1964 (``keepalive``); openai-dotnet #881 (``error`` nested or flat); openai/codex #10324 and
CLIProxyAPI #6007 (``codex.*``, ``responsesapi.*``); vercel/ai's recordings of OpenAI, Azure, xAI and GitHub Copilot;
OpenRouter docs, "Responses API"; vLLM; llama.cpp's server, whose streams are recorded in
``tests/corpora/openai_responses``.

A stream says ``response.created`` and announces each output item before anything is in it. A reasoning model announces
its reasoning at once and is then silent, for minutes: that is still the prelude. One event tells how all of it ended
and carries the whole answer once more; nothing comes after it, but for ``[DONE]`` from some gateways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from unbroken.core.dialect import Call, Signal, is_sdk_retry
from unbroken.core.dialects.openai_errors import error_of, failed, parsed, refused, severity
from unbroken.core.dialects.payload import DONE, count, dicts, filled, json_object, mapping, text
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Refusal,
    Signature,
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

ENDINGS: Mapping[str, str] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.done": "completed",  # OpenRouter's documentation
}
"""The last event of a response, and the status that it means where it does not give one."""

FAILURES = frozenset({"failed", "cancelled"})
"""Statuses of a response that is no answer."""

ERRORS = frozenset({"error", "response.error"})
"""Events that are an error, whatever they carry."""

PROGRESS = frozenset(
    {"response.created", "response.queued", "response.in_progress", "response.metadata"}
    | {"keepalive", "ping", "heartbeat", "response.keep_alive", "response.heartbeat", "codex.keepalive"}
    | {"codex.rate_limits", "codex.response.metadata", "responsesapi.websocket_timing"}
)
"""Events that say nothing of the answer: the response's own progress, heartbeats, what OpenAI tells its Codex."""

DELTAS: Mapping[str, type[Text | Reasoning | Refusal]] = {
    "response.output_text.delta": Text,
    "response.content_part.delta": Text,  # OpenRouter's documentation
    "response.refusal.delta": Refusal,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,  # what the two before it were called in 2025
    "response.reasoning_summary.delta": Reasoning,
}
"""Pieces of text, and what they become."""

ARGUMENTS: Mapping[str, str] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Output items that ask the caller to run a tool, and the field that holds what with."""

ARGUMENT_DELTAS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})

HARMLESS_TOOLS = frozenset(
    {"function", "custom", "local_shell", "apply_patch"}  # run by the caller, who decides
    | {"web_search", "web_search_preview", "file_search", "tool_search", "image_generation"}
    | {"x_search", "collections_search", "browser_search"}  # xAI, Groq
)
"""Tools that change nothing when they run twice. Any other may: MCP, code, computers, and what is not known."""

# In a JSON string quotation marks and line ends are escaped, so these match the protocol, never the model's words. JSON
# may be broken over several `data` lines. Each alternative begins with another character: that keeps the search fast.
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
_LAST = rb"(?:%s)" % b"|".join(re.escape(name.encode()) for name in sorted(ENDINGS.keys() | ERRORS))
_NOTABLE = re.compile(
    rb'"(?:type"%(c)s"%(last)s"|error"%(c)s[^n\s]|object"%(c)s"error"|detail"%(c)s)'
    rb"|: ?%(last)s\n|\[DONE\]\s*\n" % {b"c": _COLON, b"last": _LAST}
)


Json: TypeAlias = Mapping[str, Any]


class OpenAIResponses:
    """The dialect; see :class:`unbroken.core.dialect.Dialect`."""

    name = "openai-responses"
    notable = _NOTABLE

    def serves(self, path: str) -> bool:
        """See :class:`unbroken.core.dialect.Dialect`."""
        return path.rstrip("/").endswith("/responses")

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../responses`` with a JSON object that asks a model (Azure's and Codex's paths included)."""
        if request.method != "POST" or not self.serves(request.path):
            return None
        body = json_object(request.body)
        if body is None or body.keys().isdisjoint({"model", "input", "prompt"}):
            return None
        return Call(
            self,
            streaming=body.get("stream") is True,
            acts=_acts(body),
            single_attempt=is_sdk_retry(request),
        )

    def reader(self, call: Call) -> ResponsesReader:  # noqa: ARG002 - there is only ever one choice
        """A fresh reader for one attempt."""
        return ResponsesReader()

    def decoder(self) -> ResponsesDecoder:
        """A fresh decoder for one attempt."""
        return ResponsesDecoder()

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says, in OpenAI's shape or near it; any other body is not quoted."""
        return refused(status, body)


OPENAI_RESPONSES = OpenAIResponses()


class ResponsesReader:
    """What the events of one attempt mean to the rule. It remembers nothing: every event speaks for itself."""

    def read(self, event: Event) -> Signal:
        """See :meth:`unbroken.core.dialect.EventReader.read`."""
        data = event.data.strip()
        if not data:
            return Signal.SILENT
        if data == DONE:
            return Signal.ENDS
        answer = parsed(data, event.type)
        if not isinstance(answer, dict):
            return Signal.OUTPUT
        kind = _kind(answer, event)
        if (error := _error_in(kind, answer)) is not None:
            return severity(error)
        if kind in ENDINGS:
            return Signal.SETTLES | Signal.ENDS
        return Signal.SILENT if kind in PROGRESS or _is_empty(kind, answer) else Signal.OUTPUT


class ResponsesDecoder:
    """Typed events of one attempt.

    Servers disagree on what an item is called from one event to the next: GitHub Copilot changes its ids, llama.cpp
    sends no indexes, vLLM has sent wrong ones. So an event finds its item by either; and the text of a finished item is
    taken from there only if none of it came in pieces.
    """

    def __init__(self) -> None:
        self._items: list[dict[str, Any]] = []
        self._unfinished: list[str] = []
        self._said: set[tuple[type, str | int | None]] = set()
        self._calls = ToolCalls()

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE:
            return ()
        answer = parsed(data, event.type)
        return list(self._events(_kind(answer, event), answer)) if isinstance(answer, dict) else ()

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode_whole`."""
        try:
            answer = mapping(parsed(body))
        except MalformedEvent:
            return ()
        if answer.get("object") == "response" or "output" in answer:
            return list(self._ending("response.done", answer, _failure("response.done", answer)))
        error = error_of(answer)
        return () if error is None else [failed(error)]

    def messages(self) -> list[dict[str, Any]]:
        """The output items as they came, to be appended to the next ``input``.

        Reasoning is in it with its id and its encrypted content, unless what it led to is missing: OpenAI refuses that
        ("provided without its required following item"). A message that was cut is in it as far as it came.
        """
        items = [item for item in self._items if not (_is_call(item) and item.get("status") == "incomplete")]
        while items and items[-1].get("type") == "reasoning":
            items.pop()
        if self._unfinished:
            items.append({"role": "assistant", "content": "".join(self._unfinished)})
        return items

    def _events(self, kind: str, answer: Json) -> Iterator[TypedEvent]:
        index = count(answer.get("output_index"))
        error = _error_in(kind, answer)
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
            elif kind == "response.output_item.added" and _is_call(item):
                yield from self._calls.begin(item, index)

    def _say(self, event: Text | Reasoning | Refusal, item_id: str, index: int | None) -> TypedEvent:
        sort = type(event)
        self._said |= {(sort, item_id), (sort, index), (sort, None)}
        if sort is Text:
            self._unfinished.append(event.text)
        return event

    def _finish(self, item: dict[str, Any], index: int | None) -> Iterator[TypedEvent]:
        """An item is finished. ``None`` in what was said stands for the item that is running."""
        self._items.append(item)
        if _is_call(item):
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
            yield Finish(reason or _status(kind, response))


class ToolCalls:
    """The calls of one answer, each found by any of its names: the call's id, the item's id, the item's index.

    A custom tool takes free text, which is told as the JSON that it is: a string.
    """

    def __init__(self) -> None:
        self._numbers: dict[str | int | None, int] = {}
        self._custom: set[int] = set()
        self._argued: set[int] = set()

    def begin(self, item: Json, index: int | None) -> Iterator[ToolCallStart]:
        """A call is announced, once."""
        if self._find(item, index) is not None:
            return
        names = [name for name in (text(item.get("call_id")), text(item.get("id"))) if name]
        taken = set(self._numbers.values())
        number = max(taken, default=-1) + 1 if index is None or index in taken else index
        self._numbers |= dict.fromkeys([*names, index], number)
        if item.get("type") == "custom_tool_call":
            self._custom.add(number)
        yield ToolCallStart(number, names[0] if names else "", text(item.get("name")))

    def argue(self, words: str, item_id: str, index: int | None) -> Iterator[TypedEvent]:
        """A piece of what a call is made with. If the call was not announced it is told when it is finished."""
        number = self._numbers.get(item_id, self._numbers.get(index))
        if number is None:
            return
        if number in self._custom:
            words = ("" if number in self._argued else '"') + _escaped(words)
        self._argued.add(number)
        yield ToolCallArguments(number, words)

    def finish(self, item: Json, index: int | None) -> Iterator[TypedEvent]:
        """A call is complete: tell what has not been told."""
        yield from self.begin(item, index)
        number = self._numbers[self._name(item, index)]
        arguments = text(item.get(ARGUMENTS[item["type"]]))
        if number in self._custom:
            arguments = '"' if number in self._argued else f'"{_escaped(arguments)}"'
        elif number in self._argued:
            arguments = ""
        self._argued.add(number)
        if arguments:
            yield ToolCallArguments(number, arguments)

    def _find(self, item: Json, index: int | None) -> int | None:
        return self._numbers.get(self._name(item, index))

    def _name(self, item: Json, index: int | None) -> str | int | None:
        """The best name that a call has: its own id is the one that no server changes on the way."""
        return text(item.get("call_id")) or text(item.get("id")) or index


# The request


def _acts(body: Json) -> bool:
    """Whether the call may act on the world or leaves state behind; a stored prompt may bring tools not seen here."""
    if any(body.get(name) for name in ("background", "conversation", "prompt", "agent", "agent_reference")):
        return True
    brought = [item.get("tools") for item in dicts(body.get("input")) if item.get("type") == "additional_tools"]
    return not all(map(_are_harmless, [body.get("tools"), *brought]))


def _are_harmless(tools: object) -> bool:
    return not tools or (isinstance(tools, list) and all(map(_is_harmless, tools)))


def _is_harmless(tool: object) -> bool:
    """A shell acts unless the caller runs it; a date in a name (``web_search_2025_08_26``) is a version."""
    fields = mapping(tool)
    kind = re.sub(r"_\d{4}_\d{2}_\d{2}$", "", text(fields.get("type")))
    if kind == "shell":
        return mapping(fields.get("environment")).get("type") == "local"
    return kind in HARMLESS_TOOLS or (kind == "namespace" and _are_harmless(fields.get("tools")))


# Events


def _kind(answer: Json, event: Event) -> str:
    """What kind of event it is: its data says so, or else its name; a name that says error is believed."""
    kind = text(answer.get("type")) or event.type
    return event.type if event.type in ERRORS and kind not in ENDINGS else kind


def _error_in(kind: str, answer: Json) -> Json | None:
    """The error that an event reports: nested, flat, or in a response that failed."""
    if kind in ERRORS:
        error = error_of(answer, "error")
    elif "type" not in answer or answer.get("object") == "error":
        error = error_of(answer)
    else:
        error = error_of({"error": answer.get("error")})
    if error is None and kind in ENDINGS:
        return _failure(kind, mapping(answer.get("response")))
    if error is answer and text(answer.get("type")) in ERRORS:  # flat: that is the event's type, not the error's
        return {name: value for name, value in answer.items() if name != "type"}
    return error


def _failure(kind: str, response: Json) -> Json | None:
    """Why a response is no answer."""
    status = _status(kind, response)
    if FAILURES.isdisjoint({status, ENDINGS[kind]}):
        return None
    return error_of({"error": response.get("error")}) or {"message": f"the response is {status}", "type": status}


def _status(kind: str, response: Json) -> str:
    return text(response.get("status")) or ENDINGS[kind]


def _is_empty(kind: str, answer: Json) -> bool:
    """Whether an event announces something with nothing in it yet, or is a piece of nothing."""
    if kind == "response.output_item.added":
        item = mapping(answer.get("item"))
        return item.get("type") in ("reasoning", "message") and not filled([item.get("content"), item.get("summary")])
    if kind == "response.output_item.done" or not kind.endswith((".delta", ".done", "_part.added")):
        return False
    fields = [*answer.items(), *mapping(answer.get("part")).items()]
    return not filled([value for name, value in fields if name not in _PLACES])


_PLACES = frozenset(
    {"type", "sequence_number", "event_id", "response_id", "item_id", "obfuscation", "agent", "part"}
    | {"output_index", "content_index", "summary_index", "command_index", "annotation_index"}
)
"""Fields of a piece that are not what it says, but where it belongs."""


# Items


def _is_call(item: Json) -> bool:
    return text(item.get("type")) in ARGUMENTS


def _contents(item: Json) -> Iterator[Text | Reasoning | Refusal | Signature]:
    """What a finished message or reasoning says."""
    kind = item.get("type", "message")  # xAI has left it out
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
    """A piece of text, or an object that holds one."""
    return text(mapping(delta).get("text") or delta)


def _escaped(words: str) -> str:
    return msgspec.json.encode(words).decode()[1:-1]
