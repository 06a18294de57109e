"""``unbroken exec``: run a program behind a relay of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from unbroken.cli.options import option
from unbroken.cli.serving import PREFIX, RelayCommand, find_upstreams, serving_options, settings_from

if TYPE_CHECKING:
    from unbroken.relay.board import Totals
    from unbroken.relay.settings import Settings

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes as shells have them."""

VARIABLES: Mapping[str, tuple[str, str]] = {
    "OPENAI_BASE_URL": ("openai", "/v1"),
    "OPENAI_API_BASE": ("openai", "/v1"),
    "ANTHROPIC_BASE_URL": ("anthropic", ""),
    "ANTHROPIC_API_BASE": ("anthropic", ""),
    "GOOGLE_GEMINI_BASE_URL": ("google", ""),
    "GEMINI_API_BASE": ("google", ""),
    "DEEPSEEK_BASE_URL": ("deepseek", "/v1"),
    "DEEPSEEK_API_BASE": ("deepseek", "/v1"),
    "OPENROUTER_BASE_URL": ("openrouter", "/v1"),
    "OPENROUTER_API_BASE": ("openrouter", "/v1"),
    "GROQ_BASE_URL": ("groq", ""),
    "MISTRAL_API_BASE": ("mistral", "/v1"),
    "TOGETHER_BASE_URL": ("together", "/v1"),
    "XAI_API_BASE": ("xai", "/v1"),
    "OLLAMA_API_BASE": ("ollama", ""),
}
"""The variables by which programs are redirected: which upstream, and what follows its path."""

_LOCAL = "127.0.0.1,localhost"
_FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT")
    if hasattr(signal, name)
)


@click.command(
    "exec",
    cls=RelayCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@serving_options
@option("What is shown", "--quiet -q", "No line at the end.", prefix=PREFIX, is_flag=True)
@click.argument("argv", nargs=-1, required=True, metavar="COMMAND [ARGS]...")
@click.pass_context
def command(ctx: click.Context, /, argv: tuple[str, ...], **options: Any) -> None:
    """Run a program whose turns shall survive.

    It runs behind a relay of its own, on a free port of this machine: OPENAI_BASE_URL, ANTHROPIC_BASE_URL,
    GOOGLE_GEMINI_BASE_URL and their like lead there, for this program alone. Where such a variable was set, the relay
    forwards to what it said. Terminal, signals and exit code are the program's own; at its end a line says what was
    survived.

    \b
      unbroken exec -- aider
      unbroken exec -- claude -p "Why is the sky blue?"
      unbroken exec --proxy socks5h://127.0.0.1:10808 -- python my_agent.py
    """  # noqa: D301 - click's mark
    upstreams = find_upstreams(options["upstream"], os.environ, redirected=True)
    settings = settings_from(ctx, options, upstreams)
    program = shutil.which(argv[0])
    if program is None:
        found = os.path.exists(argv[0])  # noqa: PTH110 - a word of the command line
        _say(f"unbroken: {argv[0]}: {'not executable' if found else 'command not found'}")
        raise SystemExit(NOT_EXECUTABLE if found else NOT_FOUND)
    with _relay(settings) as (origin, totals):
        code = _run([program, *argv[1:]], child_environment(os.environ, origin))
    if not options["quiet"]:
        _say(f"unbroken: {summary(totals)}")
    raise SystemExit(code)


def child_environment(environ: Mapping[str, str], origin: str) -> dict[str, str]:
    """The environment of the program: base URLs lead to the relay, and no proxy stands before it."""
    child = dict(environ)
    for variable, (name, path) in VARIABLES.items():
        child[variable] = f"{origin}/{name}{path}"
    for variable in ("NO_PROXY", "no_proxy"):
        child[variable] = f"{child[variable]},{_LOCAL}" if child.get(variable) else _LOCAL
    return child


def summary(totals: Totals) -> str:
    """What was survived, in one line."""
    if not totals.turns:
        return "no turn came through the relay: which variable or option does the program take its base URL from?"
    turns = f"{totals.turns} turn{'s' if totals.turns != 1 else ''}"
    saved = f", {totals.saved} survived a cut" if totals.saved else ""
    lost = f", {totals.cut} lost" if totals.cut else ""
    return f"{turns}{saved}{lost}" + ("" if saved or lost else ", none was cut")


@contextlib.contextmanager
def _relay(settings: Settings) -> Iterator[tuple[str, Totals]]:
    """A relay on a thread of its own; its URL, and what it counts."""
    from unbroken.relay.app import Relay
    from unbroken.relay.server import listen, make_server, origin_of

    relay = Relay(settings)
    sock = listen("127.0.0.1", 0)
    server = make_server(relay, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="relay", daemon=True)
    thread.start()
    try:
        yield origin_of(sock), relay.ledger.board.totals
    finally:
        server.should_exit = True
        thread.join()


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run it with our own streams and terminal; return its exit code, as a shell would show it."""
    with _signals_are_the_programs() as forward_to:
        child = subprocess.Popen(argv, env=environ)
        forward_to(child)
        code = child.wait()
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _signals_are_the_programs() -> Iterator[Any]:
    """Hand signals on while the program runs. Ctrl-C the terminal has sent it already: here it means nothing."""
    running: list[subprocess.Popen[bytes]] = []

    def forward(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
        for child in running:
            child.send_signal(signum)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda signum, frame: None)  # noqa: ARG005 - as above
    try:
        yield running.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    from unbroken.cli.terminal import say

    say(text)
