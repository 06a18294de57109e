"""The request that asks for the rest of an answer, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec

from unbroken.core.continuation.format import ContinuationFormat, Rewriter, Style, Transcript
from unbroken.core.http import Headers, Request
from unbroken.core.payload import UNREADABLE, RequestBody, count, request_body
from unbroken.core.providers import continuation_at
from unbroken.core.sse import Event
from unbroken.errors import PartialAnswer, RestOfAnswer

SWITCH = (
    "nothing is known of how this server continues an answer; if it does, name the style:"
    ' continuation=..., --continuation STYLE, or continuation = "..." for an upstream of the relay'
)

_DEEPSEEK = "api.deepseek.com"

_ONCE = b"idempotency-key"
"""A header that names a request that may be sent again, but not another one."""


class NotContinuableError(Exception):
    """An answer cannot be continued; the message says why. It never leaves the core."""


class Spent(NamedTuple):
    """Output that came before a seam.

    Attributes:
        amount: how much.
        is_told: whether it is the server's count of tokens, or ours of pieces.
    """

    amount: int = 0
    is_told: bool = True


class Extension(msgspec.Struct, frozen=True):
    """A request for the rest of an answer.

    Attributes:
        request: the request.
        text: the text that the caller has.
        held_back: white space at its end that is not in the request.
    """

    request: Request
    text: str
    held_back: str


def style_for(request: Request, fmt: ContinuationFormat | None, declared: Style | None) -> Style:
    """Return the style in which the server of a request is asked to continue.

    Raises:
        NotContinuableError: it is not known, or the dialect does not have it.
    """
    if fmt is None:
        raise NotContinuableError("answers of this dialect cannot be continued by prefix")
    style = fmt.only_style or declared or continuation_at(request.url)
    if style is None:
        raise NotContinuableError(SWITCH)
    if style not in fmt.styles:
        raise NotContinuableError(f"the dialect has no style {style!r}; it has {', '.join(sorted(fmt.styles))}")
    return style


def extension_of(
    request: Request, fmt: ContinuationFormat | None, declared: Style | None, transcript: Transcript, spent: Spent
) -> Extension:
    """Build the request that asks for the rest of an answer.

    Args:
        request: the request of the first attempt.
        fmt: how the dialect continues.
        declared: the style that the caller has named.
        transcript: what the caller has.
        spent: the output of all attempts so far.

    Raises:
        NotContinuableError: it cannot be continued exactly, or nobody knows how.
    """
    style, body = style_for(request, fmt, declared), _body(request)
    assert fmt is not None, "a style has a format"
    if problem := fmt.obstacle(body, request.url) or transcript.obstacle:
        raise NotContinuableError(problem)
    text = transcript.text
    sent = text if fmt.keeps_space(body, request.url, style) else text.rstrip()
    _check_text(sent, fmt.stops(body))
    fields = fmt.extended(body, style, sent, transcript.reasoning) | _lowered(body, fmt.limits, spent)
    document = msgspec.json.encode({**_raw(request), **fields})
    extended = Request(request.method, _url(request.url, style), _headers(request), document)
    return Extension(extended, text, text[len(sent) :])


class PartialTranscript:
    """What the caller has of an answer, as far as a typed client's partial answer tells."""

    def __init__(self, partial: PartialAnswer) -> None:
        self.tokens: int | None = None
        self.deltas = 0
        self.reasoning: Mapping[str, str] = {}
        self.text = partial.text
        self.size = len(self.text)
        self.obstacle = "" if self.text else "no text had come"
        if partial.partial_tool_calls:
            self.obstacle = "a tool call had begun"

    def read(self, event: Event) -> None:
        """Do nothing: the partial answer has been read."""

    def rewriter(self) -> Rewriter:
        """Refuse: nothing is spliced."""
        raise NotContinuableError("nothing is spliced behind a partial answer")


def rest_of(
    request: Request | None,
    fmt: ContinuationFormat | None,
    declared: Style | None,
    transcript: Transcript | None,
    spent: Spent = Spent(),  # noqa: B008 - immutable
) -> RestOfAnswer:
    """Return how to ask for the rest of an answer, for a program that goes on by itself. Arguments as above."""
    if request is None or transcript is None:
        return RestOfAnswer(
            None, "what had come is not known here: ask with the typed client, or after_output=continue"
        )
    try:
        extension = extension_of(request, fmt, declared, transcript, spent)
    except NotContinuableError as exc:
        return RestOfAnswer(None, str(exc))
    fields = dict(_body(extension.request))
    messages = fields.pop("messages", None) or [{"role": "user", "content": fields.pop("prompt", "")}]
    options = {name: value for name, value in fields.items() if name not in ("model", "stream", "stream_options")}
    text = extension.text.removesuffix(extension.held_back)
    return RestOfAnswer(messages, options=options, text=text, url=extension.request.url)


def _raw(request: Request) -> dict[str, msgspec.Raw]:
    """Return the fields of a body as they were written."""
    try:
        return msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        raise NotContinuableError("its request is not strict JSON") from None


def _body(request: Request) -> RequestBody:
    _raw(request)
    body = request_body(request.body)
    assert body is not None, "it was read before"
    return body


def _check_text(text: str, stops: list[str]) -> None:
    """Refuse a text that a server could not continue exactly."""
    if not text:
        raise NotContinuableError("no more than white space had come")
    if "\ufffd" in text:
        raise NotContinuableError("a character of its text came in halves")
    if any(text.endswith(stop[:size]) for stop in stops for size in range(1, len(stop))):
        raise NotContinuableError("a stop sequence may have begun at the end of its text")


def _lowered(body: RequestBody, limits: tuple[str, ...], spent: Spent) -> dict[str, int]:
    """Return the limits of the output without what has come of it."""
    fields = {}
    for name in limits:
        if (limit := count(body.get(name))) is not None:
            fields[name] = limit - spent.amount
            if fields[name] < 1:
                raise NotContinuableError(f"its {name} were used up")
    if least := count(body.get("min_tokens")):
        fields["min_tokens"] = max(0, least - spent.amount)
    return fields


def _url(url: str, style: Style) -> str:
    """Return the URL at which the rest is asked for: DeepSeek continues under ``/beta`` alone."""
    parts = urlsplit(url)
    if style != "prefix" or parts.hostname != _DEEPSEEK or parts.path.startswith("/beta/"):
        return url
    path = "/beta/" + parts.path.removeprefix("/v1").lstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, parts.fragment))


def _headers(request: Request) -> Headers:
    if request.is_signed:
        raise NotContinuableError("its request is signed")
    return tuple(field for field in request.headers if field[0].lower() != _ONCE)
