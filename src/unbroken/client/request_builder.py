"""Building of requests from messages, tools and options, the same for sync and async."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from unbroken import __version__
from unbroken.core.continuation.format import Style, style_named
from unbroken.core.dialect import Call
from unbroken.core.dialects import find_dialect
from unbroken.core.http import Request, redacted
from unbroken.core.policy import Policy
from unbroken.core.providers import Provider, check_base_url, choose_provider, find_key
from unbroken.core.resumption.refused import RefusedBackgrounds
from unbroken.errors import UsageError

_COUNTS = re.compile(rb"stream_options|include_usage")

Messages: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A prompt, or a conversation in the dialect's own form (``{"role": ..., "content": ...}``)."""


class RequestBuilder:
    """A builder of requests to one provider; arguments as for :class:`unbroken.Client`."""

    def __init__(
        self,
        provider: str | None,
        *,
        api_key: str | None,
        base_url: str | None,
        model: str | None,
        policy: Policy | None,
        headers: Mapping[str, str] | None,
        environ: Mapping[str, str] | None = None,
        key_env: str | None = None,
        dialect: str | None = None,
        continuation: Style | None = None,
        relay: str | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.provider: Provider = choose_provider(provider, base_url, environ)
        self.relay = relay
        if relay is not None:
            check_base_url(relay, "relay")
            if base_url is None:
                at_relay = f"{relay.rstrip('/')}/{self.provider.name}"
                self.provider = msgspec.structs.replace(self.provider, base_url=at_relay)
        self.policy = (policy or Policy()).unless_set(self.provider.replays)
        self._model = model or self.provider.model
        self.key = api_key if api_key is not None else find_key(self.provider, key_env, environ)
        self._headers = dict(headers or {})
        self._dialect = find_dialect(dialect or self.provider.dialect)
        is_its_own = self._dialect.name == self.provider.dialect
        self.continuation = style_named(continuation) or (self.provider.continuation if is_its_own else None)
        self.refused = RefusedBackgrounds()
        """The servers that have refused to let a response go on."""
        self.counts = self.provider.counts
        """Whether token counts are asked for: some servers refuse ``stream_options``, in which chat completions ask."""

    def refuses_counts(self, refusal: bytes) -> bool:
        """Return whether the body of a refusal says that counts may not be asked for; then they are not any more."""
        refused = bool(_COUNTS.search(refusal))
        self.counts = self.counts and not refused
        return refused

    def build(
        self,
        messages: Messages,
        model: str | None,
        tools: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
    ) -> tuple[Request, Call]:
        """Build the request for a streamed answer.

        Raises:
            UsageError: no model, an empty prompt, options that are not JSON, or a base URL that does not fit the
                dialect.
        """
        dialect, chosen = self._dialect, self._model_for(model)
        body = dialect.body(chosen, _messages(messages), tools or (), self.counts) | dict(options)
        request = Request("POST", dialect.url(self.provider.base_url, chosen), self._fields(), _json(body))
        call = dialect.recognise(request)
        if call is None:  # legacy completions are not made at the root of a server
            shown = redacted(self.provider.base_url)
            raise UsageError(f"{dialect.name} is not spoken at {shown}: does the base URL lack a path, such as /v1?")
        return request, call

    def _model_for(self, model: str | None) -> str:
        chosen = model or self._model
        if not chosen:
            raise UsageError(f"name a model: {self.provider.name} has no default")
        return chosen

    def _fields(self) -> tuple[tuple[bytes, bytes], ...]:
        fields = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "User-Agent": f"unbroken/{__version__}",
            **self._dialect.headers,
        }
        if self.relay is not None:
            fields["X-Unbroken-Key"] = secrets.token_urlsafe(16)
        if self.key:
            fields |= self._dialect.credentials(self.key)
        replaced = {name.lower() for name in self._headers}
        fields = {name: value for name, value in fields.items() if name.lower() not in replaced} | self._headers
        try:
            return tuple((name.encode("ascii"), value.encode("latin-1")) for name, value in fields.items())
        except UnicodeEncodeError:
            raise UsageError("the API key or a header holds characters that HTTP cannot carry") from None


def _messages(messages: Messages) -> list[Any]:
    if not messages:
        raise UsageError("there is nothing to ask: the messages are empty")
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, UnicodeEncodeError, ValueError) as exc:
        raise UsageError(f"the request is not JSON: {exc}") from None
