"""What the doctor found, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from unbroken.cli.findings_output import finding_lines
from unbroken.cli.terminal import harmless
from unbroken.core.advice import rounded
from unbroken.doctor.diagnosis import Diagnosis
from unbroken.doctor.examination import Examination
from unbroken.doctor.path import PathReport, ProxyPlace
from unbroken.doctor.silences import End, FarEndKind, SilenceTrial, SilentConnection


def report_lines(examination: Examination, diagnosis: Diagnosis, *, whole: bool) -> Iterator[str]:
    """Yield the lines for a person: what is known of the path, the findings, and whether anything is wrong.

    Args:
        examination: what was found.
        diagnosis: what that means.
        whole: whether nothing was interrupted.
    """
    path = examination.path
    yield f"{examination.target.provider.name}: {harmless(path.url)}"
    for name, told in (*_facts(path), *_silences(path), ("past turns", examination.past.summary)):
        yield f"  {name:<12} {harmless(told)}"
    yield ""
    yield from finding_lines(diagnosis.findings, diagnosis.faults, whole=whole)


def _facts(path: PathReport) -> Iterator[tuple[str, str]]:
    """Yield what is known of a path, each under a short name."""
    yield "proxy", _proxy(path)
    for place in path.proxies:
        if not place.used:
            yield "", f"{place.url or 'a malformed proxy'} of {place.source} {_unexamined(place, path)}"
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


def _unexamined(place: ProxyPlace, path: PathReport) -> str:
    """Say why a proxy is not that of this examination."""
    if place.source in {used.source for used in path.proxies if used.used}:  # several were given, in order
        return f"comes next where that fails; --proxy {place.url} examines it"
    return f"is not used: {f'NO_PROXY has {path.exception}' if path.exception else 'another one comes first'}"


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
    if key.accepted is not None:
        return f"{key.source} is set; {'accepted' if key.accepted else 'refused'}"
    why = {None: "did not come", 200: "does not ask for it"}.get(key.status, f"is answered with HTTP {key.status}")
    return f"{key.source} is set; whether it is accepted is not known: the list of models {why}"


def _silences(path: PathReport) -> Iterator[tuple[str, str]]:
    """Yield what became of silent connections."""
    if path.idle is None:
        return
    for why in path.idle.skipped:
        yield "idle test", why
    for trial in path.idle.trials:
        yield "idle test", _leads(trial)
        for connection in trial.connections:
            yield "", f"  {_kept_by(connection)}: {_became(connection)}"


def _leads(trial: SilenceTrial) -> str:
    """Return where silent connections lead."""
    where = {
        FarEndKind.HERE: "to a server on this machine",
        FarEndKind.ECHO: f"to the echo at {trial.host}",
        FarEndKind.PROVIDER: f"to {trial.host}, without a request",
        FarEndKind.DIRECT: f"to {trial.host}, without a request",
    }[trial.kind]
    by = f"through {trial.proxy}" if trial.proxy else "without a proxy"
    return f"{where}, {by}{f', over {trial.http_version}' if trial.http_version else ''}"


def _kept_by(connection: SilentConnection) -> str:
    often = f" every {connection.every:g} s" if connection.every else ""
    return f"{connection.keeping.value}{often}"


def _became(connection: SilentConnection) -> str:
    seconds = rounded(connection.seconds)
    told = {
        End.KEPT: f"stood for {seconds}",
        End.OPEN: f"open, after {seconds}",
        End.SILENCE: f"carried nothing any more after {seconds}",
        End.UNREACHED: f"did not come about: {connection.detail}",
    }
    return told.get(connection.end, f"ended after {seconds}, by {connection.end.value}")
