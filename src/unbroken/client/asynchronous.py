"""The client for asyncio and trio."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unbroken.client.reading import MAX_REFUSAL, TurnReader
from unbroken.client.request_builder import Messages, RequestBuilder
from unbroken.core.answer import Answer, PartialToolCall
from unbroken.core.continuation.format import Style
from unbroken.core.events import ToolCall, TypedEvent, Usage
from unbroken.core.http import Head
from unbroken.core.policy import Hold, Policy
from unbroken.core.providers import Provider
from unbroken.core.report import Progress, Report
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.notices import RetryCallback, remark
from unbroken.errors import TurnError
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.contract import AsyncWire
from unbroken.wire.proxies import ProxySetting

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

_REFUSES_A_FIELD = (400, 422)
"""Statuses with which servers refuse a field of the request."""


class AsyncClient:
    """A client of one provider. Use it in an ``async with`` statement, or :meth:`aclose` it, to close kept connections.

    Args:
        provider: a preset (``"deepseek"``, ``"openai"``, ``"anthropic"``, ``"google"``, ``"openrouter"``, ``"groq"``,
            ``"mistral"``, ``"together"``, ``"xai"``, ``"ollama"``, ``"llama.cpp"``); ``None`` for the base URL alone,
            or for the first preset whose key is set.
        api_key: the key; ``None`` to look it up in the variable that the provider's users already set.
        base_url: replaces the preset's URL; the part before ``/chat/completions``.
        model: the model to ask if :meth:`stream` names none.
        policy: the limits of every turn.
        on_retry: called at every retry and replay.
        proxy: a proxy for every host; ``None`` for the environment's, ``""`` for none; or a list of proxies and
            ``"direct"`` in the order of preference: the next one is taken where one fails.
        verify: ``True``, a path to a CA file, an ``SSLContext``, or ``False``.
        headers: further headers for every request.
        key_env: environment variable to look for the key in, instead of the provider's own.
        dialect: name of another dialect than the preset's; :data:`unbroken.core.dialects.DIALECTS` lists them.
        continuation: how the server continues an answer that was cut (``"prefix"``, ``"continue_final_message"``,
            ``"assistant"`` or ``"completion"``); ``None`` for the preset's. Used with
            ``Policy.after_output="continue"``.
        relay: URL of a relay of Unbroken's (``unbroken relay``), by which the provider is asked. Where it keeps turns
            (``--keep``), a turn whose way to the relay is cut goes on behind the last byte that has come. Without it,
            that is done where ``base_url`` leads to a relay at the root of its server.

    Raises:
        UsageError: an unknown provider, a missing key, a bad URL or proxy.
    """

    def __init__(
        self,
        provider: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        model: str | None = None,
        policy: Policy | None = None,
        on_retry: RetryCallback | None = None,
        proxy: ProxySetting = None,
        verify: bool | str | Path | ssl.SSLContext = True,
        headers: Mapping[str, str] | None = None,
        key_env: str | None = None,
        dialect: str | None = None,
        continuation: Style | None = None,
        relay: str | None = None,
        _environ: Mapping[str, str] | None = None,
        _wire: AsyncWire | None = None,
    ) -> None:
        self._requests = RequestBuilder(
            provider,
            api_key=api_key,
            base_url=base_url,
            model=model,
            policy=policy,
            headers=headers,
            environ=_environ,
            key_env=key_env,
            dialect=dialect,
            continuation=continuation,
            relay=relay,
        )
        self._on_retry = on_retry
        self._wire = _wire or AsyncHttpWire(proxy=proxy, verify=verify, environ=_environ)

    @property
    def provider(self) -> Provider:
        """The provider of this client."""
        return self._requests.provider

    def stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        policy: Policy | None = None,
        **options: Any,
    ) -> AsyncTurnStream:
        """Ask the model and stream the answer. Use it in an ``async with`` statement; the request is sent on entering.

        Args:
            messages: a prompt or a conversation.
            model: the model to ask.
            tools: tools in the dialect's form.
            policy: limits for this turn alone.
            options: further fields of the request's body, such as ``temperature``.

        Raises:
            UsageError: no model, no messages, or options that are not JSON.
        """
        chosen = policy or self._requests.policy

        def start() -> tuple[AsyncDriver, TurnReader]:
            request, call = self._requests.build(messages, model, tools, options)
            reader = TurnReader(call, chosen, self._requests.key, request.url)
            driver = AsyncDriver(
                self._wire,
                request,
                call,
                chosen,
                on_retry=self._on_retry,
                continuation=self._requests.continuation,
                kept_at=self._requests.relay or "",
                refused=self._requests.refused,
                on_restart=reader.restart,
            )
            return driver, reader

        counts = self._requests.counts and "stream_options" not in options
        return AsyncTurnStream(start, lambda refusal: counts and self._requests.refuses_counts(refusal))

    async def complete(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        policy: Policy | None = None,
        hold: Hold = "answer",
        **options: Any,
    ) -> Answer:
        """Ask the model, wait, and return the whole answer. Nothing of it is shown, so all of it can be replayed.

        Args:
            messages: a prompt or a conversation.
            model: the model to ask.
            tools: tools in the dialect's form.
            policy: limits for this turn alone.
            hold: how much of an attempt is held, whatever the policy says; see :attr:`unbroken.Policy.hold`.
            options: further fields of the request's body, such as ``temperature``.

        Raises:
            UsageError: as for :meth:`stream`.
            TurnError: as for entering and reading the turn of :meth:`stream`. The error has the report and, where some
                of an answer had come, ``partial``.
        """
        limits = dataclasses.replace(policy or self._requests.policy, hold=hold)
        async with self.stream(messages, model=model, tools=tools, policy=limits, **options) as turn:
            return await turn.read()

    async def aclose(self) -> None:
        """Close kept connections."""
        await self._wire.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class AsyncTurnStream:
    """One turn: use it in an ``async with`` statement, and iterate over its typed events.

    Args:
        start: makes the driver and the reader of a request.
        is_worth_resending: takes the body of a refusal; says whether another request, from ``start``, is worth sending.
    """

    def __init__(
        self, start: Callable[[], tuple[AsyncDriver, TurnReader]], is_worth_resending: Callable[[bytes], bool]
    ) -> None:
        self._start = start
        self._is_worth_resending = is_worth_resending
        self._driver, self._reader = start()
        self._events: Iterator[TypedEvent] = iter(())
        self._ended = False

    @property
    def answer(self) -> Answer:
        """The answer so far; its parts are also attributes of the turn."""
        return self._reader.answer

    async def __aenter__(self) -> AsyncTurnStream:
        """Send the request and wait until an attempt has a response to hand on.

        Raises:
            TurnError: no attempt had one, within the policy.
        """
        try:
            head = await self._open()
            if head.status in _REFUSES_A_FIELD and self._is_worth_resending(await self._refusal()):
                remark("the server refuses stream_options: asking again, without token counts")
                await self._driver.aclose()
                self._driver, self._reader = self._start()
                await self._open()
        except TurnError as error:
            await self._explain(error)
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncTurnStream:
        return self

    async def __anext__(self) -> TypedEvent:
        """Return the next event, as it comes.

        Raises:
            StreamCut: the stream was lost; the error's ``partial`` is the answer so far.
            ProviderError: the provider refused, or reported an error.
            UnexpectedResponse: the response is of another kind than was asked for.
            MalformedStream: the stream broke its own format.
            StateError: the turn was not entered, or was closed before its end.
        """
        try:
            while True:
                for event in self._events:
                    return event
                if self._ended:
                    raise StopAsyncIteration
                self._events = await self._more()
        except TurnError as error:
            await self._explain(error)
            raise

    async def read(self) -> Answer:
        """Read to the end; return the whole answer. Errors as in :meth:`__anext__`."""
        async for _ in self:
            pass
        return self.answer

    async def aclose(self) -> None:
        """End the turn now, in any phase."""
        await self._driver.aclose()

    async def _open(self) -> Head:
        head = await self._driver.open()
        self._reader.open(head, is_stream=self._driver.is_stream)
        return head

    async def _refusal(self) -> bytes:
        """Read the body of a refusal to its end; it is kept for the error."""
        body = b""
        async for chunk in self._driver:
            body += chunk[: MAX_REFUSAL - len(body)]
        self._events = self._reader.feed(body, self._driver.phase)
        return body

    async def _more(self) -> Iterator[TypedEvent]:
        try:
            chunk = await anext(self._driver)
        except StopAsyncIteration:
            self._ended = True
            return self._reader.end(self._driver.phase)
        return self._reader.feed(chunk, self._driver.phase)

    async def _explain(self, error: TurnError) -> None:
        await self._driver.aclose()
        self._reader.explain(error, self._driver.report)

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        return self.answer.text

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return self.answer.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """Complete tool calls."""
        return self.answer.tool_calls

    @property
    def partial_tool_calls(self) -> list[PartialToolCall]:
        """Tool calls that are not complete; do not run them."""
        return self.answer.partial_tool_calls

    @property
    def finish_reason(self) -> str | None:
        """The provider's finish reason; ``None`` until the answer has ended."""
        return self.answer.finish_reason

    @property
    def usage(self) -> Usage:
        """The provider's token counts."""
        return self.answer.usage

    @property
    def progress(self) -> Progress:
        """The progress of the turn, for a user interface that waits. Cheap; may be read from another thread."""
        return self._driver.progress

    @property
    def report(self) -> Report:
        """The report of all attempts of the turn."""
        return self._driver.report
