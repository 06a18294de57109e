"""``unbroken doctor``: examine the path to a provider, and say what is wrong with it and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unbroken.cli.connection import WAY_OPTIONS, add_options, proxy_from
from unbroken.cli.exits import LOST, REFUSED, UNREACHABLE, Interrupted
from unbroken.cli.options import ConfiguredCommand, given, option, seconds
from unbroken.cli.run import PRESETS

if TYPE_CHECKING:
    from unbroken.core.providers import Provider
    from unbroken.doctor.diagnosis import Diagnosis
    from unbroken.doctor.examination import Examination
    from unbroken.doctor.target import Target

_PREFIX, _PROVIDER, _TEST, _SHOWN = "UNBROKEN_DOCTOR_", "Provider selection", "The idle test", "What is shown"
_RELAY = "A relay in its place"

_OF_THE_PROVIDER = frozenset({"key_missing", "key_refused", "key_wanted", "quota", "provider_down"})
"""Findings that are the provider's: the path is well."""


def _way_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return add_options(command, WAY_OPTIONS)


@click.command("doctor", cls=ConfiguredCommand)
@option(_PROVIDER, "--provider NAME", f"{', '.join(PRESETS)}; without it the first whose key is set.")
@option(_PROVIDER, "--base-url URL", "Any server that speaks chat completions. Alone it is sent no key.")
@option(_PROVIDER, "--api-key-env NAME", "Variable that holds the key, instead of the provider's own.")
@option(_PROVIDER, "--dialect NAME", "The dialect that the server speaks, by default the provider's own.")
@_way_options
@option(_RELAY, "--from URL", "Read the findings of a relay that runs, such as http://127.0.0.1:8765.", prefix=_PREFIX)
@option(
    _RELAY,
    "--token-env NAME",
    "Variable with the relay's token (UNBROKEN_RELAY_TOKEN).",
    prefix="UNBROKEN_RELAY_",
    default="UNBROKEN_RELAY_TOKEN",
)
@option(
    _TEST,
    "--max SECONDS",
    "The longest silence that is tried; 0 for no idle test.",
    prefix=_PREFIX,
    type=seconds,
    default=90,
    show_default=True,
)
@option(_TEST, "--echo URL", "An unbroken lab echo on a machine of yours, as the far end.", prefix=_PREFIX)
@option(_SHOWN, "--json", "One object: findings (code, text, next), idle_limit, path.", prefix=_PREFIX, is_flag=True)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Find out where and why turns die on your path, and what to do about it.

    First it looks up which proxy would be used and who set it, resolves names, connects, and says who signed the
    server's certificate, whether HTTP/2 is there (so that PING can keep the path busy), whether the clock is right and
    the key is accepted. No model is asked: it costs nothing. The key is never shown.

    Then the idle test: several silent connections by the same path, with nothing, TCP keepalive, HTTP/2 PING and SSE
    comments to keep them. It says which were cut, after how many seconds, how, who is likely to have done it, and what
    helps. They lead to a server on this machine, through the proxy, and to the provider: connections over HTTP/2
    without a request, which cost nothing; or to an `unbroken lab echo` of yours (--echo). Ctrl-C ends it early and
    shows what is known by then.

    Attempts that run, exec and relay have lost before are told too: how often, after which silence, by which path,
    since when, and what changed.

    \b
      unbroken doctor                     the provider whose key is set
      unbroken doctor --provider deepseek --proxy socks5h://127.0.0.1:10808
      unbroken doctor --base-url http://127.0.0.1:8080/v1 --max 0 --json
      unbroken doctor --from http://127.0.0.1:8765   what a relay has met

    Where the proxy takes HTTP/2 away, or reaches no server on this machine, connections without a request go to the
    provider without the proxy too, for a comparison.

    \b
    Exit codes:
      0  nothing is wrong
      2  usage: an option, the configuration, no provider
      3  the path is well, and the provider refuses (key, quota, an error)
      4  the path is not as it should be; the findings say what helps
      5  the provider is not reached
      130, 143  interrupted; what was known by then is shown
    """  # noqa: D301 - click's mark
    if options["from"]:
        from unbroken.cli.relay_findings import show_relay_findings

        raise SystemExit(show_relay_findings(ctx, options))
    from unbroken.cli.terminal import harmless, status_line
    from unbroken.core.http import check_url
    from unbroken.doctor.diagnosis import Diagnosis
    from unbroken.doctor.examination import Examination
    from unbroken.doctor.past import PastReport

    if options["echo"]:
        check_url(options["echo"])
    examination = Examination(_target(ctx, options))
    examination.past = PastReport(is_kept=options["journal"])
    try:
        with status_line() as show_progress:
            show_progress(f"examining the path to {harmless(examination.path.host)}")
            examination.run()
            if examination.reached and options["max"]:
                _test_silence(examination, options, show_progress)
    except Interrupted:
        _show(examination, Diagnosis(examination), as_json=options["json"], whole=False)
        raise
    diagnosis = Diagnosis(examination)
    _show(examination, diagnosis, as_json=options["json"])
    raise SystemExit(_exit_code(examination, diagnosis))


def _test_silence(examination: Examination, options: Mapping[str, Any], show_progress: Callable[[str], None]) -> None:
    from unbroken.doctor.idle import IdleTest

    longest = options["max"]

    def progress(elapsed: float, left: int, count: int) -> None:
        show_progress(f"idle test: {elapsed:.0f} s of {longest:g} s at most, {left} of {count} connections are watched")

    show_progress("idle test: looking for a far end")
    IdleTest(examination, options["echo"], longest, progress).run()


def _target(ctx: click.Context, options: Mapping[str, Any]) -> Target:
    """Return what is to be examined.

    Raises:
        UsageError: nothing selects a provider, or an option is wrong.
    """
    from unbroken.cli.provider_selection import selected
    from unbroken.core.dialects import find_dialect
    from unbroken.core.providers import choose_provider
    from unbroken.doctor.target import Target

    who = selected(ctx.default_map or {}, given(ctx, ParameterSource.COMMANDLINE), os.environ)
    provider = choose_provider(who["provider"], who["base_url"], os.environ)
    key, source = _key(provider, who["api_key"], who["api_key_env"])
    limits = {name: options[name] for name in ("connect", "ping") if options[name] is not None}
    return Target(
        provider=provider,
        dialect=find_dialect(options["dialect"] or provider.dialect),
        key=key,
        key_source=source,
        proxy=proxy_from(ctx, options),
        ca_file=options["ca_file"],
        **limits,
    )


def _key(provider: Provider, stored: str | None, variable: str | None) -> tuple[str | None, str]:
    """Return the key, ``None`` without one, and its source: the configuration file, or the name of a variable."""
    from unbroken.core.providers import find_key
    from unbroken.errors import UsageError

    if stored:
        return stored, "the configuration file"
    source = variable or provider.key_env
    try:
        return find_key(provider, variable, os.environ), source
    except UsageError:  # it is missing, which is a finding
        return None, source


def _exit_code(examination: Examination, diagnosis: Diagnosis) -> int:
    codes = {finding.code for finding in diagnosis.faults}
    if examination.path.key.status is None:
        return UNREACHABLE
    if codes - _OF_THE_PROVIDER:
        return LOST
    return REFUSED if codes else 0


def _show(examination: Examination, diagnosis: Diagnosis, *, as_json: bool, whole: bool = True) -> None:
    from unbroken.cli.doctor_report import report_lines
    from unbroken.cli.findings_output import write, write_json

    if as_json:
        write_json(diagnosis.findings, diagnosis.idle_limit, examination.path)
    else:
        write("".join(f"{line}\n" for line in report_lines(examination, diagnosis, whole=whole)))
