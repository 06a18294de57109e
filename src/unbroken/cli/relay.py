"""``unbroken relay``: the rule for every program that takes a base URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.options import count, option, port, rank, seconds, size, warn_of_readers
from unbroken.cli.relay_options import PREFIX, WHERE, RelayCommand, serving_options, settings_from
from unbroken.cli.upstreams import default_upstream, find_upstreams, parse_upstreams
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.relay.settings import Settings

_WHO, _KEPT = "Who may ask", "Turns that outlive their client"
_TAKES, _SHOWN = "How much it takes on", "What is shown"

LOG_FORMATS = ("text", "json", "none")

_LIMITS = ("max_turns", "max_body", "max_held", "max_header", "receive_timeout", "send_timeout", "grace", "max_kept")

_EVERYWHERE = ("0.0.0.0", "::", "")
"""Wildcard addresses to listen on, which are not names of a host."""


@click.command("relay", cls=RelayCommand, warns_itself=True)
@serving_options
@option(WHERE, "--default NAME", "Upstream of /v1/...; by default the first whose key is set here.", prefix=PREFIX)
@option(
    WHERE,
    "--inject-key",
    "Put the upstream's key in the place of the client's; clients must show the relay's token.",
    prefix=PREFIX,
    is_flag=True,
)
@option(_WHO, "--host ADDRESS", "Address to listen on (127.0.0.1).", prefix=PREFIX, default="127.0.0.1")
@option(_WHO, "--port N", "Port to listen on (8765); 0 for a free one.", prefix=PREFIX, type=port, default=8765)
@option(
    _WHO,
    "--token-env NAME",
    "Variable with the token that clients must show (UNBROKEN_RELAY_TOKEN).",
    prefix=PREFIX,
    default="UNBROKEN_RELAY_TOKEN",
)
@option(
    _WHO,
    "--allow-host NAME",
    "A name by which clients call it besides localhost. May be repeated.",
    prefix=PREFIX,
    multiple=True,
)
@option(
    _WHO,
    "--allow-origin URL",
    "A web page's origin that may read answers (CORS); * for all. May be repeated.",
    prefix=PREFIX,
    multiple=True,
)
@option(
    _KEPT,
    "--keep SECONDS",
    "How long a turn goes on, and is kept, once its client has gone (0: it is ended at once).",
    prefix=PREFIX,
    type=seconds,
    default=0.0,
)
@option(
    _KEPT,
    "--store URL",
    "Where turns are kept: memory:// (in this process), redis://, rediss:// or unix:// (Redis or Valkey).",
    prefix=PREFIX,
    default="memory://",
)
@option(_KEPT, "--max-kept SIZE", "What memory:// keeps of all turns together (256M).", prefix=PREFIX, type=size)
@option(
    _KEPT,
    "--attach-identical",
    "Give such a turn to any identical request of the same credential, not only to one marked as a retry.",
    prefix=PREFIX,
    is_flag=True,
)
@option(_TAKES, "--max-turns N", "Turns that may run at once (1000), in each worker.", prefix=PREFIX, type=count)
@option(_TAKES, "--max-body SIZE", "Body of a generation call, held to be sent again (64M).", prefix=PREFIX, type=size)
@option(_TAKES, "--max-held SIZE", "All requests and answers that are held, together (512M).", prefix=PREFIX, type=size)
@option(_TAKES, "--max-header SIZE", "Headers of a request (64K).", prefix=PREFIX, type=size)
@option(
    _TAKES,
    "--receive-timeout SECONDS",
    "How long a client may take to send a request (60).",
    prefix=PREFIX,
    type=seconds,
)
@option(
    _TAKES,
    "--send-timeout SECONDS",
    "How long a client may accept nothing of its response (300).",
    prefix=PREFIX,
    type=seconds,
)
@option(
    _TAKES,
    "--grace SECONDS",
    "How long running turns may go on when it is stopped (30); then they are handed over, or cut.",
    prefix=PREFIX,
    type=seconds,
)
@option(
    _TAKES,
    "--workers N",
    "Processes that serve on one port (1); with --keep they need a --store.",
    prefix=PREFIX,
    type=count,
    default=1,
)
@option(
    _TAKES,
    "--plain-asgi",
    "Write to clients through ASGI alone: each event costs half as much again.",
    prefix=PREFIX,
    is_flag=True,
)
@option(
    _SHOWN,
    "--log-format FORMAT",
    "text: a line for each request, on stderr; json: the same for machines; none.",
    prefix=PREFIX,
    type=click.Choice(LOG_FORMATS),
    default="text",
)
@option(_SHOWN, "--quiet -q", "Only what went wrong, or was saved.", prefix=PREFIX, is_flag=True)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Serve the rule to every program that takes a base URL.

    Programs ask the relay instead of the provider; it forwards, replays what was cut before the first output, and never
    passes a truncated answer off as a whole one. Every provider has a path: give a program
    http://127.0.0.1:8765/openai/v1, /anthropic, /google, /deepseek/v1, ... as its base URL. What happens is shown at
    http://127.0.0.1:8765/_unbroken/.

    \b
      unbroken relay
      OPENAI_BASE_URL=http://127.0.0.1:8765/openai/v1 aider
      ANTHROPIC_BASE_URL=http://127.0.0.1:8765/anthropic claude
      unbroken relay --upstream work=https://llm.example.com/v1 --default work

    Programs send their own keys, which are forwarded to that provider and to nobody else. OPENAI_BASE_URL and its like
    mean nothing here: they are what leads programs to the relay.

    Options may also stand in the configuration file, below [relay], or in the environment, as UNBROKEN_RELAY_PORT and
    so on; those about the connection also above it, and as UNBROKEN_PROXY and so on. Ctrl-C or SIGTERM lets running
    turns finish; a second one ends at once.
    """  # noqa: D301 - click's mark
    from unbroken.relay.server import listen, origin_of
    from unbroken.relay.workers import serve_together

    settings = _settings(ctx, options)
    if settings.keep:
        _check_store(settings, options["workers"])
    sock = listen(options["host"], options["port"])
    _introduce(origin_of(sock), settings, options)
    warn_of_readers(ctx)
    log = {"as_json": options["log_format"] == "json", "quiet": options["quiet"]}
    serve_together(options["workers"], settings, sock, None if options["log_format"] == "none" else log)


def _settings(ctx: click.Context, options: Mapping[str, Any]) -> Settings:
    given = parse_upstreams(options["upstream"])
    upstreams = find_upstreams(given, os.environ, inject=options["inject_key"])
    return settings_from(
        ctx,
        options,
        upstreams,
        default=default_upstream(options["default"], given, upstreams, os.environ),
        inject_key=options["inject_key"],
        token=_token(ctx, options),
        hosts=frozenset(name.lower() for name in _names(options)),
        origins=frozenset(options["allow_origin"]),
        **{key: options[key] for key in _LIMITS},
        plain_asgi=options["plain_asgi"],
        keep=options["keep"],
        store=options["store"],
        attach_identical=options["attach_identical"],
    )


def _check_store(settings: Settings, workers: int) -> None:
    """Refuse a store that cannot be used, before anything is served.

    Raises:
        UsageError: what is wrong with it, without its URL, which may have a password in it.
    """
    import asyncio

    from unbroken.relay.store import MEMORY, make_store
    from unbroken.relay.store.contract import StoreError

    async def try_out() -> None:
        store = make_store(settings.store, settings.keep, settings.max_kept, lambda _: None)
        await store.open()
        await store.aclose()

    if workers > 1 and settings.store == MEMORY:
        raise UsageError(
            "--keep with several --workers needs a --store that they share, such as unix:///run/redis.sock"
        )
    try:
        asyncio.run(try_out())
    except StoreError as exc:
        raise UsageError(f"the store of --store cannot be used: {exc}") from None


def _token(ctx: click.Context, options: Mapping[str, Any]) -> str:
    """Return the token that clients must show; make one if it is needed and not set."""
    import secrets

    from unbroken.relay.settings import is_loopback

    name = options["token_env"]
    if not name.isidentifier():  # it may be the token itself, so it is not shown
        raise UsageError("--token-env takes the name of an environment variable, not a token")
    if token := os.environ.get(name, "").strip():
        return token
    if rank(ctx, "token_env"):  # the user relies on it
        raise UsageError(f"--token-env names {name}, which is not set")
    return secrets.token_urlsafe(24) if options["inject_key"] or not is_loopback(options["host"]) else ""


def _names(options: Mapping[str, Any]) -> list[str]:
    """Return the names by which clients may call the relay, besides those of the loopback."""
    host = options["host"]
    return [*options["allow_host"], *([] if host in _EVERYWHERE else [host])]


def _introduce(origin: str, settings: Settings, options: Mapping[str, Any]) -> None:
    """Print where the relay is. The first line is for scripts, with any log format; the others are in that format."""
    import json

    from unbroken.cli.terminal import say

    say(f"listening on {origin}")
    token = "" if os.environ.get(options["token_env"], "").strip() else settings.token
    if options["log_format"] == "json":
        told = {"status_page": f"{origin}/_unbroken/", "default": settings.default, "token": token}
        say(json.dumps({key: value for key, value in told.items() if value}))
        return
    if token:
        say(f"token: {token} (made for this run; set {options['token_env']} to choose one)")
    if options["host"] in _EVERYWHERE and not options["allow_host"]:
        say("it answers to localhost alone; --allow-host names what else clients may call it")
    say(f"status page: {origin}/_unbroken/")
    if settings.default:
        say(f"/v1/... goes to {settings.default}, {settings.upstreams[settings.default].base_url}")
