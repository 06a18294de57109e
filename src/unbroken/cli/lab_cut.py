"""``unbroken lab cut``: put faults before a real upstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from unbroken.cli.lab_serving import FAULT_EPILOG, arrivals, fault_options, read_faults, serving
from unbroken.cli.options import port
from unbroken.cli.scenarios import read_scenario
from unbroken.cli.terminal import harmless
from unbroken.errors import UsageError
from unbroken.lab.fault_proxy import FaultProxy, PassedRequest

_ENDS = {
    "whole": "whole",
    "client": "the client left",
    "upstream": "cut by the upstream itself",
    "refused": "WebSocket refused",
}


@click.command("cut", epilog=FAULT_EPILOG)
@click.option("--to", required=True, metavar="URL", help="Base URL of the real upstream, http or https.")
@click.option("--port", type=port, default=0, help="Port to listen on; by default a free one.")
@fault_options
@click.option(
    "--scenario", metavar="NAME", help="Faults of a scenario, or of a .toml file, for generation calls alone."
)
@click.option("--path", default="", metavar="TEXT", help="Only requests whose path contains this meet faults.")
@click.option("--ca-file", metavar="FILE", help="PEM file of authorities to trust besides the usual ones.")
@click.option("--proxy", metavar="URL", help="HTTP proxy on the way to the upstream; variables for it are ignored.")
@click.option("--json", "as_json", is_flag=True, help="Print each request as a line of JSON on stdout.")
def command(to: str, faults: tuple[str, ...], times: int, scenario: str | None, as_json: bool, **options: Any) -> None:
    """Pass requests on to a real upstream, and break its responses on script.

    Use the printed URL in the place of the upstream's. What clients send is passed on, keys too, and never printed.
    Events come through one by one, and are counted. Each request meets the next fault; when all are used up, nothing
    goes wrong. --scenario takes the faults of one of `unbroken lab verdict --list`. A fault before the headers is met
    without asking the upstream, so it costs nothing there. Clients are served over HTTP/1.1, so the faults of HTTP/2
    and of a TLS handshake are refused.

    \b
      --fault rst@after_events:3          a TCP reset behind the third event
      --fault clean_end@after_token       a truncated answer with a well-formed end
      --fault status=429@before_headers   too many requests, at no cost
      --fault stall=30@after_role         half a minute of silence before the first output
    """  # noqa: D301 - click's mark
    tell: Callable[[PassedRequest], None] = _tell_machine if as_json else _tell_person
    if scenario:
        options |= _faults_of(scenario, faults)
    else:
        options["faults"] = read_faults(faults, times)
    with serving(_proxy(to, **options)) as server:
        click.echo(f"listening on {server.url}", err=True)
        for passed in arrivals(server, server.passed):
            tell(passed)


def _faults_of(scenario: str, faults: tuple[str, ...]) -> dict[str, Any]:
    if faults:
        raise UsageError("--scenario has faults of its own: leave --fault out")
    return {"faults": read_scenario(scenario).script, "faults_for": "generations"}


def _proxy(to: str, **options: Any) -> FaultProxy:
    try:
        return FaultProxy(to, **options)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


def _tell_person(passed: PassedRequest) -> None:
    status = "no status" if passed.status is None else str(passed.status)
    what = harmless(f"{passed.method} {passed.path}")
    click.echo(
        f"request {passed.number}: {what}, {status}, {passed.events} events, {passed.bytes} bytes, {_ending(passed)}",
        err=True,
    )


def _ending(passed: PassedRequest) -> str:
    if passed.end == "unreachable":
        return f"upstream unreachable: {harmless(passed.reason)}"
    return _ENDS.get(passed.end, "") or (passed.fault.words if passed.fault else passed.end)


def _tell_machine(passed: PassedRequest) -> None:
    line = {
        "request": passed.number,
        "method": passed.method,
        "path": passed.path,
        "status": passed.status,
        "events": passed.events,
        "bytes": passed.bytes,
        "fault": passed.fault.words if passed.fault else None,
        "end": passed.end,
        "seconds": round(passed.seconds, 3),
    }
    click.echo(json.dumps(line | ({"reason": passed.reason} if passed.reason else {})))
