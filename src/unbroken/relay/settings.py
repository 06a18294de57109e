"""The settings of a relay: where it forwards to, which clients it admits, and its limits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from unbroken.core.continuation.format import Style, style_named
from unbroken.core.dialects import DEFAULT, find_dialect, versions
from unbroken.core.http import check_url
from unbroken.core.policy import Hold, Policy, hold_named, refuse_restart
from unbroken.core.providers import continuation_at
from unbroken.core.route import is_loopback as is_loopback
from unbroken.errors import UsageError
from unbroken.relay.store.contract import LEASE
from unbroken.wire.proxies import ProxySetting

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VERSION = re.compile(r"(?<!/)/v1\Z")  # a host may be called v1


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """A server that the relay forwards to.

    Attributes:
        name: the first segment of the paths that lead to it, such as ``"openai"``.
        base_url: the base URL as in a client; a trailing ``/v1`` is part of the paths that clients ask for.
        dialect: name of its dialect, which says where its key goes.
        key: the key to inject; ``None`` if the client's own credentials are forwarded. Never shown by ``repr``.
        key_env: the variable of the key, for an error if it is missing; ``""`` if no key is needed.
        proxy: a proxy for this upstream alone, or a list of paths; ``None`` for the relay's.
        ca_file: PEM file of certificate authorities for this upstream alone; ``None`` for the relay's.
        accept_done: :attr:`unbroken.Policy.accept_done` for this upstream alone; ``None`` for the relay's.
        hold: :attr:`unbroken.Policy.hold` for this upstream alone; ``None`` for the relay's.
        background: :attr:`unbroken.Policy.background` for this upstream alone; ``None`` for the relay's.
        replays: :attr:`unbroken.Policy.replays` for this upstream where the relay's policy sets none.
        continuation: the style in which it continues an answer, ``None`` for the relay's, or what is known of its host.
    """

    name: str
    base_url: str
    dialect: str = DEFAULT.name
    key: str | None = dataclasses.field(default=None, repr=False)
    key_env: str = ""
    proxy: ProxySetting = None
    ca_file: str | None = None
    accept_done: bool | None = None
    hold: Hold | None = None
    background: bool | None = None
    replays: int | None = None
    continuation: Style | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in versions():
            raise UsageError(f"{self.name!r} cannot name an upstream: lower-case letters, digits, '-', '_' and '.'")
        find_dialect(self.dialect)
        if self.hold is not None:
            hold_named(self.hold)
        style_named(self.continuation)
        check_url(self.base_url)
        if "?" in self.base_url or "#" in self.base_url:
            raise UsageError(f"the base URL of {self.name} cannot have a query")
        if "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise UsageError(f"the base URL of {self.name} cannot carry credentials")

    @property
    def root(self) -> str:
        """The URL to which the paths of requests are appended."""
        return _VERSION.sub("", self.base_url.rstrip("/"))

    def url_of(self, path: str) -> str:
        """Return the URL of a path (without its leading slash) below this upstream's name.

        If the path begins with the base URL's own path, as some clients' paths do (Groq's, or those of clients in
        which only the host was replaced), that is not repeated.
        """
        prefix = urlsplit(self.root).path.strip("/")
        if prefix and f"{path}/".startswith(f"{prefix}/"):
            path = path[len(prefix) :].removeprefix("/")
        return f"{self.root}/{path}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one relay. Durations are float seconds, sizes bytes.

    Attributes:
        upstreams: the upstreams to forward to, by name.
        default: name of the upstream of ``/v1/...``; ``""`` if there is none.
        policy: the limits of a turn.
        continuation: the style in which upstreams continue an answer for which none is given or known.
        proxy: proxy to the upstreams; ``None`` for the environment's, ``""`` for none; or a list of paths.
        verify: ``True`` for the system's trust store, or a PEM file.
        heartbeat: downstream silence after which a heartbeat is sent, once the upstream has answered with its headers;
            0 for never.
        early_heartbeat: send it also before the upstream has answered. A late error is then an event, not a status.
        token: the token that clients must show; ``""`` if none is needed. Never shown by ``repr``.
        inject_key: replace the client's credentials with the upstream's key.
        hosts: names besides addresses of the loopback by which clients may call the relay.
        origins: web origins that may read answers (CORS), ``"*"`` for all.
        path_secret: the first segment that every path must have, ``""`` for none: it keeps other users of the machine
            out. Never shown by ``repr``.
        max_turns: how many turns may run at once, those whose request is still arriving included.
        max_held: how many bytes may be held at once, in all: of requests, and of responses whose attempt has not spoken
            (those that hold more than the prelude, and those that are not streamed).
        send_timeout: how long a client may accept nothing of its response.
        max_body: how long the body of a generation call may be; it is held in memory to be sent again.
        max_header: how long the headers of a request may be.
        receive_timeout: how long a client may take to send the headers of a request, and again to send its body (more
            for a long one, see :data:`unbroken.relay.client_request.MIN_RATE`).
        keep: how long a turn goes on, and is kept after its end, once its client has gone; 0 for not at all.
        store: where turns are kept: ``memory://``, or the URL of a Redis or Valkey. Never shown by ``repr``.
        store_was_there: whether that was found to be in order, so that the relay begins although it is away now.
        max_kept: how many bytes ``memory://`` keeps.
        lease: how long a turn in a store that relays share counts as running if its relay does not say so once more.
        attach_identical: whether any identical request is answered with a turn whose client has gone, not only one that
            is marked as a retry.
        grace: how long running turns may take to finish once the relay is stopped.
        journal: under which name lost attempts are noted in the user's journal, such as ``"relay"``; ``""`` for none.
        plain_asgi: write to clients through ASGI alone, which costs more than through parts of uvicorn's own.
    """

    upstreams: Mapping[str, UpstreamSettings]
    default: str = ""
    policy: Policy = dataclasses.field(default_factory=Policy)
    continuation: Style | None = None
    proxy: ProxySetting = None
    verify: bool | str = True
    heartbeat: float = 15.0
    early_heartbeat: bool = False
    token: str = dataclasses.field(default="", repr=False)
    inject_key: bool = False
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    path_secret: str = dataclasses.field(default="", repr=False)
    max_turns: int = 1000
    max_held: int = 512 * 1024 * 1024
    send_timeout: float = 300.0
    max_body: int = 64 * 1024 * 1024
    max_header: int = 64 * 1024
    receive_timeout: float = 60.0
    grace: float = 30.0
    plain_asgi: bool = False
    journal: str = ""
    keep: float = 0.0
    store: str = dataclasses.field(default="memory://", repr=False)
    store_was_there: bool = False
    max_kept: int = 256 * 1024 * 1024
    lease: float = LEASE
    attach_identical: bool = False

    def __post_init__(self) -> None:
        refuse_restart(self.policy, "the relay")
        if self.default and self.default not in self.upstreams:
            known = ", ".join(self.upstreams)
            raise UsageError(f"the default upstream {self.default!r} is not there; known are {known}")
        if self.inject_key and not self.token:
            raise UsageError("a relay that injects keys demands a token, or every program here could use them")

    def policy_for(
        self, upstream: UpstreamSettings, hold: Hold | None = None, background: bool | None = None
    ) -> Policy:
        """Return the limits of a turn at one upstream.

        Args:
            upstream: the upstream.
            hold: what the request itself asks for, ``None`` for nothing.
            background: likewise.
        """
        own = {
            "accept_done": upstream.accept_done,
            "hold": hold or upstream.hold,
            "background": upstream.background if background is None else background,
        }
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        policy = self.policy.unless_set(upstream.replays)
        return dataclasses.replace(policy, **given) if given else policy

    def continuation_for(self, upstream: UpstreamSettings) -> Style | None:
        """Return the style in which an upstream continues an answer, ``None`` if it is not known."""
        return upstream.continuation or continuation_at(upstream.base_url) or self.continuation
