"""Reading of a turn's bytes into typed events and typed errors, the same for sync and async."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from urllib.parse import urljoin, urlsplit

from unbroken.core.answer import Answer
from unbroken.core.dialect import Call
from unbroken.core.events import Failed, Restarted, TypedEvent
from unbroken.core.failures import Phase
from unbroken.core.http import Head, redacted
from unbroken.core.policy import Policy
from unbroken.core.report import Report
from unbroken.core.sse import Event, Parser
from unbroken.errors import DecodeError, MalformedStream, ProviderError, StreamCut, TurnError, UnexpectedResponse

MAX_REFUSAL = 64 * 1024
"""How many bytes of an error response are read for its message."""

LOGIN_REQUIRED = 511
"""The status of a captive portal (RFC 6585, section 6)."""

_LOG_IN = "open a page in a browser and log in to the network"

MIN_SECRET = 12
"""The length of the shortest key that is kept out of messages; the shortest of a provider has more than 30."""


class TurnReader:
    """A reader of one turn.

    Args:
        call: the generation call.
        policy: the policy whose cap of an event applies.
        key: the API key, which is removed from errors if the provider repeats it.
        url: the URL that is asked.

    Attributes:
        answer: the answer so far.
    """

    def __init__(self, call: Call, policy: Policy, key: str | None = None, url: str = "") -> None:
        self._call = call
        self._url = url
        self._key = key
        self._max_event = policy.max_event
        self._begin()
        self._accept_done = policy.accept_done
        self._max_document = policy.max_event
        self._document: bytearray | None = None
        self._head: Head | None = None
        self._restarted: list[Restarted] = []

    def _begin(self) -> None:
        self._decoder = self._call.dialect.decoder()
        self.answer = Answer(self._call.dialect, self._decoder)
        self._parser = Parser(self._max_event)

    def open(self, head: Head, *, is_stream: bool) -> None:
        """Take the head of the response; ``is_stream`` says whether events follow."""
        self._head = head
        if not is_stream:
            self._document = bytearray()

    def restart(self, attempt: int) -> Restarted:
        """Discard the answer so far: the attempt of this number begins it again. The next event says so."""
        restarted = Restarted(attempt, len(self.answer.text))
        self._restarted.append(restarted)
        self._begin()
        return restarted

    def feed(self, chunk: bytes, phase: Phase) -> Iterator[TypedEvent]:
        """Return the typed events of the next bytes, which are read as the iterator goes on.

        Args:
            chunk: bytes of the body.
            phase: the phase of the attempt after them.

        Raises:
            MalformedStream: the bytes are not events of the dialect.
            ProviderError: the provider reported an error before the answer had settled.
        """
        if self._document is not None:
            self._hold(self._document, chunk)
            return iter(())
        try:
            events = self._collected(map(self._decode, self._parser.feed(chunk)), phase)
        except DecodeError as exc:
            raise _malformed(exc, phase) from exc
        if phase is Phase.COMPLETE:
            events = itertools.chain(events, self._complete_tool_calls())
        if self._restarted:
            told, self._restarted = self._restarted, []
            events = itertools.chain(told, events)
        return events

    def end(self, phase: Phase) -> Iterator[TypedEvent]:
        """Yield the typed events that the end of the body completes, or those of a whole document.

        Args:
            phase: the phase of the attempt.

        Raises:
            StreamCut: the end is not proven, whatever lies below.
            MalformedStream: as for :meth:`feed`.
            ProviderError: an error status, or an error at the end of the stream.
            UnexpectedResponse: the response is of another kind than was asked for.
        """
        if self._document is None:
            yield from self._collected(map(self._decode, self._parser.end()), phase)
            yield from self._prove(phase)
            return
        head, body = self._opened, bytes(self._document)
        if head.status == LOGIN_REQUIRED:
            raise self._portal(head)
        if head.status >= 400:
            raise self._refused(head, body)
        if head.status >= 300:
            raise self._redirected(head)
        events = self._decoder.decode_whole(body)
        if not events:
            raise self._unexpected(head)
        yield from self._collected([events], phase)
        yield from self._complete_tool_calls()

    def explain(self, error: TurnError, report: Report) -> None:
        """Add the report and the answer so far to an error, so that the caller loses no output."""
        error.report = error.report or report
        if error.held and self.answer.is_empty:  # an error may be raised, and explained, more than once
            with contextlib.suppress(TurnError):
                for _ in self.feed(error.held, Phase.OUTPUT):
                    pass
        if isinstance(error, StreamCut | MalformedStream | ProviderError):
            error.partial = self.answer

    def _decode(self, event: Event) -> Iterable[TypedEvent]:
        if not event.is_bare:
            return self._decoder.decode(event)
        error = self._call.dialect.error_in(event.data)
        return [error] if error else []

    def _prove(self, phase: Phase) -> Iterator[TypedEvent]:
        """Complete the tool calls, if the attempt has proven that the answer is whole."""
        if phase not in (Phase.SETTLED, Phase.COMPLETE):
            raise StreamCut("the stream ended without a proof that the answer is whole", phase=phase)
        self.answer.is_whole_without_reason = self._accept_done
        yield from self._complete_tool_calls()

    def _collected(self, decoded: Iterable[Iterable[TypedEvent]], phase: Phase) -> Iterator[TypedEvent]:
        """Yield the typed events of each SSE event, and add them to the answer as they are taken."""
        try:
            for events in decoded:
                for event in events:
                    if type(event) is Failed:
                        self._check_failure(event)
                    self.answer.add(event)
                    yield event
        except DecodeError as exc:
            raise _malformed(exc, phase) from exc

    def _check_failure(self, said: Failed) -> None:
        """Raise an error of the provider's, unless the answer has ended."""
        if not self.answer.has_finished(self._call.generation.choices):
            raise self._failed(said)

    def _complete_tool_calls(self) -> Iterator[TypedEvent]:
        known = {(call.choice, call.index) for call in self.answer.tool_calls}
        for call in self.answer.parsed_tool_calls():
            if (call.choice, call.index) not in known:
                self.answer.add(call)
                yield call

    def _hold(self, document: bytearray, chunk: bytes) -> None:
        cap = self._max_document if self._opened.status < 300 else MAX_REFUSAL
        document += chunk[: cap - len(document)]

    @property
    def _opened(self) -> Head:
        assert self._head is not None, "the head comes first"
        return self._head

    def _failed(self, said: Failed) -> ProviderError:
        return ProviderError(
            self._without_key(said.message),
            status=self._opened.status,
            kind=said.kind,
            phase=Phase.PRELUDE if self.answer.is_empty else Phase.OUTPUT,
            retryable=said.transient,
        )

    def _refused(self, head: Head, body: bytes) -> ProviderError:
        said = self._call.dialect.read_error(head.status, body)
        message = said.message if said.message.startswith("HTTP ") else f"HTTP {head.status}: {said.message}"
        return ProviderError(
            self._without_key(message),
            status=head.status,
            kind=said.kind,
            phase=Phase.HEADERS,
            retryable=said.transient,
        )

    def _without_key(self, message: str) -> str:
        return message.replace(self._key, "[the API key]") if self._key and _may_be_secret(self._key) else message

    def _redirected(self, head: Head) -> UnexpectedResponse:
        target = head.fields.get("location", "")
        advice = "use that as the base URL"
        if is_elsewhere(target, self._url):
            advice = f"that is another host, such as a captive portal's ({_LOG_IN}), or the server has moved"
        return UnexpectedResponse(
            f"HTTP {head.status}: redirected to {redacted(target) or 'nowhere'}; redirects are not followed: {advice}",
            status=head.status,
            phase=Phase.HEADERS,
        )

    def _unexpected(self, head: Head) -> UnexpectedResponse:
        kind = head.content_type or "no content type"
        page = f"; or it is the page of a captive portal: {_LOG_IN}" if kind == "text/html" else ""
        return UnexpectedResponse(
            f"HTTP {head.status} with {kind} instead of an answer: is the base URL right? "
            f"It is the part before /chat/completions and mostly ends in /v1{page}",
            status=head.status,
            phase=Phase.HEADERS,
        )

    def _portal(self, head: Head) -> UnexpectedResponse:
        message = f"HTTP {head.status}: a captive portal answers instead of the server: {_LOG_IN}"
        return UnexpectedResponse(message, status=head.status, phase=Phase.HEADERS)


def is_elsewhere(location: str, url: str) -> bool:
    """Return whether a redirect leads to another host than the one that was asked."""
    try:
        return urlsplit(urljoin(url, location)).hostname != urlsplit(url).hostname
    except ValueError:
        return True


def _malformed(error: DecodeError, phase: Phase) -> MalformedStream:
    return MalformedStream(f"the stream is broken: {error}", phase=phase)


def _may_be_secret(key: str) -> bool:
    """Return whether a key can be one: local servers take words such as ``ollama``, ``EMPTY`` or ``not-needed``."""
    has_both_cases = key.lower() != key != key.upper()
    return len(key) >= MIN_SECRET and (any(map(str.isdigit, key)) or (has_both_cases and len(key) >= 2 * MIN_SECRET))
