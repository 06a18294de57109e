"""Dialects: each is one wire format of generation calls.

A :class:`Dialect` combines the parts that its package in :mod:`unbroken.core.dialects` defines, one small module
each: ``request`` (what a request is), ``rule`` (what an event means to the rule), ``decode`` (events to typed events),
``build`` (a request from messages and tools), ``errors`` (reading and writing them) and ``finish_reasons``. Client,
transports and relay use only this class; they know no dialect by name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from unbroken.core.events import Failed, TypedEvent
from unbroken.core.http import Head, Request
from unbroken.core.payload import RequestBody, request_body
from unbroken.core.sse import Event

if TYPE_CHECKING:
    from unbroken.core.answer import Answer
    from unbroken.core.continuation.format import ContinuationFormat
    from unbroken.core.resumption.format import Resumption

Message: TypeAlias = Mapping[str, Any]
"""A message of a conversation, or the declaration of a tool, in the dialect's own form."""


class Signal(enum.Flag):
    """The meaning of one event for the rule; several flags may be set at once."""

    SILENT = 0
    """Nothing that the model produced."""
    REASONING = enum.auto()
    """Reasoning that the model produced, a summary or a signature of it, and nothing else."""
    ANSWER = enum.auto()
    """Text, a refusal or a tool call that the model produced, or anything that is not known to be reasoning."""
    OUTPUT = REASONING | ANSWER
    """Something that the model produced. A dialect that cannot tell reasoning from the rest uses this alone."""
    FINISHES = enum.auto()
    """The event says how a choice ended, but other choices go on."""
    SETTLES = enum.auto()
    """The event says how the answer ended: it is the finish of the last choice."""
    REOPENS = enum.auto()
    """Output of a choice that had already finished: it takes the finish back."""
    USAGE = enum.auto()
    """The event reports usage and nothing else: it follows the finish."""
    ENDS = enum.auto()
    """The terminator: no event follows it."""
    TRANSIENT_ERROR = enum.auto()
    """A transient error. Errors take precedence over the other flags and end the attempt."""
    PERMANENT_ERROR = enum.auto()
    """A permanent error."""
    ERROR = TRANSIENT_ERROR | PERMANENT_ERROR


def severity(error: Failed) -> Signal:
    """Return what an error means to the rule."""
    return Signal.TRANSIENT_ERROR if error.transient else Signal.PERMANENT_ERROR


class FinishMeaning(enum.Enum):
    """The meaning of a finish reason. A reason that no table lists is an ending, and is reported as it is.

    Tool calls are complete only under :attr:`WHOLE`: any other ending may have come in the middle of one.
    """

    WHOLE = "the answer is whole, and so are its tool calls"
    LENGTH = "the answer stops at the limit of tokens"
    FILTERED = "the provider's content filter stopped the answer"
    STOPPED = "the answer was stopped for another reason, or its tool call is malformed"
    FAILED = "the provider failed; this is no ending of an answer"


def finish_reason(value: object) -> str:
    """Return a finish reason, ``""`` without one. Before the end some servers write ``"null"`` or ``"none"``."""
    return value if isinstance(value, str) and value.strip().lower() not in ("", "null", "none") else ""


def finish_meaning(reasons: Mapping[str, FinishMeaning], reason: str) -> FinishMeaning | None:
    """Return what a finish reason means by a dialect's table, ``None`` if the table does not know it.

    Case is ignored, and so is a detail behind a colon (``content_filter: SAFETY``, Gemini in OpenAI's format).
    """
    name = reason.partition(":")[0].strip()
    return next((reasons[key] for key in (name, name.lower(), name.upper()) if key in reasons), None)


class Search(Protocol):
    """A search over bytes, such as a compiled pattern."""

    def search(self, data: bytes, since: int = ..., /) -> object:
        """Return something true if there is a match at ``since`` or later."""


class EventReader(Protocol):
    """A reader of the events of one attempt, in order, for their meaning to the rule.

    Attributes:
        finish_reason: the last finish reason of the first choice, ``""`` before one.
        runs_tool: whether a tool of the server has started and its result has not come: meanwhile there is no output.
    """

    finish_reason: str

    @property
    def runs_tool(self) -> bool: ...

    def read(self, event: Event) -> Signal:
        """Return what ``event`` means.

        Raises:
            MalformedEvent: the event does not have the dialect's format.
        """


class EventDecoder(Protocol):
    """A decoder of the events of one attempt, in order, into typed events."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """Return the typed events of one SSE event, possibly none.

        Raises:
            MalformedEvent: the event does not have the dialect's format.
        """

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """Return the typed events of a non-streaming answer; none if ``body`` is not an answer of this dialect."""

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """Return the answer so far as messages of the dialect, to append to the conversation and continue it.

        Contains signatures, ids and encrypted reasoning that the provider expects back, and the tool calls that are
        complete.

        Args:
            answer: the answer that was assembled from the typed events of this decoder.
        """


class Generation(msgspec.Struct, frozen=True):
    """The properties of a generation request.

    Attributes:
        streaming: whether a stream of events is requested.
        choices: how many answers are requested (``n``).
        acts: whether its server-side tools have side effects, or it leaves state behind: it is not replayed once sent.
        resumable: whether the response goes on at the server after its stream is cut, and can be taken up there.
    """

    streaming: bool
    choices: int = 1
    acts: bool = False
    resumable: bool = False


class GatewayError(msgspec.Struct, frozen=True):
    """An error that a gateway itself reports, to be written in the format of a dialect.

    Attributes:
        status: the HTTP status that describes it best, even if it is too late to send one.
        code: stable machine-readable name, such as ``"stream_cut"``.
        message: for a person.
        retryable: whether a retry by the client may help; if not, the gateway has already retried.
        original: the provider's own error document, if it sent one.
    """

    status: int
    code: str
    message: str
    retryable: bool = False
    original: Mapping[str, Any] | None = None


class Dialect(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One wire format of generation calls.

    Attributes:
        name: its name in reports and settings, such as ``"openai-chat"``.
        serves: whether generation calls are made at this path; other requests to it differ in the body.
        read_request: reads a POST to such a path with this JSON object; ``None`` if it is not a generation.
        reader: makes an :class:`EventReader` for one attempt of such a generation.
        notable: a pattern that matches in every event that finishes, settles, ends or is an error. Between the first
            output of an attempt and its first finish only blocks in which it matches are parsed.
        has_terminator: whether its streams end with an event of their own, such as ``[DONE]``. Readers of such a stream
            drop an event whose blank line is missing at the end of the body.
        finish_reasons: what each finish reason means.
        decoder: makes an :class:`EventDecoder` for one attempt.
        read_error: reads an error response (status and body); ``transient`` is false if waiting does not help (an
            exhausted quota).
        error_in: reads the error that a JSON document of a stream, or of a 2xx, reports; ``None`` if it reports none.
        error_body: writes a gateway's error as the JSON document that clients of this dialect expect.
        error_event: writes the same as an event inside a stream.
        path: the path that is appended to a base URL to ask this model for a stream.
        body: builds the JSON object of a request for a stream, from model, messages, tools, and whether to ask for
            token counts (if they are sent only on request).
        credentials: the headers that carry a key.
        headers: further headers that every request needs.
        credential_headers: names, in lower case, of the headers in which its clients send keys.
        credential_parameter: the query parameter in which its clients may send a key, ``""`` if there is none.
        request_headers: names, in lower case, of headers that say what is asked for, such as a version or a project.
        heartbeat: bytes that may be sent between events at any time and that clients ignore; ``b""`` if there are none.
        versions: the versions with which its paths may begin.
        models_path: the path that is appended to a base URL for the list of models, which costs nothing.
        complete_path: adds to a path below a base URL the part that some clients omit.
        continuation: returns how an answer that was cut is continued by prefix, ``None`` if it cannot be.
        resumption: returns how a response that goes on at the server is resumed, ``None`` if none can be.
    """

    name: str
    serves: Callable[[str], bool]
    read_request: Callable[[Request, RequestBody], Generation | None]
    reader: Callable[[Generation], EventReader]
    notable: Search
    finish_reasons: Mapping[str, FinishMeaning]
    decoder: Callable[[], EventDecoder]
    read_error: Callable[[int, bytes], Failed]
    error_body: Callable[[GatewayError], bytes]
    error_event: Callable[[GatewayError], bytes]
    path: Callable[[str], str]
    body: Callable[[str, Sequence[Message], Sequence[Message], bool], dict[str, Any]]
    credentials: Callable[[str], Mapping[str, str]]
    error_in: Callable[[bytes], Failed | None] = lambda _: None
    has_terminator: bool = True
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    credential_headers: frozenset[str] = frozenset()
    credential_parameter: str = ""
    request_headers: frozenset[str] = frozenset()
    heartbeat: bytes = b""
    versions: tuple[str, ...] = ("v1",)
    models_path: str = "/models"
    complete_path: Callable[[str], str] = str
    continuation: Callable[[], ContinuationFormat | None] = lambda: None
    resumption: Callable[[], Resumption | None] = lambda: None

    def recognise(self, request: Request) -> Call | None:
        """Return the generation call that a request makes, or ``None`` if it is not one of this dialect."""
        if request.method != "POST" or not self.serves(request.path):
            return None
        body = request_body(request.body)
        generation = None if body is None else self.read_request(request, body)
        return Call(self, generation, single_attempt=is_sdk_retry(request)) if generation else None

    def url(self, base_url: str, model: str) -> str:
        """Return the URL at which a model is asked for a stream.

        The base URLs of Anthropic's and Google's own tools end before the API's version, those of OpenAI's after it.
        Both are accepted: a version at the end of the base URL replaces the one in the path. The base URL's query is
        kept, such as Azure's ``api-version``.
        """
        return _below(base_url, self.path(quote(model, safe=_SAFE, errors="replace")))

    def models_url(self, base_url: str) -> str:
        """Return the URL of the list of models, which is found from a base URL as in :meth:`url`."""
        return _below(base_url, self.models_path)


def _below(base_url: str, path: str) -> str:
    base, _, given = base_url.partition("?")
    base = base.rstrip("/")
    path, _, own = path.partition("?")
    version, _, rest = path.removeprefix("/").partition("/")
    has_version = _VERSION.search(base) and _VERSION.search(f"/{version}")
    url = f"{base}/{rest}" if has_version else base + path
    query = _joined(given, own)
    return f"{url}?{query}" if query else url


_VERSION = re.compile(r"/v\d+\w*$")

_SAFE = "/:@!$&'()*+,;="
"""Characters of a model's name that may stand in a path (RFC 3986, section 3.3)."""


def _joined(given: str, own: str) -> str:
    """Return a query with the parameters of both. Those of ``own`` replace others of the same name."""
    names = {part.partition("=")[0] for part in own.split("&")}
    kept = [part for part in given.split("&") if part.partition("=")[0] not in names | {""}]
    return "&".join([*kept, own] if own else kept)


class Call(msgspec.Struct, frozen=True):
    """A generation call, as its dialect recognised it.

    Attributes:
        dialect: the dialect of the call.
        generation: what it asks for.
        single_attempt: whether the request is already an SDK's retry: it gets one attempt.
    """

    dialect: Dialect
    generation: Generation
    single_attempt: bool = False

    @property
    def streaming(self) -> bool:
        """Whether a stream of events was asked for."""
        return self.generation.streaming

    def expects(self, head: Head) -> bool:
        """Return whether a 2xx response has the content type that was asked for."""
        wanted = "text/event-stream" if self.streaming else "application/json"
        return head.content_type == wanted


def is_sdk_retry(request: Request) -> bool:
    """Return whether an SDK marks the request as its retry (OpenAI's and Anthropic's ``x-stainless-retry-count``)."""
    for name, value in request.headers:
        if name.lower() == b"x-stainless-retry-count":
            return value.strip() not in (b"", b"0")
    return False
