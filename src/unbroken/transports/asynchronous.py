"""The transport for asyncio and trio, and the body of its responses: base classes for every library."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any, ClassVar

from unbroken.core.continuation.format import Style
from unbroken.core.policy import Policy
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.notices import RetryCallback
from unbroken.errors import TurnError
from unbroken.transports.shared import LibraryTransports, LiveReport, Rule, refuse, wire_options
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.contract import AsyncWire
from unbroken.wire.inner import AsyncInnerWire


class AsyncRuleBody:
    """The body of a response: bytes of one attempt; errors are the library's exceptions.

    Attributes:
        report: the report of the turn.
    """

    def __init__(self, rule: Rule, driver: AsyncDriver, request: Any) -> None:
        self.report = LiveReport(driver)
        self._rule = rule
        self._driver = driver
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self  # not a generator: an abandoned generator must be finalised

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._driver)
        except TurnError as exc:
            self.report.error = exc
            raise self._rule.error(exc, self._request) from exc

    async def aclose(self) -> None:
        """End the exchange now."""
        await self._driver.aclose()


class AsyncRuleTransport:
    """A transport that retries and replays generation calls that are cut; other requests pass through untouched.

    Takes the arguments of the library's ``HTTPTransport`` that Unbroken's wire supports, and refuses the others.
    HTTP/2 is offered by default, because PING needs it.

    Args:
        verify: ``True`` for the system's trust store, a path to a CA file, an ``SSLContext``, or ``False``.
        cert: client certificate: a file, or files of certificate, key and password.
        trust_env: use the environment's proxies.
        http1: must be true.
        http2: offer HTTP/2.
        limits: limits of the pool for requests that are not generation calls; a generation call has a connection of
            its own.
        proxy: a proxy for every host; or a list of proxies and ``"direct"`` in the order of preference: the next one is
            taken where one fails.
        uds: refused, as are ``local_address``, ``retries`` and ``socket_options``.
        local_address: refused.
        retries: refused: ``policy`` has the limits.
        socket_options: refused.
        policy: the limits of a turn.
        on_retry: called at every retry and replay.
        inner: a transport that sends requests instead of Unbroken's wire, without PING.
        continuation: how the server continues an answer that was cut (``"prefix"``, ``"continue_final_message"``,
            ``"assistant"`` or ``"completion"``); ``None`` for what is known of a provider by its host. Used with
            ``Policy.after_output="continue"``.

    Raises:
        UsageError: an option that is not supported, or a policy that has answers begin again: only the typed client can
            tell that.
    """

    library: ClassVar[ModuleType]
    body: ClassVar[type[AsyncRuleBody]]

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        limits: Any = None,
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Any = None,
        *,
        policy: Policy | None = None,
        on_retry: RetryCallback | None = None,
        inner: Any = None,
        continuation: Style | None = None,
    ) -> None:
        refuse(uds=uds, local_address=local_address, retries=retries, socket_options=socket_options, http1=not http1)
        self._rule = Rule(self.library, policy, on_retry, continuation)
        self._inner = inner
        self._wire: AsyncWire
        if inner is not None:
            self._wire = AsyncInnerWire(self.library, inner)
            return
        options = wire_options(verify, cert, trust_env, http2, proxy)
        self._wire = AsyncHttpWire(**options)
        self._plain = LibraryTransports(self.library.AsyncHTTPTransport, options, limits)

    async def handle_async_request(self, request: Any) -> Any:
        """Handle a request; see the library. Raises its errors; after a failed turn the cause is Unbroken's error."""
        ours = self._rule.read(request)
        if ours is None:
            return await (self._inner or self._plain.choose(request)).handle_async_request(request)
        rule = self._rule
        policy, timeouts = rule.policy_of(request), rule.timeouts(request)
        driver = AsyncDriver(
            self._wire,
            *ours,
            policy,
            on_retry=rule.on_retry,
            timeouts=timeouts,
            continuation=rule.continuation,
            refused=rule.refused,
        )
        try:
            head = await driver.open()
        except TurnError as exc:
            raise rule.error(exc, request) from exc
        body = self.body(rule, driver, request)
        return rule.response(head, body, body.report)

    async def aclose(self) -> None:
        """Close kept connections."""
        await self._wire.aclose()
        for transport in [self._inner] if self._inner else self._plain.all:
            await transport.aclose()
