"""``unbroken relay``: the rule for every program that takes a base URL."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.options import option, seconds, size
from unbroken.cli.serving import PREFIX, WHERE, RelayCommand, find_upstreams, serving_options, settings_from
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.relay.settings import Settings

_WHO, _TAKES, _SHOWN = "Who may ask", "How much it takes on", "What is shown"

LOG_FORMATS = ("text", "json", "none")


@click.command("relay", cls=RelayCommand)
@serving_options
@option(
    WHERE,
    "--inject-key",
    "Put the upstream's key, from this environment, in the place of the client's; then a token is demanded.",
    prefix=PREFIX,
    is_flag=True,
)
@option(_WHO, "--host ADDRESS", "Address to listen on (127.0.0.1).", prefix=PREFIX, default="127.0.0.1")
@option(_WHO, "--port N", "Port to listen on (8765); 0 for a free one.", prefix=PREFIX, type=int, default=8765)
@option(
    _WHO,
    "--token-env NAME",
    "Variable that holds the token which clients must show (UNBROKEN_RELAY_TOKEN).",
    prefix=PREFIX,
    default="UNBROKEN_RELAY_TOKEN",
)
@option(_WHO, "--allow-host NAME", "A name by which clients call it besides localhost.", prefix=PREFIX, multiple=True)
@option(
    _WHO, "--allow-origin URL", "A web origin that may read answers (CORS); * for all.", prefix=PREFIX, multiple=True
)
@option(_TAKES, "--max-turns N", "Turns that may run at once (1000), in each worker.", prefix=PREFIX, type=int)
@option(_TAKES, "--max-body SIZE", "Body of a generation call, held to be sent again (64M).", prefix=PREFIX, type=size)
@option(_TAKES, "--max-header SIZE", "Headers of a request (64K).", prefix=PREFIX, type=size)
@option(
    _TAKES,
    "--receive-timeout SECONDS",
    "How long a client may take to send a request (60).",
    prefix=PREFIX,
    type=seconds,
)
@option(
    _TAKES, "--grace SECONDS", "How long running turns may go on when it is stopped (30).", prefix=PREFIX, type=seconds
)
@option(_TAKES, "--workers N", "Processes that serve together (1).", prefix=PREFIX, type=int, default=1)
@option(
    _SHOWN,
    "--log-format FORMAT",
    "text: a line for each request; json: the same for machines; none.",
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
    http://127.0.0.1:8765/openai/v1, /anthropic, /google, /deepseek/v1, ... as its base URL. What it does is shown at
    http://127.0.0.1:8765/_unbroken/.

    \b
      unbroken relay
      OPENAI_BASE_URL=http://127.0.0.1:8765/openai/v1 aider
      ANTHROPIC_BASE_URL=http://127.0.0.1:8765/anthropic claude
      unbroken relay --upstream work=https://llm.example.com/v1 --default work

    Options may also stand in the configuration file, below [relay], or in the environment, as UNBROKEN_RELAY_PORT and
    so on; those about the connection also above it, and as UNBROKEN_PROXY and so on. Ctrl-C or SIGTERM lets running
    turns finish; a second one ends at once.
    """  # noqa: D301 - click's mark
    from unbroken.cli.terminal import say
    from unbroken.relay.server import listen, origin_of
    from unbroken.relay.workers import serve_together

    workers = options["workers"]
    if workers < 1:
        raise UsageError("--workers must be 1 or more")
    settings = _settings(ctx, options)
    sock = listen(options["host"], options["port"])
    origin = origin_of(sock)
    say(f"listening on {origin}")
    if settings.token and not os.environ.get(options["token_env"]):
        say(f"token: {settings.token} (made for this run; set {options['token_env']} to choose one)")
    if options["log_format"] == "text":
        say(f"status page: {origin}/_unbroken/")
        if settings.default:
            say(f"/v1/... goes to {settings.default}, {settings.upstreams[settings.default].base_url}")
    log = {"as_json": options["log_format"] == "json", "quiet": options["quiet"]}
    serve_together(workers, settings, sock, None if options["log_format"] == "none" else log)


def _settings(ctx: click.Context, options: Mapping[str, Any]) -> Settings:
    from unbroken.relay.settings import is_loopback

    host, inject = options["host"], options["inject_key"]
    token = os.environ.get(options["token_env"], "").strip()
    if not token and (inject or not is_loopback(host)):
        token = secrets.token_urlsafe(24)
    upstreams = find_upstreams(options["upstream"], os.environ, inject=inject)
    named = {name.lower() for name in options["allow_host"]}
    return settings_from(
        ctx,
        options,
        upstreams,
        inject_key=inject,
        token=token,
        hosts=frozenset(named | ({host} if host not in ("0.0.0.0", "::", "") else set())),
        origins=frozenset(options["allow_origin"]),
        **{key: options[key] for key in ("max_turns", "max_body", "max_header", "receive_timeout", "grace")},
    )
