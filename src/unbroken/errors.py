"""The one error tree.

::

    UnbrokenError
    ├── UsageError            the caller's mistake: a bad URL, an unknown provider, a missing key, a bad proxy
    ├── MissingExtra          an optional part is not installed; the message says how to install it
    ├── StateError            an object used outside its lifetime: a turn opened twice, or read after it was closed
    ├── WireError             the network failed; raised by the wire, decided upon by the core, never leaves a driver
    ├── DecodeError           bytes that break the format of the stream
    │   ├── MalformedEvent    an event that is not what its dialect says
    │   └── EventTooLarge     an event over the cap
    └── TurnError             a turn that failed; carries code, phase, retryable and the report
        ├── StreamCut         the stream was lost: after output, or before it more often than the budget allows
        ├── Unreachable       no request ever got through: refused, no such name, certificate, proxy
        ├── FirstOutputTimeout  connected and alive, but no output in time
        ├── CallerTimeout     a timeout of the caller's own expired
        ├── MalformedStream   the stream broke its own format (see DecodeError)
        ├── UnexpectedResponse  an answer of another kind than was asked for: HTML, JSON, a redirect
        └── ProviderError     the provider itself said no: a status, or an error inside the stream

``UsageError`` is also a :class:`ValueError`, ``MissingExtra`` an :class:`ImportError`, ``StateError`` a
:class:`RuntimeError`, ``FirstOutputTimeout`` and ``CallerTimeout`` a :class:`TimeoutError`. What a program usually
catches is :class:`TurnError`. :class:`StreamCut` must not be missed: without it a truncated answer looks whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from unbroken.core.failures import Failure, Phase
    from unbroken.core.report import Report


class UnbrokenError(Exception):
    """Base of every error that Unbroken raises."""


class UsageError(UnbrokenError, ValueError):
    """The caller's mistake; the message names it and the next step."""


class MissingExtra(UnbrokenError, ImportError):
    """An optional part of Unbroken is not installed; the message says how to install it.

    Attributes:
        extra: the name of the extra, as in ``pip install 'unbroken[relay]'``.
    """

    def __init__(self, what: str, extra: str, missing: ImportError) -> None:
        super().__init__(f"{what} {missing.name or 'more'}: pip install 'unbroken[{extra}]'", name=missing.name)
        self.extra = extra


class StateError(UnbrokenError, RuntimeError):
    """An object was used outside its lifetime: a turn opened twice, or read after it was closed."""


class WireError(UnbrokenError):
    """The network failed under an exchange.

    Attributes:
        failure: what kind of failure it is; the core decides by it.
        detail: one line for a person, without credentials or content.
    """

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(f"{failure.phrase}: {detail}" if detail else failure.phrase)
        self.failure = failure
        self.detail = detail


class DecodeError(UnbrokenError):
    """Bytes that break the format of the stream."""


class MalformedEvent(DecodeError):
    """An event whose data is not what its dialect says (JSON, of an expected shape)."""


class EventTooLarge(DecodeError):
    """An event grew over the cap before it ended.

    Attributes:
        limit: the cap, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"an event of the stream grew over {limit} bytes")
        self.limit = limit


class PartialAnswer(Protocol):
    """As much of an answer as had come; the typed client's is an :class:`unbroken.client.Answer`."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def reasoning(self) -> str:
        """The reasoning."""

    @property
    def partial_tool_calls(self) -> Sequence[Any]:
        """The tool calls that are not complete (:class:`unbroken.client.PartialToolCall`)."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The answer as messages of its dialect, to append to the conversation."""


class _Partial:
    """What had come of an answer before it failed, where the typed client was asked.

    Attributes:
        partial: the answer as far as it had come; ``None`` where no typed client was asked.
    """

    partial: PartialAnswer | None = None

    @property
    def text(self) -> str:
        """The text that had come."""
        return self.partial.text if self.partial else ""

    @property
    def reasoning(self) -> str:
        """The reasoning that had come."""
        return self.partial.reasoning if self.partial else ""

    @property
    def tool_calls(self) -> Sequence[Any]:
        """The tool calls that had come, as far as they had; not fit to be run."""
        return self.partial.partial_tool_calls if self.partial else ()


class TurnError(UnbrokenError):
    """A turn that failed.

    Attributes:
        code: stable machine-readable name of the error, such as ``"stream_cut"``.
        phase: the phase in which the last attempt failed, or ``None`` where no attempt was made.
        retryable: whether asking the same again later is likely to help.
        report: every attempt of the turn and what it lost; ``None`` only before the first attempt.
        held: bytes of the last attempt's stream that were held and are handed on nowhere else, because of
            ``Policy.hold``; ``b""`` if there are none. Not a whole answer.
    """

    code = "turn_failed"
    held = b""

    def __init__(
        self, message: str, *, phase: Phase | None = None, retryable: bool = False, report: Report | None = None
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.retryable = retryable
        self.report = report


class RestOfAnswer(NamedTuple):
    """How a caller can ask for the rest of an answer that was cut, or why not.

    Attributes:
        messages: the conversation, with the text so far as its last message; ``None`` if the rest cannot be asked for.
        reason: why not, ``""`` if it can be.
        options: the other fields of the request's body, but for the model and the stream: those that make the server
            continue, and limits of the output, lowered by what has come where that was counted.
        text: the text that the messages hold, and that the rest follows: without white space at its end where the
            server takes none there.
        url: where the request is sent.
    """

    messages: Sequence[Mapping[str, Any]] | None
    reason: str = ""
    options: Mapping[str, Any] = {}
    text: str = ""
    url: str = ""


class StreamCut(_Partial, TurnError):
    """The stream was lost.

    After output nothing is replayed: what was already handed on is real, the rest is missing. Before output this is
    raised when the budget of replays is used up, and so it is while output is held (``Policy.hold``). With the typed
    client, what had arrived hangs on it: ``partial``, and its ``text``, ``reasoning`` and ``tool_calls``.

    Attributes:
        ask_rest: makes what :meth:`continuation` returns, from the partial answer; set by the turn.
    """

    code = "stream_cut"
    ask_rest: Callable[[PartialAnswer | None], RestOfAnswer] | None = None

    def continuation(self) -> RestOfAnswer:
        """Return how to ask for the rest of the answer in the style of its server, or why that is impossible.

        With ``client.stream(rest.messages, **rest.options)`` a caller goes on by himself, and checks himself that what
        comes fits. ``Policy(after_output="continue")`` does both.
        """
        if self.ask_rest is None:
            return RestOfAnswer(None, "no answer had begun")
        return self.ask_rest(self.partial)


class Unreachable(TurnError):
    """No request got through: connection refused, no such host, a refused certificate, a proxy that would not."""

    code = "unreachable"


class FirstOutputTimeout(TurnError, TimeoutError):
    """The path was alive but the model produced nothing within ``Policy.first_output_timeout`` seconds."""

    code = "first_output_timeout"


class CallerTimeout(TurnError, TimeoutError):
    """A timeout of the caller's own expired, such as httpx's; it keeps its meaning and is never replayed.

    Attributes:
        which: ``"connect"``, ``"read"`` or ``"write"``.
    """

    code = "caller_timeout"

    def __init__(self, which: str, *, phase: Phase | None = None, report: Report | None = None) -> None:
        super().__init__(f"the {which} timeout expired", phase=phase, retryable=True, report=report)
        self.which = which


class MalformedStream(_Partial, TurnError):
    """The stream broke its own format; replaying a server's bug does not mend it."""

    code = "malformed_stream"


class UnexpectedResponse(TurnError):
    """An answer of another kind than was asked for: an HTML page, a redirect, JSON that is no completion.

    Attributes:
        status: the HTTP status.
    """

    code = "unexpected_response"

    def __init__(self, message: str, *, status: int, phase: Phase | None = None, report: Report | None = None) -> None:
        super().__init__(message, phase=phase, report=report)
        self.status = status


class ProviderError(_Partial, TurnError):
    """The provider itself said no, by a status or by an error inside the stream.

    Attributes:
        status: the HTTP status (200 where the error came inside a stream).
        kind: the provider's own name of the error (``type`` or ``code``), or ``""``.
    """

    code = "provider_error"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: str = "",
        phase: Phase | None = None,
        retryable: bool = False,
        report: Report | None = None,
    ) -> None:
        super().__init__(message, phase=phase, retryable=retryable, report=report)
        self.status = status
        self.kind = kind


def cause_of(error: BaseException | None) -> TurnError | None:
    """Return the :class:`TurnError` that an SDK's error was raised from, ``None`` without one.

    SDKs wrap it in errors of their own; openai's says no more than "Connection error.".
    """
    while error is not None:
        if isinstance(error, TurnError):
            return error
        error = error.__cause__ or error.__context__
    return None
