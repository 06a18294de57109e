"""``unbroken run``: ask a model and stream its answer."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.config import ConfiguredCommand, who_is_asked
from unbroken.cli.exits import exit_code
from unbroken.errors import TurnError, UsageError

if TYPE_CHECKING:
    from unbroken.client import Client
    from unbroken.drivers.notices import Observer


def _seconds(name: str, text: str) -> Any:
    return click.option(f"--{name}", type=float, metavar="SECONDS", envvar=f"UNBROKEN_{_upper(name)}", help=text)


def _text(name: str, text: str, metavar: str = "TEXT") -> Any:
    return click.option(f"--{name}", metavar=metavar, envvar=f"UNBROKEN_{_upper(name)}", help=text)


def _upper(name: str) -> str:
    return name.replace("-", "_").upper()


@click.command("run", cls=ConfiguredCommand, short_help="Ask a model and stream its answer.")
@click.argument("prompt", required=False)
@_text("provider", "Preset: deepseek, openai, openrouter, groq, mistral, together, xai, ollama, llama.cpp.", "NAME")
@_text("model", "Model to ask; by default the provider's usual one.", "NAME")
@_text("base-url", "URL before /chat/completions, of any server that speaks the dialect.", "URL")
@_text("api-key-env", "Environment variable that holds the key, instead of the provider's own.", "NAME")
@_text("system", "System prompt.")
@click.option("--show-reasoning/--no-show-reasoning", default=None, help="Reasoning on stderr; by default on a terminal.")
@click.option("--format", "format", type=click.Choice(["text", "json", "jsonl"]), default="text", envvar="UNBROKEN_FORMAT",
              show_default=True, help="text as it comes, one JSON object, or JSON events as they come.")  # fmt: skip
@click.option("--replays", type=int, metavar="N", envvar="UNBROKEN_REPLAYS",
              help="How often a cut before any output is replayed.  [default: 3]")  # fmt: skip
@_seconds("idle", "Silence on the wire after which the connection is lost.  [default: 600]")
@_seconds("first-output", "How long the model may think before its first output.  [default: 900]")
@_seconds("give-up-after", "No attempt starts later than this.  [default: 600]")
@_seconds("ping", "Interval of HTTP/2 PING, 0 for none.  [default: 10]")
@_text("proxy", "http, https, socks5 or socks5h URL, for every host; by default the environment's proxies.", "URL")
@click.option("--no-proxy", is_flag=True, help="Connect directly, whatever the environment says.")
@_text("ca-file", "PEM file of certificate authorities to trust, instead of the system's.", "FILE")
@click.option("-q", "--quiet", is_flag=True, help="Only the answer and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Tell of every attempt.")
@click.pass_context
def command(ctx: click.Context, **options: Any) -> None:
    """Ask a model and stream its answer.

    PROMPT is an argument, or stdin, or both (stdin first). The answer goes to stdout and nothing else does; reasoning,
    notices and token counts go to stderr.

    \b
      unbroken run "Why is the sky blue?"
      git diff | unbroken run "Review this change"
      unbroken run --provider llama.cpp --format json "Hello" | jq .usage
      unbroken run --base-url http://127.0.0.1:8080/v1 --proxy socks5h://127.0.0.1:10808 "Hello"

    Options may also stand in the configuration file (see `unbroken init`) or in the environment as UNBROKEN_MODEL and
    so on; flags win over the environment, and that over the file. Keys come from DEEPSEEK_API_KEY, OPENAI_API_KEY, ...
    """
    from unbroken.cli.prompt import read_prompt
    from unbroken.cli.render import renderer

    messages = [{"role": "user", "content": read_prompt(options["prompt"])}]
    if options["system"]:
        messages.insert(0, {"role": "system", "content": options["system"]})
    show = renderer(options)
    with _client(ctx, options, show.again) as client:
        turn = client.stream(messages)
        try:
            with show.waiting(turn.driver, client.provider.name), turn:
                for event in turn:
                    show.event(event)
        except TurnError as error:
            show.failed(error, turn)
            raise SystemExit(exit_code(error)) from None
        show.finished(turn)


def _client(ctx: click.Context, options: dict[str, Any], observe: Observer) -> Client:
    from unbroken.client import Client
    from unbroken.core.policy import Policy

    if options["proxy"] and options["no_proxy"]:
        raise UsageError("--proxy and --no-proxy exclude each other")
    limits = {key: options[key] for key in ("replays", "idle", "first_output", "give_up_after", "ping")}
    policy = dataclasses.replace(Policy(), **{key: value for key, value in limits.items() if value is not None})
    who = who_is_asked(ctx)
    return Client(
        who["provider"],
        api_key=who["api_key"],
        base_url=who["base_url"],
        model=who["model"],
        key_env=who["api_key_env"],
        policy=policy,
        observe=observe,
        proxy="" if options["no_proxy"] else options["proxy"],
        verify=options["ca_file"] or True,
        environ=os.environ,
    )


if sys.platform == "win32":  # pragma: no cover - consoles there default to a code page that lacks the marks we print
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
