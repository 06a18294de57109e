"""``unbroken doctor --from``: the findings of a relay that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from unbroken.cli.connection import proxy_from
from unbroken.cli.exits import LOST, REFUSED, UNREACHABLE
from unbroken.cli.findings_output import finding_lines, write, write_json
from unbroken.cli.terminal import harmless
from unbroken.core.advice import rounded
from unbroken.core.http import check_url
from unbroken.doctor.relay_findings import NO_RELAY, UNADMITTED, UNREACHED, RunningRelay
from unbroken.errors import UsageError
from unbroken.journal.findings import NOTES, PathFindings

_EXITS = {UNREACHED: UNREACHABLE, NO_RELAY: UNREACHABLE, UNADMITTED: REFUSED}


def show_relay_findings(ctx: click.Context, options: Mapping[str, Any]) -> int:
    """Show what a relay has found; return the exit code.

    Raises:
        UsageError: an option is wrong.
    """
    variable = options["token_env"]
    if not variable.isidentifier():  # it may be the token itself, so it is not shown
        raise UsageError("--token-env takes the name of an environment variable, not a token")
    check_url(options["from"])
    limits = {} if options["connect"] is None else {"connect": options["connect"]}
    relay = RunningRelay(
        url=options["from"],
        token=os.environ.get(variable, "").strip(),
        token_source=variable,
        proxy=proxy_from(ctx, options),
        ca_file=options["ca_file"],
        **limits,
    )
    told = relay.read()
    if options["json"]:
        write_json(told.findings, told.idle_limit, told.path)
    else:
        write("".join(f"{line}\n" for line in _lines(relay, told)))
    return _exit_code(told)


def _lines(relay: RunningRelay, told: PathFindings) -> Iterator[str]:
    yield f"the relay at {harmless(relay.origin)}"
    if told.path and told.idle_limit:
        by = f"through {told.path.proxy}" if told.path.proxy else "over no proxy"
        yield f"  {'idle limit':<12} {rounded(told.idle_limit)}, to {harmless(told.path.host)} {harmless(by)}"
    yield ""
    yield from finding_lines(told.findings, [finding for finding in told.findings if finding.code not in NOTES])


def _exit_code(told: PathFindings) -> int:
    codes = [finding.code for finding in told.findings]
    failed = [_EXITS[code] for code in codes if code in _EXITS]
    return failed[0] if failed else 0 if NOTES.issuperset(codes) else LOST
