"""Options about the connection, which all commands that ask a model share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.config import HOLDS, config_path
from unbroken.cli.options import option, rank, seconds
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.core.policy import Policy

LIMITS, WAY = "How long a turn may take", "The way there"

_LIMIT_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    option(
        LIMITS,
        "--hold WHAT",
        "How much of an answer is held, and can be replayed: prelude (before any output), reasoning, or answer (all).",
        type=click.Choice(HOLDS),
    ),
    option(
        LIMITS,
        "--replays N",
        "How often a turn that was cut while it was held is replayed (3; 8 for a local model).",
        type=int,
    ),
    option(
        LIMITS, "--first-output SECONDS", "How long the model may think before its first output (900).", type=seconds
    ),
    option(LIMITS, "--idle SECONDS", "Silence on the wire after which a connection is lost (600).", type=seconds),
    option(
        LIMITS,
        "--stall SECONDS",
        "Silence of the answer, once it has begun, after which it is lost although the path answers (600).",
        type=seconds,
    ),
    option(
        LIMITS,
        "--stall-output SECONDS",
        "Time without output, once it has begun, after which the answer is lost, whatever else comes (none).",
        type=seconds,
    ),
    option(
        LIMITS,
        "--revive SECONDS",
        "How long a path that does not answer may come back once a second connection stands (30).",
        type=seconds,
    ),
    option(LIMITS, "--give-up-after SECONDS", "No attempt starts later than this (900).", type=seconds),
    option(
        LIMITS,
        "--accept-done",
        "Take a terminator ([DONE]) for the end of a whole answer although the server never says how it ended.",
        is_flag=True,
    ),
    option(
        LIMITS,
        "--after-output CHOICE",
        "What a cut after the first output does. raise: an error (the default); continue: the rest is asked for, with"
        " the text so far as its beginning, where the server is known to continue it; restart: the answer begins again,"
        " below a line (unbroken run alone, on a terminal).",
        type=click.Choice(("raise", "continue", "restart")),
    ),
    option(
        LIMITS,
        "--background",
        "Have Responses go on at the server, so that a cut one is taken up where it was. They are kept there for some"
        " minutes, and start more slowly.",
        is_flag=True,
    ),
    option(
        LIMITS,
        "--continuation STYLE",
        "How a server continues an answer of which that is not known: prefix, continue_final_message, assistant or"
        " completion.",
        type=click.Choice(("prefix", "continue_final_message", "assistant", "completion")),
    ),
)

WAY_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    option(WAY, "--ping SECONDS", "Interval of HTTP/2 PING, which keeps the path busy (10); 0 for none.", type=seconds),
    option(
        WAY,
        "--connect SECONDS",
        "How long a connection may take to be made, with proxy and TLS (10).",
        type=seconds,
    ),
    option(
        WAY,
        "--proxy URL",
        "http, https, socks5 or socks5h, for every host; by default what HTTPS_PROXY and its like say. May be repeated,"
        " also with direct: the next one is taken where one fails.",
        multiple=True,
    ),
    option(WAY, "--no-proxy", "Connect directly, whatever the environment says.", is_flag=True),
    option(WAY, "--ca-file FILE", "PEM file of certificate authorities, instead of the system's."),
    option(
        WAY,
        "--journal/--no-journal",
        "Keep a journal of lost attempts, without content, for unbroken doctor (the default).",
        default=True,
    ),
)
"""The options about the way to the server."""


POLICY_FIELDS = {
    "hold": "hold",
    "replays": "replays",
    "first_output": "first_output_timeout",
    "idle": "idle_timeout",
    "stall": "stall_timeout",
    "stall_output": "stall_output_timeout",
    "revive": "revive",
    "give_up_after": "give_up_after",
    "accept_done": "accept_done",
    "after_output": "after_output",
    "background": "background",
    "ping": "ping_interval",
    "connect": "connect_timeout",
}
"""The option of each limit, and the field of :class:`unbroken.Policy` that it sets."""


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about the connection to a command."""
    return add_options(command, (*_LIMIT_OPTIONS, *WAY_OPTIONS))


def add_options(command: Callable[..., Any], options: Sequence[Callable[[Any], Any]]) -> Callable[..., Any]:
    """Add options to a command, in the help in this order and before those it has."""
    for add in reversed(options):
        command = add(command)
    return command


def policy_from(options: Mapping[str, Any]) -> Policy:
    """Return the limits of a turn.

    Raises:
        UsageError: a limit is invalid; the message names the option.
    """
    from unbroken.core.policy import Policy

    limits = {field: options[name] for name, field in POLICY_FIELDS.items() if options[name] is not None}
    try:
        return Policy(**limits)
    except UsageError as exc:  # the message begins with the name of the field
        field, _, rest = str(exc).partition(" ")
        option_name = next(name for name, known in POLICY_FIELDS.items() if known == field)
        raise UsageError(f"--{option_name.replace('_', '-')} {rest}") from None


def proxy_from(ctx: click.Context, options: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    """Return the proxy, or the paths in the order of preference: ``None`` for the environment's, ``""`` for none.

    Of ``--proxy`` and ``--no-proxy``, the one from the source with the higher :func:`rank` applies.

    Raises:
        UsageError: both come from the same source, or a proxy cannot be used; the message names its source.
    """
    given: tuple[str, ...] = options["proxy"]
    if options["no_proxy"]:
        if any(given) and rank(ctx, "proxy") == rank(ctx, "no_proxy"):
            raise UsageError("--proxy and --no-proxy exclude each other")
        if not any(given) or rank(ctx, "proxy") < rank(ctx, "no_proxy"):
            return ""
    if not given:
        return None
    from unbroken.wire.proxies import GivenProxy, parse_paths

    sources = {3: "--proxy", 2: "UNBROKEN_PROXY", 1: f"{config_path()}: proxy"}
    source = sources[rank(ctx, "proxy")]
    parse_paths(given, source)
    paths = tuple(GivenProxy(path, source) for path in given)
    return paths if len(paths) > 1 else paths[0]
