"""Requests that are not generation calls: streamed through both ways, never held and never sent again."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio

from unbroken.core.actions import Limits
from unbroken.core.dialect import Dialect, GatewayError
from unbroken.core.http import Head, Headers, Request
from unbroken.core.policy import Policy
from unbroken.errors import UsageError, WireError
from unbroken.relay import asgi, headers
from unbroken.relay.client_request import ClientLeft, ClientRequest, Rejection
from unbroken.relay.errors import STOPPED, gateway_error
from unbroken.relay.recorder import Outcome
from unbroken.relay.turns import LAST_WORDS
from unbroken.wire.async_http import AsyncHttpExchange, AsyncHttpWire

LOOK_AFTER_CLIENT = 0.05
"""Seconds between two looks at a client whose body is on its way."""


class Passthrough:
    """One request that is passed through.

    Args:
        upstream: name of the upstream.
        wire: the wire to it.
        incoming: the client's request.
        send: ASGI's ``send``, for the response.
        dialect: the upstream's dialect, for the format of an error if there is no response.
        policy: the policy whose limits of connecting, idle time and PING apply.
        extra: fields that are added to the response.

    Attributes:
        upstream: name of the upstream.
        outcome: how it ended.
        status: the status that was sent, ``None`` before.
        bytes: how many bytes of the body were sent to the client.
        detail: one line for a person if it failed, or ``""``.
    """

    def __init__(
        self,
        upstream: str,
        wire: AsyncHttpWire,
        incoming: ClientRequest,
        send: asgi.Send,
        dialect: Dialect,
        policy: Policy,
        extra: Headers,
    ) -> None:
        self.upstream = upstream
        self.outcome = Outcome.PASSED
        self.status: int | None = None
        self.bytes = 0
        self.detail = ""
        self._wire = wire
        self._incoming = incoming
        self._send = send
        self._dialect = dialect
        self._extra = extra
        self._limits = Limits(policy.connect_timeout, policy.idle_timeout, None, policy.ping_interval, math.inf)
        self._sent = anyio.Event()
        self._finished = False
        self._rejected: Rejection | ClientLeft | None = None

    async def run(self, request: Request, body: bytes | None = None) -> None:
        """Send the request and hand the response on.

        Args:
            request: the request without its body.
            body: the body, if it has been read already; ``None`` to hand it on as it comes.

        Raises:
            asgi.Broken: the response is not whole.
            Rejection: the client was too slow.
        """
        try:
            await self._run_upstream(request, body)
        except anyio.get_cancelled_exc_class():
            await self._stop()
            raise
        if isinstance(self._rejected, Rejection) and self.status is None:
            raise self._rejected
        if self._rejected is not None and self.outcome is Outcome.PASSED:
            self.outcome = Outcome.LEFT
        if self.outcome is Outcome.CUT:
            raise asgi.Broken

    async def _run_upstream(self, request: Request, body: bytes | None) -> None:
        async with anyio.create_task_group() as tasks:
            content = self._held(body) if body is not None else self._content(tasks.cancel_scope)
            has_body = bool(body) if body is not None else self._incoming.has_body
            exchange = self._wire.exchange(request, content=content if has_body else None)
            if not has_body:
                self._sent.set()
            tasks.start_soon(self._end_with_client, tasks.cancel_scope)
            try:
                await self._relay_response(exchange, request.method)
            finally:
                await exchange.aclose()
            tasks.cancel_scope.cancel()

    async def _relay_response(self, exchange: AsyncHttpExchange, method: str) -> None:
        try:
            head = await exchange.send(self._limits)
            assert isinstance(head, Head), "these limits suspect no path"
            fields = headers.downwards(head, stream=False, to_head=method == "HEAD")
            self.status = head.status
            await asgi.start(self._send, head.status, [*fields, *self._extra])
            while chunk := await exchange.read(self._limits):
                assert isinstance(chunk, bytes), "the head has come"
                self.bytes += len(chunk)
                await asgi.body(self._send, chunk)
            self._finished = True
            await asgi.body(self._send, b"", more=False)
        except (WireError, UsageError) as exc:
            await self._fail(gateway_error(exc))

    async def _fail(self, error: GatewayError) -> None:
        self.detail = error.message
        if self.status is not None:
            self.outcome = Outcome.CUT
            return
        self.outcome = Outcome.UNREACHABLE
        self.status = error.status
        await asgi.answer(
            self._send,
            error.status,
            self._dialect.error_body(error),
            headers=self._extra,
            close=not self._sent.is_set(),
        )

    async def _stop(self) -> None:
        """Report to the client that the relay is stopped, if no response has begun."""
        if not self._finished:
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await self._fail(STOPPED)
            self.outcome = Outcome.STOPPED

    async def _content(self, scope: anyio.CancelScope) -> AsyncIterator[bytes]:
        """Yield the body as it comes. A client that leaves or is too slow ends the exchange, without a wire error."""
        try:
            async with aclosing(self._incoming.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (ClientLeft, Rejection) as exc:
            self._rejected = exc
            scope.cancel()
            await anyio.sleep_forever()
        self._sent.set()

    async def _held(self, body: bytes) -> AsyncIterator[bytes]:
        self._sent.set()
        yield body

    async def _end_with_client(self, scope: anyio.CancelScope) -> None:
        while not self._sent.is_set() and not self._incoming.has_left:
            with anyio.move_on_after(LOOK_AFTER_CLIENT):  # while the upstream stalls, the body is not read
                await self._sent.wait()
        if self._sent.is_set():
            await self._incoming.left()
        if not self._finished:
            self._rejected = ClientLeft()
            scope.cancel()
