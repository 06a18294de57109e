"""Gemini's generateContent, as Google's two APIs speak it: the Gemini API and Vertex AI.

A stream of ``alt=sse`` has no terminator and no pings: each event is a whole response, and a ``finishReason`` is all
that tells a finished answer from a cut one. Comments must never be put into it: Google's SDKs break on them.

Sources: Gemini API reference, "GenerateContentResponse", "Candidate: FinishReason"; Gemini API docs, "Thought
signatures"; ``google.rpc.Status`` and ``QuotaFailure``; the types and the stream reader of the ``google-genai`` SDK
3.4. None of its finish reasons reports a failure of the provider: they say what the model did, or who stopped it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from unbroken.core.dialect import Call, Signal, is_sdk_retry
from unbroken.core.dialects.gemini_parts import Parts
from unbroken.core.dialects.openai_errors import failed, parsed
from unbroken.core.dialects.payload import DONE, count, dicts, filled, json_object, mapping, only_object, text
from unbroken.core.events import Failed, Finish, TypedEvent, Usage, UsageReport
from unbroken.core.http import Request
from unbroken.core.sse import Event
from unbroken.errors import MalformedEvent

_PATH = re.compile(r"/(?:models|tunedModels|endpoints)/.+(?::|%3[Aa])(generateContent|streamGenerateContent)/*\Z")

_UNSPECIFIED = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

# In a JSON string a quotation mark is escaped and a line break too, so these match keys and whole lines, never the
# model's words. (Arguments of a function call are no string here: a model that names one "error" costs a parse.)
_COLON = rb"(?:\s|data:)*+:(?:\s|data:)*+"
_NOTABLE = re.compile(
    rb'"(?:(?:finishReason|blockReason)"%(c)s"|(?<!\n  ")error"%(c)s[^n])|event: ?error\n|\[DONE\] *\n' % {b"c": _COLON}
)
"""An ``"error"`` that is indented at a line's start stands outside of any event: Google writes some errors as bare JSON
over several lines. Server-sent events have no place for it; it is handed on, and the attempt ends without settling."""


class Gemini:
    """The dialect; see :class:`unbroken.core.dialect.Dialect`."""

    name = "gemini"
    notable = _NOTABLE

    def serves(self, path: str) -> bool:
        """See :class:`unbroken.core.dialect.Dialect`."""
        return _PATH.search(path) is not None

    def recognise(self, request: Request) -> Call | None:
        """A POST to ``.../models/NAME:generateContent``, or to ``:streamGenerateContent`` with ``alt=sse``.

        Without ``alt=sse`` the stream is one long JSON array; that form is not recognised and passes through.
        """
        if request.method != "POST" or not (found := _PATH.search(request.path)):
            return None
        streaming = found[1] == "streamGenerateContent"
        if streaming and not _asks_for_events(request.parts.query):
            return None
        if (body := json_object(request.body)) is None:
            return None
        config = mapping(_either(body, "generationConfig", "generation_config"))
        return Call(
            self,
            streaming=streaming,
            choices=count(_either(config, "candidateCount", "candidate_count")) or 1,
            acts=_acts(body),
            single_attempt=is_sdk_retry(request),
        )

    def reader(self, call: Call) -> GeminiReader:
        """A fresh reader for one attempt."""
        return GeminiReader(call.choices)

    def decoder(self) -> GeminiDecoder:
        """A fresh decoder for one attempt."""
        return GeminiDecoder()

    def refusal(self, status: int, body: bytes) -> Failed:
        """What an error response says; it is in a list where an array was asked for. Any other body is not quoted."""
        return judged(_error_of(only_object(body)) or {}, status)


GEMINI = Gemini()


def _either(answer: Mapping[str, Any], *names: str) -> Any:
    """Protocol buffers' JSON takes a field's name in either spelling."""
    return next((answer[name] for name in names if answer.get(name) is not None), None)


def _asks_for_events(query: str) -> bool:
    return any(name in ("alt", "$alt") and value == "sse" for name, value in parse_qsl(query))


def _acts(body: Mapping[str, Any]) -> bool:
    """Whether the server runs code or calls MCP servers. Searches and maps only read; computer use is the client's."""
    acting = (("codeExecution", "code_execution"), ("mcpServers", "mcp_servers"))
    return any(_either(tool, *names) is not None for tool in dicts(body.get("tools")) for names in acting)


# Errors

_TRANSIENT = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"})
_SPENT_WORDS = re.compile(r"credits are depleted|limit: 0\b", re.I)
_KEY = re.compile(r"api_key:[^\s'\"]+|AIza[\w-]{8,}")


def judged(error: Mapping[str, Any], status: int | None = None) -> Failed:
    """An error in the project's words. Google's may quote the key (``Consumer 'api_key:...' has been suspended``).

    A quota of a day does not come back by waiting, whatever delay the error proposes; a quota of a minute does.
    """
    said = failed(error, status)
    transient = said.transient or (status is None and said.kind in _TRANSIENT)
    spent = bool(_SPENT_WORDS.search(said.message)) or any("PerDay" in quota for quota in _quotas(error))
    return Failed(_KEY.sub("api_key:...", said.message), said.kind, transient and not spent)


def _quotas(error: Mapping[str, Any]) -> Iterator[str]:
    for detail in dicts(error.get("details")):
        for violation in dicts(detail.get("violations")):
            yield text(violation.get("quotaId"))


def _error_of(answer: Mapping[str, Any], event_type: str = "message") -> Mapping[str, Any] | None:
    if filled(error := answer.get("error")):
        return error if isinstance(error, Mapping) else {"message": text(error)}
    return answer if event_type == "error" else None


# The rule


class GeminiReader:
    """What the events of one attempt mean to the rule.

    Args:
        choices: how many candidates the request asked for; the attempt has settled when each has a finish reason.
    """

    def __init__(self, choices: int = 1) -> None:
        self._asked = choices
        self._finished: set[int] = set()
        self._settled = False

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
        if (error := _error_of(answer, event.type)) is not None:
            return Signal.TRANSIENT_ERROR if judged(error).transient else Signal.PERMANENT_ERROR
        signal = _output_if(_has_more_than(_BOOKKEEPING, answer))
        candidates = answer.get("candidates") or []
        for candidate in candidates if isinstance(candidates, list) else [None]:
            signal |= self._candidate(candidate)
        return signal | self._settle(_names(mapping(answer.get("promptFeedback")).get("blockReason")))

    def _candidate(self, candidate: object) -> Signal:
        if not isinstance(candidate, dict):
            return Signal.OUTPUT
        if _names(candidate.get("finishReason")):
            self._finished.add(count(candidate.get("index")) or 0)
        return _output_if(_has_more_than(_BESIDE_CONTENT, candidate) or _says_something(candidate.get("content")))

    def _settle(self, blocked: bool) -> Signal:
        """The one event with which the last of the candidates has finished, or the prompt was refused."""
        if self._settled or not (blocked or len(self._finished) >= self._asked):
            return Signal.SILENT
        self._settled = True
        return Signal.SETTLES


_BOOKKEEPING = frozenset(
    {"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime", "modelStatus"}
)
"""Fields of a response that say nothing of the answer; any other is unknown, hence output."""

_BESIDE_CONTENT = frozenset(
    {"content", "finishReason", "finishMessage", "index", "safetyRatings", "tokenCount", "avgLogprobs"}
)
"""Fields of a candidate that say nothing of the answer. Grounding and citations do: they name what was found."""


def _output_if(produced: bool) -> Signal:
    return Signal.OUTPUT if produced else Signal.SILENT


def _has_more_than(known: frozenset[str], answer: Mapping[str, Any]) -> bool:
    return any(filled(value) for name, value in answer.items() if name not in known)


def _names(reason: object) -> bool:
    """Whether a reason was given."""
    return isinstance(reason, str) and reason not in _UNSPECIFIED


def _says_something(content: object) -> bool:
    """Whether there is anything in it but its role; a part that is merely marked as a thought has nothing in it."""
    if not isinstance(content, dict):
        return filled(content)
    parts = content.get("parts")
    if not isinstance(parts, list):
        return _has_more_than(frozenset({"role"}), content)
    return _has_more_than(frozenset({"role", "parts"}), content) or any(
        _has_more_than(frozenset({"thought"}), part) if isinstance(part, dict) else filled(part) for part in parts
    )


# The typed client


class GeminiDecoder:
    """Typed events of one attempt."""

    def __init__(self) -> None:
        self._candidates: dict[int, Parts] = {}

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """See :meth:`unbroken.core.dialect.EventDecoder.decode`."""
        data = event.data.strip()
        if not data or data == DONE:
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

    def messages(self) -> list[dict[str, Any]]:
        """See :meth:`unbroken.core.dialect.EventDecoder.messages`. It is the first candidate's content."""
        parts = self._candidates[0].kept if 0 in self._candidates else []
        return [{"role": "model", "parts": parts}] if parts else []

    def _events(self, answer: Mapping[str, Any], event_type: str) -> Iterator[TypedEvent]:
        for candidate in dicts(answer.get("candidates")):
            yield from self._candidate(candidate)
        if _names(reason := mapping(answer.get("promptFeedback")).get("blockReason")):
            yield Finish(text(reason))
        if (usage := _usage(mapping(answer.get("usageMetadata")))) != Usage():
            yield UsageReport(usage)
        if (error := _error_of(answer, event_type)) is not None:
            yield judged(error)

    def _candidate(self, candidate: Mapping[str, Any]) -> Iterator[TypedEvent]:
        index = count(candidate.get("index")) or 0
        parts = self._candidates.setdefault(index, Parts(index))
        for part in dicts(mapping(candidate.get("content")).get("parts")):
            yield from parts.add(part)
        if _names(reason := candidate.get("finishReason")):
            yield Finish(text(reason), index)


def _usage(counts: Mapping[str, Any]) -> Usage:
    """Google counts thoughts apart from the candidates, and what tools brought apart from the prompt."""
    thoughts = count(counts.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=_sum(counts, "promptTokenCount", "toolUsePromptTokenCount"),
        cached_tokens=count(counts.get("cachedContentTokenCount")),
        output_tokens=_sum(counts, "candidatesTokenCount", "thoughtsTokenCount"),
        reasoning_tokens=thoughts,
    )


def _sum(counts: Mapping[str, Any], *names: str) -> int | None:
    said = [value for name in names if (value := count(counts.get(name))) is not None]
    return sum(said) if said else None
