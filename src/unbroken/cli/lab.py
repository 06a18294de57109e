"""``unbroken lab``: break connections on purpose, to see what a program does then."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click

from unbroken.cli.lab_cut import command as cut
from unbroken.cli.lab_serving import FAULT_EPILOG, arrivals, fault_options, read_faults, serving, until
from unbroken.cli.options import port, seconds
from unbroken.cli.terminal import harmless
from unbroken.cli.verdict import command as verdict
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.background import Background
from unbroken.lab.certificate import Authority
from unbroken.lab.echo import EchoServer
from unbroken.lab.proxy import CuttingProxy
from unbroken.lab.upstream import Upstream


@click.group("lab", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Break connections on purpose, so that you can see what your own program does then.

    The servers listen on 127.0.0.1 and run until Ctrl-C. The verdict runs a program against many such servers.

    \b
      unbroken lab upstream --port 9000 --fault rst@after_role --times 2
      unbroken lab proxy --port 9001 --idle 5
      unbroken lab cut --port 9003 --to https://api.openai.com/v1 --fault rst@after_events:3
      unbroken run --base-url http://127.0.0.1:9000/v1 "Hello"
      unbroken lab verdict -- python my_client.py
    """  # noqa: D301 - click's mark
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("upstream", epilog=FAULT_EPILOG)
@click.option("--port", type=port, default=0, help="Port to listen on; by default a free one.")
@fault_options
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
    answer = ScriptedAnswer(text=text, think=think)
    keeps = Background() if background else None
    with serving(Upstream(faults=read_faults(faults, times), answer=answer, background=keeps, port=port)) as server:
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
    with serving(CuttingProxy(**options)) as server:
        click.echo(f"listening on {server.url} and {server.socks_url}", err=True)
        seen = 0
        while True:
            before = seen
            until(server, partial(_has_cut_more, server, before))
            seen = server.cuts_made
            click.echo(f"cut {seen - before} idle connection(s), {seen} in all", err=True)


def _has_cut_more(server: CuttingProxy, before: int) -> bool:
    return server.cuts_made > before


@command.command("echo")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=port, default=0, help="Port to listen on; by default a free one.")
@click.option("--plain", is_flag=True, help="Without TLS, and so without HTTP/2: behind a server that speaks both.")
def echo(host: str, port: int, plain: bool) -> None:
    """A server of silence: the far end of the idle test of unbroken doctor.

    Run it on a machine of yours that lies behind the path in question, and give its URL to the doctor there. It answers
    at once, and then is silent, or sends comments, for as long as it is told. Its certificate is made anew each time;
    the doctor does not verify it, and tells it nothing.

    \b
      unbroken lab echo --host 0.0.0.0 --port 8443          on the far machine
      unbroken doctor --echo https://far.example.com:8443   at home
    """  # noqa: D301 - click's mark
    with tempfile.TemporaryDirectory(prefix="unbroken-echo-") as folder:
        context = None if plain else Authority(Path(folder)).server_context()
        with serving(EchoServer(ssl_context=context, host=host, port=port)) as server:
            click.echo(f"listening on {server.url}", err=True)
            until(server, lambda: False)


def _tell_requests(server: Upstream) -> None:
    for number, record in enumerate(arrivals(server, server.requests), 1):
        what = harmless(f"{record.method} {record.path}")
        click.echo(f"request {number}: {what}, {len(record.body)} bytes", err=True)


command.add_command(cut)
command.add_command(verdict)
