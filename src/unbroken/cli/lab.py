"""``unbroken lab``: break connections on purpose, to see what a program does then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import click

from unbroken.cli.options import port, seconds
from unbroken.errors import UsageError
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.background import Background
from unbroken.lab.fault import KINDS, POINTS, Fault, parse_fault
from unbroken.lab.proxy import CuttingProxy
from unbroken.lab.service import Service
from unbroken.lab.upstream import Upstream

_Server = TypeVar("_Server", bound=Service)


@click.group("lab", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Break connections on purpose, so that you can see what your own program does then.

    Both servers listen on 127.0.0.1 and run until Ctrl-C.

    \b
      unbroken lab upstream --port 9000 --fault rst@after_role --times 2
      unbroken lab proxy --port 9001 --idle 5
      unbroken run --base-url http://127.0.0.1:9000/v1 "Hello"
    """  # noqa: D301 - click's mark
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("upstream", epilog=f"Kinds: {', '.join(KINDS)}. Points: {', '.join(POINTS)}.")
@click.option("--port", type=port, default=0, help="Port to listen on; by default a free one.")
@click.option("--fault", "faults", multiple=True, metavar="KIND[=VALUE]@POINT", help="Fault of the first requests.")
@click.option(
    "--times", type=click.IntRange(min=0), default=1, show_default=True, help="How many requests each fault meets."
)
@click.option("--text", default="Hello from the lab.", show_default=True, help="What is answered afterwards.")
@click.option("--think", type=seconds, default=0.0, metavar="SECONDS", help="Silence before the answer.")
@click.option("--background", is_flag=True, help="Keep Responses that ask for it: they can be resumed.")
def upstream(port: int, faults: tuple[str, ...], times: int, text: str, think: float, background: bool) -> None:
    """A server that speaks every dialect (OpenAI's, Anthropic's, Google's), and breaks on script.

    Faults are met in the order in which they are given; when all are used up, requests are answered well.

    \b
      --fault rst@before_headers        a TCP reset instead of a response
      --fault clean_end@after_token     a truncated answer with a well-formed end
      --fault status=503@before_headers
      --fault stall=5@after_role        five seconds of silence, the connection open
    """  # noqa: D301 - click's mark
    script = [fault for text_of in faults for fault in [_fault(text_of)] * times]
    answer = ScriptedAnswer(text=text, think=think)
    keeps = Background() if background else None
    with _serving(Upstream(faults=script, answer=answer, background=keeps, port=port)) as server:
        click.echo(f"listening on {server.url}", err=True)
        _tell_requests(server)


@command.command("proxy")
@click.option("--port", type=port, default=0, help="Port to listen on; by default a free one.")
@click.option("--idle", type=seconds, required=True, metavar="SECONDS", help="Silence after which a connection is cut.")
@click.option("--how", type=click.Choice(["rst", "fin"]), default="rst", show_default=True, help="Reset, or close.")
@click.option("--cuts", type=click.IntRange(min=0), metavar="N", help="Cut only the first N connections that go idle.")
@click.option("--allow-remote", is_flag=True, help="Connect to other machines too, not only to this one.")
def proxy(**options: Any) -> None:
    """A proxy (HTTP, CONNECT and SOCKS5 on one port) that cuts idle connections, as many on the way do."""
    with _serving(CuttingProxy(**options)) as server:
        click.echo(f"listening on {server.url} and {server.socks_url}", err=True)
        seen = 0
        while True:
            before = seen
            _until(server, lambda known=before: server.cuts_made > known)
            seen = server.cuts_made
            click.echo(f"cut {seen - before} idle connection(s), {seen} in all", err=True)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


@contextlib.contextmanager
def _serving(server: _Server) -> Iterator[_Server]:
    try:
        server.start()
    except OSError as exc:
        raise UsageError(f"cannot listen on port {server.port}: {exc.strerror}; --port 0 takes a free one") from None
    with contextlib.closing(server):
        yield server


def _tell_requests(server: Upstream) -> None:
    seen = 0
    while True:
        before = seen
        _until(server, lambda known=before: len(server.requests) > known)
        for record in server.requests[before:]:
            seen += 1
            click.echo(f"request {seen}: {record.method} {record.target}, {len(record.body)} bytes", err=True)


def _until(server: Service, happened: Any) -> None:
    while not server.wait_for(happened, 3600.0):
        pass
