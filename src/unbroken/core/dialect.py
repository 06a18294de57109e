"""What a dialect is: one wire format of generation calls, and everything that is known of it.

A :class:`Dialect` puts together the parts that its package in :mod:`unbroken.core.dialects` defines, one small module
each: ``request`` (what a request is), ``rule`` (what an event means to the rule), ``decode`` (events to typed events),
``build`` (a request from messages and tools), ``errors`` (reading and writing them) and ``finish_reasons``. Faces ask
the dialect; they know none by name.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from unbroken.core.events import Failed, TypedEvent
from unbroken.core.http import Head, Request
from unbroken.core.payload import json_object
from unbroken.core.sse import Event

if TYPE_CHECKING:
    from unbroken.core.answer import Answer

Message: TypeAlias = Mapping[str, Any]
"""A message of a conversation, or the declaration of a tool, in the dialect's own form."""


class Signal(enum.Flag):
    """What one event means for the rule; an event may mean several things at once."""

    SILENT = 0
    """Nothing that the model produced."""
    OUTPUT = enum.auto()
    """Something that the model produced."""
    SETTLES = enum.auto()
    """With this event the attempt has said how it ended."""
    ENDS = enum.auto()
    """The terminator: nothing comes after it."""
    TRANSIENT_ERROR = enum.auto()
    """An error that may pass. Errors outrank the rest and end the attempt."""
    PERMANENT_ERROR = enum.auto()
    """An error that will not pass."""
    ERROR = TRANSIENT_ERROR | PERMANENT_ERROR


class FinishMeaning(enum.Enum):
    """What a finish reason says of the answer. A reason that no table knows is an ending, and is told."""

    WHOLE = "the answer is whole, and so are its tool calls"
    LENGTH = "the answer stops at the limit of tokens"
    FILTERED = "the provider's content filter stopped the answer"
    FAILED = "the provider failed; this is no ending of an answer"

    @property
    def is_truncating(self) -> bool:
        """Whether the answer was broken off, perhaps in the middle of a tool call."""
        return self in (FinishMeaning.LENGTH, FinishMeaning.FILTERED)


class EventReader(Protocol):
    """Reads the events of one attempt, in order, for what they mean to the rule."""

    def read(self, event: Event) -> Signal:
        """What ``event`` means.

        Raises:
            MalformedEvent: it is not what the dialect says.
        """


class EventDecoder(Protocol):
    """Decodes the events of one attempt, in order, into typed events."""

    def decode(self, event: Event) -> Sequence[TypedEvent]:
        """The typed events of one SSE event, possibly none.

        Raises:
            MalformedEvent: it is not what the dialect says.
        """

    def decode_whole(self, body: bytes) -> Sequence[TypedEvent]:
        """The typed events of a whole, non-streaming answer; none where ``body`` is no answer of this dialect."""

    def messages(self, answer: Answer) -> list[dict[str, Any]]:
        """What has come, in the dialect's own form, to be appended to the conversation so that it can go on.

        Signatures, ids and encrypted reasoning that the provider wants back are in it. Tool calls are in it as far as
        they are complete.

        Args:
            answer: the answer that was put together from the typed events of this decoder.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What a request for a generation asks for.

    Attributes:
        streaming: whether a stream of events is asked for.
        choices: how many answers are asked for (``n``).
        acts: server-side tools of the call act on the world, or it leaves state behind: it is not replayed once sent.
    """

    streaming: bool
    choices: int = 1
    acts: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayError:
    """An error that a gateway reports itself, to be written in the form of a dialect.

    Attributes:
        status: the HTTP status that says it best, also where it is too late for one.
        code: stable machine-readable name, such as ``"stream_cut"``.
        message: for a person.
        retryable: whether asking again may help; otherwise the gateway has done that already.
        original: the provider's own error document, where it sent one.
    """

    status: int
    code: str
    message: str
    retryable: bool = False
    original: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dialect:
    """One wire format of generation calls.

    Attributes:
        name: its name in reports and settings, such as ``"openai-chat"``.
        serves: whether generation calls are made at this path; what else is made there, the body tells.
        read_request: what a POST to such a path with this JSON object asks for; ``None`` where it is no generation.
        reader: a fresh :class:`EventReader` for one attempt of a call that asks for this.
        notable: finds the bytes without which an event can neither settle, nor end, nor be an error. Once an attempt
            has spoken, only blocks in which it matches are parsed.
        finish_reasons: what each finish reason means.
        decoder: a fresh :class:`EventDecoder` for one attempt.
        read_error: what an error response (status and body) says; ``transient`` is false where waiting would not help
            (an exhausted quota).
        error_body: an error of a gateway as the JSON document that clients of this dialect expect.
        error_event: the same as an event inside a stream.
        path: what is appended to a base URL in order to ask this model for a stream.
        body: the JSON object of a request for a stream, from model, messages, tools, and whether token counts are
            asked for where they come only when asked.
        credentials: the headers that carry a key.
        headers: further headers that every request needs.
        credential_headers: names, in lower case, of the headers in which its clients send keys.
        credential_parameter: the query parameter in which its clients may send a key, ``""`` where there is none.
        heartbeat: what may be sent between events at any time and means nothing; ``b""`` where nothing is harmless.
        versions: what its paths may begin with, below the host.
        complete_path: a path below a base URL with what some clients leave out of it.
    """

    name: str
    serves: Callable[[str], bool]
    read_request: Callable[[Request, Mapping[str, Any]], Generation | None]
    reader: Callable[[Generation], EventReader]
    notable: re.Pattern[bytes]
    finish_reasons: Mapping[str, FinishMeaning]
    decoder: Callable[[], EventDecoder]
    read_error: Callable[[int, bytes], Failed]
    error_body: Callable[[GatewayError], bytes]
    error_event: Callable[[GatewayError], bytes]
    path: Callable[[str], str]
    body: Callable[[str, Sequence[Message], Sequence[Message], bool], dict[str, Any]]
    credentials: Callable[[str], Mapping[str, str]]
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    credential_headers: frozenset[str] = frozenset()
    credential_parameter: str = ""
    heartbeat: bytes = b""
    versions: tuple[str, ...] = ("v1",)
    complete_path: Callable[[str], str] = str

    def recognise(self, request: Request) -> Call | None:
        """The generation call that a request makes, ``None`` where it makes none of this dialect."""
        if request.method != "POST" or not self.serves(request.path):
            return None
        body = json_object(request.body)
        generation = None if body is None else self.read_request(request, body)
        return Call(self, generation, single_attempt=is_sdk_retry(request)) if generation else None

    def url(self, base_url: str, model: str) -> str:
        """The URL at which a model is asked for a stream.

        The base URLs of Anthropic's and Google's own tools end before the API's version, those of OpenAI's behind it.
        Both are taken: a version at the end of the base URL stands for the one in the path.
        """
        path = self.path(model)
        version, _, rest = path.removeprefix("/").partition("/")
        has_version = _VERSION.search(base_url) and _VERSION.search(f"/{version}")
        return f"{base_url}/{rest}" if has_version else base_url + path


_VERSION = re.compile(r"/v\d+\w*$")


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A generation call, as its dialect recognised it.

    Attributes:
        dialect: the dialect of the call.
        generation: what it asks for.
        single_attempt: the request already is an SDK's retry: it gets one attempt.
    """

    dialect: Dialect
    generation: Generation
    single_attempt: bool = False

    @property
    def streaming(self) -> bool:
        """Whether a stream of events was asked for."""
        return self.generation.streaming

    def expects(self, head: Head) -> bool:
        """Whether a 2xx response is of the content type that was asked for."""
        wanted = "text/event-stream" if self.streaming else "application/json"
        return head.content_type == wanted


def is_sdk_retry(request: Request) -> bool:
    """Whether an SDK says that it is already retrying (OpenAI's and Anthropic's send ``x-stainless-retry-count``)."""
    for name, value in request.headers:
        if name.lower() == b"x-stainless-retry-count":
            return value.strip() not in (b"", b"0")
    return False
