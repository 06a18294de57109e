"""``unbroken run``: ask a model and stream its answer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unbroken.cli.config import FORMATS
from unbroken.cli.connection import connection_options, policy_from, proxy_from
from unbroken.cli.exits import Interrupted, exit_code
from unbroken.cli.options import ConfiguredCommand, given, option
from unbroken.errors import TurnError, UsageError

if TYPE_CHECKING:
    from unbroken.cli.render import Renderer
    from unbroken.client import Client
    from unbroken.drivers.notices import RetryCallback

PRESETS = (
    "deepseek",
    "openai",
    "anthropic",
    "google",
    "openrouter",
    "groq",
    "mistral",
    "together",
    "xai",
    "ollama",
    "llama.cpp",
)
"""The client's presets; a copy, so that the help does not import the client."""

_PROVIDER, _SHOWN = "Provider selection", "What is shown"


@click.command("run", cls=ConfiguredCommand)
@click.argument("prompt", required=False)
@option(_PROVIDER, "--provider NAME", f"{', '.join(PRESETS)}; without it the first whose key is set.")
@option(_PROVIDER, "--model NAME", "By default the provider's usual one.")
@option(
    _PROVIDER,
    "--base-url URL",
    "Any server that speaks chat completions: its URL up to /chat/completions. Alone it is sent no key.",
)
@option(_PROVIDER, "--api-key-env NAME", "Variable that holds the key, instead of the provider's own.")
@option(
    _PROVIDER,
    "--dialect NAME",
    "The format in which it is asked, such as openai-responses; by default the provider's own.",
)
@option(_PROVIDER, "--system TEXT", "System prompt.")
@option(
    _SHOWN,
    "--format FORMAT",
    "text: the answer as it comes (the default); json: one object at the end; jsonl: events as they come.",
    type=click.Choice(FORMATS),
    default="text",
)
@option(
    _SHOWN,
    "--show-reasoning/--no-show-reasoning",
    "The model's reasoning, on stderr; by default on a terminal.",
    default=None,
)
@option(_SHOWN, "--quiet -q", "Only the answer and errors.", is_flag=True)
@option(_SHOWN, "--verbose -v", "Tell of every attempt at the end.", is_flag=True)
@connection_options
@click.pass_context
def command(ctx: click.Context, /, prompt: str | None, **options: Any) -> None:
    """Ask a model and stream its answer.

    PROMPT is an argument, or stdin (-), or both: stdin first, then the argument. Where stdin is a pipe or a file it is
    read to its end; say </dev/null to leave it out. The answer goes to stdout and nothing else does; reasoning,
    notices and token counts go to stderr.

    \b
      unbroken run "Why is the sky blue?"
      git diff | unbroken run "Review this change"
      unbroken run --provider llama.cpp --format json "Hello" | jq .usage
      unbroken run --base-url http://127.0.0.1:8080/v1 --replays 5 "Hello"
      unbroken run --provider deepseek --proxy socks5h://127.0.0.1:10808 "Hello"

    Every option may also stand in the configuration file (unbroken init writes one) or in the environment, as
    UNBROKEN_MODEL and so on: flags win over the environment, and that over the file. Keys come from the variables that
    the providers' users already set: DEEPSEEK_API_KEY, OPENAI_API_KEY, ...

    --format json prints one object: text, reasoning, tool_calls, finish_reason, usage, attempts and, on failure, error
    with code, phase, retryable and message. It holds the answer (--hold answer), as it shows nothing before the end.
    Exit codes: see unbroken --help.
    """  # noqa: D301 - click's mark
    if sys.stdout is None:
        raise UsageError("stdout is closed: there is nowhere to write the answer")
    from unbroken.cli.prompt import read_prompt

    show = _renderer(options)
    with _client(ctx, options, show.retried) as client:
        messages = _messages(read_prompt(prompt, quiet=options["quiet"]), options["system"])
        _ask(client, messages, show, keeps_journal=options["journal"])


def _ask(client: Client, messages: list[dict[str, str]], show: Renderer, *, keeps_journal: bool) -> None:
    from unbroken.cli.messages import next_step
    from unbroken.cli.terminal import say
    from unbroken.core.http import redacted

    started = time.time()
    turn = client.stream(messages)
    try:
        with show.waiting(turn, client.provider.name), turn:
            for event in turn:
                show.event(event)
    except TurnError as error:
        show.failed(error, turn)
        if step := next_step(turn.report, redacted(client.provider.base_url)):
            say(step)
        raise SystemExit(exit_code(error)) from None
    except Interrupted:
        show.interrupted(turn)
        raise
    else:
        show.finished(turn)
    finally:
        if keeps_journal:
            from unbroken.journal.writing import keep_turn

            keep_turn(turn.report.attempts, started, "run")


def _messages(prompt: str, system: str | None) -> list[dict[str, str]]:
    from unbroken.cli.prompt import as_text

    messages = [{"role": "user", "content": prompt}]
    return [{"role": "system", "content": as_text("the system prompt", system)}, *messages] if system else messages


def _renderer(options: Mapping[str, Any]) -> Renderer:
    from unbroken.cli.terminal import is_terminal

    shows_reasoning = options["show_reasoning"]
    if shows_reasoning is None:
        shows_reasoning = is_terminal(sys.stderr) and not options["quiet"]
    kind = _renderer_kind(options["format"])
    return kind(quiet=options["quiet"], verbose=options["verbose"], shows_reasoning=shows_reasoning)


def _renderer_kind(name: str) -> type[Renderer]:
    if name == "text":
        from unbroken.cli.render import TextRenderer

        return TextRenderer
    from unbroken.cli.json_output import JsonLinesRenderer, JsonRenderer

    return JsonRenderer if name == "json" else JsonLinesRenderer


def _limits(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with what depends on where the answer is written.

    Where nothing is shown before the end, all of it is held. An answer begins again on a terminal, below a line; what
    was written elsewhere cannot be taken back.

    Raises:
        UsageError: it is to begin again elsewhere.
    """
    from unbroken.cli.terminal import is_tty

    hold = options["hold"] or ("answer" if options["format"] == "json" else "prelude")
    after_output = options["after_output"]
    if after_output == "restart" and not is_tty(sys.stdout):
        if hold != "answer":
            raise UsageError(
                "--after-output restart is for a terminal, and stdout is none: what was written there cannot be taken"
                " back. With --hold answer a cut answer is replayed before any of it is written"
            )
        after_output = "raise"
    return {**options, "hold": hold, "after_output": after_output}


def _client(ctx: click.Context, options: Mapping[str, Any], on_retry: RetryCallback) -> Client:
    from unbroken.cli.prompt import as_text
    from unbroken.cli.provider_selection import selected
    from unbroken.client.synchronous import Client

    who = selected(ctx.default_map or {}, given(ctx, ParameterSource.COMMANDLINE), os.environ)
    return Client(
        who["provider"],
        api_key=who["api_key"],
        base_url=who["base_url"],
        model=who["model"] and as_text("the name of the model", who["model"]),
        key_env=who["api_key_env"],
        dialect=options["dialect"],
        policy=policy_from(_limits(options)),
        on_retry=on_retry,
        proxy=proxy_from(ctx, options),
        verify=options["ca_file"] or True,
        continuation=options["continuation"],
    )
