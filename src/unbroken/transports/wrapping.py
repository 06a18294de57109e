"""``unbroken.wrap``: an SDK's client with the transport installed and its own retries off."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from unbroken.core.policy import Policy
from unbroken.drivers.notices import RetryCallback
from unbroken.errors import UsageError

ClientT = TypeVar("ClientT")


def wrap(
    client: ClientT, *, policy: Policy | None = None, on_retry: RetryCallback | None = None, **options: Any
) -> ClientT:
    """Return a copy of an SDK's client that retries and replays generation calls that are cut.

    There is one retry budget, Unbroken's: the SDK's own retries are off in the copy. Works for the clients of openai,
    anthropic and groq, sync and async, and for others that are built like them. The copy has an HTTP client of its own,
    which closes with it; environment proxies are used as before.

    Args:
        client: such as ``openai.OpenAI()``.
        policy: the limits of a turn.
        on_retry: called at every retry and replay.
        options: further options of :class:`unbroken.Transport`, such as ``verify`` or ``proxy``.

    Raises:
        UsageError: the client cannot be copied with another transport (the docs have a line for each such SDK), or it
            was given an HTTP client whose proxy and trust would be lost; pass them in `options`.
    """
    http_client: Any = getattr(client, "_client", None)
    library_name = type(http_client).__mro__[-2].__module__.partition(".")[0] if http_client is not None else ""
    if library_name not in ("httpx", "httpx2") or not hasattr(client, "copy"):
        raise UsageError(
            f"{type(client).__module__}.{type(client).__name__} cannot be wrapped; see docs/sdks.md for its own line"
        )
    if not options and not type(http_client).__name__.endswith("HttpxClientWrapper"):  # the SDKs' own client
        raise UsageError(
            f"{type(client).__name__} was given an http_client, whose options cannot be read: pass them to wrap as well"
            " (proxy=, verify=, inner=), or give that http_client transport=unbroken.Transport(...)"
        )
    library = importlib.import_module(library_name)
    transports = importlib.import_module(f"unbroken.transports.{library_name}")
    is_async = isinstance(http_client, library.AsyncClient)
    transport = (transports.AsyncTransport if is_async else transports.Transport)(
        policy=policy, on_retry=on_retry, **options
    )
    wrapped: ClientT = client.copy(
        http_client=(library.AsyncClient if is_async else library.Client)(
            transport=transport, timeout=http_client.timeout, follow_redirects=http_client.follow_redirects
        ),
        max_retries=0,
    )
    return wrapped
