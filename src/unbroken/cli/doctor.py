"""``unbroken doctor``: examine the path to a provider, and say what is wrong with it and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unbroken.cli.connection import WAY_OPTIONS, add_options, proxy_from
from unbroken.cli.exits import LOST, REFUSED, UNREACHABLE, Interrupted, OutputError
from unbroken.cli.options import ConfiguredCommand, given, option
from unbroken.cli.run import PRESETS

if TYPE_CHECKING:
    from unbroken.core.finding import Finding
    from unbroken.doctor.examination import Examination
    from unbroken.doctor.path import PathReport
    from unbroken.doctor.target import Target

_PREFIX, _PROVIDER, _SHOWN = "UNBROKEN_DOCTOR_", "Provider selection", "What is shown"
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
@option(_SHOWN, "--json", "One object: findings (code, text, next), idle_limit, path.", prefix=_PREFIX, is_flag=True)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Find out where and why turns die on your path, and what to do about it.

    It looks up which proxy would be used and who set it, resolves names, connects, and says who signed the server's
    certificate, whether HTTP/2 is there (so that PING can keep the path busy), whether the clock is right and the key
    is accepted. No model is asked: it costs nothing. The key is never shown.

    \b
      unbroken doctor                     the provider whose key is set
      unbroken doctor --provider deepseek --proxy socks5h://127.0.0.1:10808
      unbroken doctor --base-url http://127.0.0.1:8080/v1 --json
      unbroken doctor --from http://127.0.0.1:8765   what a relay has met

    Where the proxy takes HTTP/2 away, one TLS handshake goes to the provider without the proxy, and nothing else does.

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
    from unbroken.doctor.examination import Examination

    examination = Examination(_target(ctx, options))
    try:
        examination.run()
    except Interrupted:
        _show(examination, as_json=options["json"], whole=False)
        raise
    _show(examination, as_json=options["json"])
    raise SystemExit(_exit_code(examination))


def _target(ctx: click.Context, options: Mapping[str, Any]) -> Target:
    """Return what is to be examined.

    Raises:
        UsageError: nothing selects a provider, or an option is wrong.
    """
    from unbroken.cli.provider_selection import selected
    from unbroken.core.dialects import find_dialect
    from unbroken.core.providers import choose_provider, find_key
    from unbroken.doctor.target import Target
    from unbroken.errors import UsageError

    who = selected(ctx.default_map or {}, given(ctx, ParameterSource.COMMANDLINE), os.environ)
    provider = choose_provider(who["provider"], who["base_url"], os.environ)
    source = who["api_key_env"] or provider.key_env
    key = who["api_key"]
    if key:
        source = "the configuration file"
    else:
        try:
            key = find_key(provider, who["api_key_env"], os.environ)
        except UsageError:  # it is missing, which is a finding
            key = None
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


def _findings(examination: Examination) -> list[Finding]:
    """Return the findings of every source: of the path as it is now, in order of importance."""
    return [*examination.findings]


def _exit_code(examination: Examination) -> int:
    codes = {finding.code for finding in _findings(examination)}
    if examination.path.key.status is None:
        return UNREACHABLE
    if codes - _OF_THE_PROVIDER:
        return LOST
    return REFUSED if codes else 0


# What is shown


def _show(examination: Examination, *, as_json: bool, whole: bool = True) -> None:
    findings = _findings(examination)
    if as_json:
        _write_json(examination, findings)
    else:
        _write("".join(f"{line}\n" for line in _lines(examination, findings, whole=whole)))


def _write_json(examination: Examination, findings: Sequence[Finding]) -> None:
    from unbroken.cli.json_output import encoded

    _write(encoded({"findings": findings, "idle_limit": None, "path": examination.path}).decode())


def _write(text: str) -> None:
    from unbroken.cli.output import Output
    from unbroken.cli.terminal import plain

    out = Output(sys.stdout)
    try:
        out.write(plain(text, out.encoding))
    except OSError as exc:
        raise OutputError(exc) from None


def _lines(examination: Examination, findings: Sequence[Finding], *, whole: bool) -> Iterator[str]:
    from unbroken.cli.terminal import harmless

    path = examination.path
    yield f"{examination.target.provider.name}: {harmless(path.url)}"
    for name, told in _facts(path):
        yield f"  {name:<12} {harmless(told)}"
    yield ""
    for finding in findings:
        yield f"✗ {harmless(finding.text)}"
        if finding.next:
            yield f"  next: {harmless(finding.next)}"
    if not whole:
        yield "interrupted: this is what was known by then"
    elif not findings:
        yield "✓ nothing is wrong"


def _facts(path: PathReport) -> Iterator[tuple[str, str]]:
    """Yield what is known of a path, each under a short name."""
    yield "proxy", _proxy(path)
    for place in path.proxies:
        if not place.used:
            why = f"NO_PROXY has {path.exception}" if path.exception else "another one comes first"
            yield "", f"{place.url or 'a malformed proxy'} of {place.source} is not used: {why}"
    if path.addresses:
        yield ("proxy is at" if path.proxy else "addresses"), ", ".join(path.addresses)
    if path.seconds:
        yield "times", ", ".join(f"{_STEPS[step]} {1000 * took:.0f} ms" for step, took in path.seconds.items())
    if path.certificate:
        yield "certificate", f"signed by {path.certificate.signer}, {_trust(path)}"
    if path.http_version:
        yield "HTTP", _http(path)
    if path.clock_skew is not None:
        yield "clock", f"{abs(path.clock_skew):.0f} s {'ahead of' if path.clock_skew > 0 else 'behind'} the server's"
    if path.http_version:
        yield "key", _key(path)


_STEPS = {"dns": "DNS", "tcp": "TCP", "proxy": "the proxy's tunnel", "tls": "TLS"}


def _proxy(path: PathReport) -> str:
    used = next((place for place in path.proxies if place.used), None)
    if used is None or not path.proxy:
        return f"none: {used.url or 'a malformed one'} by {used.source}" if used else "none"
    return f"{path.proxy}, set by {used.source}"


def _trust(path: PathReport) -> str:
    certificate = path.certificate
    if certificate is None or not certificate.trusted:
        return "not trusted"
    return "trusted by this system" if certificate.by_system else "trusted by --ca-file"


def _http(path: PathReport) -> str:
    if path.http_version == "HTTP/2":
        return "HTTP/2: PING can keep the path busy"
    without = f" (without the proxy {path.direct_http_version})" if path.direct_http_version else ""
    return f"{path.http_version}{without}: there is no PING"


def _key(path: PathReport) -> str:
    key = path.key
    if not key.present:
        return f"{key.source} is not set" if key.source else "none is needed, or none was named"
    told = {
        True: "accepted",
        False: "refused",
        None: "whether it is accepted is not known: the list of models does not ask for it",
    }
    return f"{key.source} is set; {told[key.accepted]}"
