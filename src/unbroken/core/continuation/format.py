"""What a dialect contributes to continuing: requests that continue, and events before and after the seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args

import msgspec

from unbroken.core.payload import RequestBody
from unbroken.core.sse import Event
from unbroken.errors import UsageError

Style: TypeAlias = Literal["prefix", "continue_final_message", "assistant", "completion"]
"""How a server is asked to continue a text.

``prefix``: a last message of the assistant with ``prefix: true`` (DeepSeek's beta API, Mistral).
``continue_final_message``: a last message of the assistant, and the two fields by which vLLM and SGLang continue it.
``assistant``: a last message of the assistant alone (llama.cpp, OpenRouter, Groq, Anthropic's models up to 4.5).
``completion``: a longer prompt.
"""

STYLES: tuple[Style, ...] = get_args(Style)


def style_named(value: object) -> Style | None:
    """Return the style that a caller has named; ``None`` for ``None`` and ``""``.

    Raises:
        UsageError: there is no such style.
    """
    if value in (None, ""):
        return None
    if value not in STYLES:
        raise UsageError(f"continuation cannot be {value!r}: it must be {', '.join(STYLES[:-1])} or {STYLES[-1]}")
    return value


class Part(NamedTuple):
    """One event of a continuation.

    Attributes:
        text: the text in it, ``""`` without any.
        write: encodes the event for the caller, with another text; ``b""`` if nothing of it is left then.
        decides: whether no text of the answer's seam can follow: a finish, a tool call, an error, the terminator.
        problem: why an answer cannot continue with this event, ``""`` if it can; it counts before the first text.
    """

    text: str
    write: Callable[[str], bytes]
    decides: bool = False
    problem: str = ""


class Rewriter(Protocol):
    """A rewriter of one continuation's events, so that they continue the caller's stream."""

    def part(self, event: Event) -> Part:
        """Return the parts of an event. Events come in order.

        Raises:
            MalformedEvent: the event does not have the dialect's format.
        """


class Transcript(Protocol):
    """What the caller has of an answer, read from the events that were handed on.

    Attributes:
        tokens: output tokens of the running attempt, as its server told them; ``None`` if it has not.
        deltas: pieces of output of the running attempt.
    """

    tokens: int | None
    deltas: int

    @property
    def text(self) -> str:
        """The text."""

    @property
    def size(self) -> int:
        """Characters that are kept: of the text, and of reasoning."""

    @property
    def obstacle(self) -> str:
        """Why the answer cannot be continued from here, ``""`` if it can."""

    @property
    def reasoning(self) -> Mapping[str, str]:
        """Closed reasoning that a server takes back with the text, as fields of the message."""

    def read(self, event: Event) -> None:
        """Take the next event that was handed on.

        Raises:
            MalformedEvent: the event does not have the dialect's format.
        """

    def rewriter(self) -> Rewriter:
        """Return a rewriter for an attempt that continues from here."""


class ContinuationFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How answers of one dialect are continued.

    Attributes:
        styles: the styles that the dialect has.
        only_style: the style of every server of the dialect, ``None`` if they differ.
        transcript: makes a :class:`Transcript`.
        obstacle: takes a request's body and its URL; says why its answer cannot be continued exactly, ``""`` if it can.
        extended: takes the body's fields (values decoded or not), the style, the text and the reasoning; returns the
            fields that replace or join them.
        limits: fields that limit the output, in tokens.
        stops: the sequences at which the server stops.
        keeps_space: takes the body, the URL and the style; says whether white space at the end of the text may be sent.
    """

    styles: frozenset[Style]
    transcript: Callable[[], Transcript]
    obstacle: Callable[[RequestBody, str], str]
    extended: Callable[[RequestBody, Style, str, Mapping[str, str]], dict[str, Any]]
    limits: tuple[str, ...]
    stops: Callable[[RequestBody], list[str]]
    keeps_space: Callable[[RequestBody, str, Style], bool] = lambda _body, _url, _style: True
    only_style: Style | None = None
