"""The list of models: a request that costs nothing and shows whether the key is accepted and the clock is right."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from unbroken.core.finding import Finding
from unbroken.core.http import Head, Request
from unbroken.core.next_steps import STATUSES_OF_PROXIES
from unbroken.doctor.fetching import fetch
from unbroken.doctor.path import KeyReport
from unbroken.doctor.target import Target
from unbroken.errors import UsageError, WireError
from unbroken.wire.http import HttpWire

ANSWER = 10.0
"""Seconds that the provider may take for its answer, beyond those for the connection."""

SKEW = 60.0
"""Seconds by which a clock may be off."""

_REFUSED = frozenset({401, 403})

_BAD_REQUEST = 400
"""What Google answers to a key that it does not know (``API_KEY_INVALID``)."""


def examine_key(target: Target) -> tuple[KeyReport, float | None, list[Finding]]:
    """Find out whether the key is accepted, and by how many seconds the clock is ahead of the server's."""
    findings: list[Finding] = []
    name = target.provider.name
    if target.key_source and not target.key:
        findings.append(
            Finding("key_missing", f"there is no key for {name}", f"set the environment variable {target.key_source}")
        )
    request = target.models_with_key(target.key) if target.key else target.models
    try:
        head = _answer(target, request)
    except (WireError, UsageError) as exc:
        findings.append(
            Finding(
                exc.failure.code if isinstance(exc, WireError) else "models_unread",
                f"the connection stands, but the list of models does not come: {exc}",
                "ask again; if it stays so, the provider is down or the base URL is wrong",
            )
        )
        return KeyReport(target.key_source, bool(target.key)), None, findings
    accepted = _accepted(target, head)
    findings += [found for found in (_of_status(target, head, accepted), _of_clock(head)) if found]
    return KeyReport(target.key_source, bool(target.key), accepted, head.status), _skew(head), findings


def _answer(target: Target, request: Request) -> Head:
    wire = HttpWire(proxy=target.proxy, verify=target.ca_file or True, environ=target.environ)
    return fetch(wire, request, connect=target.connect, answer=ANSWER)[0]


def _accepted(target: Target, head: Head) -> bool | None:
    """Return whether the key is accepted; ``None`` if the answer does not tell: some lists are for everybody."""
    if not target.key:
        return None
    if head.status in _REFUSED:
        return False
    if head.status != _BAD_REQUEST and not 200 <= head.status < 300:
        return None
    try:
        without = _answer(target, target.models)
    except (WireError, UsageError):
        return None
    return head.status != _BAD_REQUEST if without.status in _REFUSED else None


def _of_status(target: Target, head: Head, accepted: bool | None) -> Finding | None:
    """Return what the status of the list of models says, ``None`` if nothing is wrong."""
    name, status = target.provider.name, head.status
    if status in STATUSES_OF_PROXIES and target.destination().forwards:
        return Finding(
            "proxy_answer",
            f"the answer is HTTP {status}, and may be the proxy's own: it forwards what goes to http://",
            "the proxy's log says why; --no-proxy goes without it",
        )
    if accepted is False:
        where = f"the key in {target.key_source}" if target.key_source else "the key"
        return Finding("key_refused", f"{name} refuses {where}: HTTP {status}", "make a new key there, and set it")
    if status in _REFUSED and not target.key_source:
        return Finding(
            "key_wanted",
            f"{name} wants a key: HTTP {status}",
            "name the variable that holds it with --api-key-env, or the provider with --provider",
        )
    if 300 <= status < 400 or status == 511:
        return Finding(
            "redirected",
            f"the list of models is answered with HTTP {status}: by a captive portal, or the base URL has moved",
            "open a page in a browser and log in to the network; if that is not it, correct the base URL",
        )
    if status == 407:
        return Finding("proxy_auth", "the proxy asks for user and password: HTTP 407", "give them in the proxy's URL")
    if status == 429:
        return Finding("quota", f"{name} answers HTTP 429: too many requests, or no quota left", "look at the account")
    if status >= 500:
        return Finding("provider_down", f"{name} answers HTTP {status}", "try later, or look at its status page")
    return None


def _of_clock(head: Head) -> Finding | None:
    skew = _skew(head)
    if skew is None or abs(skew) <= SKEW:
        return None
    which = "ahead of" if skew > 0 else "behind"
    return Finding(
        "clock_skew",
        f"this machine's clock is {abs(skew):.0f} s {which} the server's: certificates and signed requests may be"
        " refused",
        "set the clock, by NTP at best",
    )


def _skew(head: Head) -> float | None:
    """Return by how many seconds this machine's clock is ahead of the server's ``Date`` (RFC 9110, section 6.6.1)."""
    try:
        return round(time.time() - parsedate_to_datetime(head.fields["date"]).timestamp(), 1)
    except (KeyError, ValueError, TypeError):
        return None
