"""The examination of a path: proxies, DNS, TCP, TLS, HTTP version, clock and key. Every failure becomes a finding."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unbroken.core.failures import PROXY_FAILURES, Failure
from unbroken.core.finding import Finding
from unbroken.core.http import redacted
from unbroken.core.next_steps import NEXT_STEPS, PROXY_STEPS
from unbroken.core.paths import DIRECT
from unbroken.core.route import is_private
from unbroken.doctor.certificate import Signer, signer_of
from unbroken.doctor.models import examine_key
from unbroken.doctor.past import PastReport
from unbroken.doctor.path import CertificateReport, PathReport, ProxyPlace
from unbroken.doctor.reaching import Reach, do
from unbroken.doctor.target import Target
from unbroken.errors import UsageError, WireError
from unbroken.journal.findings import Pattern
from unbroken.wire.clock import clock
from unbroken.wire.proxies import GivenProxy, parse_proxy
from unbroken.wire.requests import Destination
from unbroken.wire.resolving import Address, connect_to
from unbroken.wire.sockets import Steps
from unbroken.wire.tls import client_context

if TYPE_CHECKING:
    import ssl

FAMILY = 3.0
"""Seconds in which an address of each family, IPv4 and IPv6, is to be reached."""


class Examination:
    """What was found of a path.

    Args:
        target: what to examine.

    Attributes:
        target: as above.
        path: the path, as far as it is known.
        findings: what is wrong.
        past: what past turns tell.
        destination: where requests go, ``None`` if the proxy's URL cannot be read.
        local: this machine's own address on the way to the first hop, ``""`` if that was not reached.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.findings: list[Finding] = []
        self.past = PastReport(is_kept=False)
        self.destination: Destination | None = None
        self.local = ""
        self._addresses: list[Address] = []
        provider = target.provider
        self.path = PathReport(url=redacted(provider.base_url), host=Destination.of(target.models, None).authority)

    @property
    def reached(self) -> bool:
        """Whether a connection to the provider came about."""
        return bool(self.path.http_version)

    @property
    def past_pattern(self) -> Pattern | None:
        """The pattern of the cuts that past turns over this very path have met, ``None`` without one."""
        return self.past.turns.pattern_of(self.path.host, self.path.proxy)

    def run(self) -> None:
        """Examine the path. It may be interrupted at any time: what is known by then is in the attributes.

        Raises:
            UsageError: the CA file cannot be used.
        """
        if self._find_proxy() and self._reach():
            self.findings += self._of_families()
            self.findings += self._of_http_version()
            self.path.key, self.path.clock_skew, found = examine_key(self.target)
            self.findings += found

    # What would be used

    def _find_proxy(self) -> bool:
        """Find the proxy; return whether what names it can be read."""
        path, target = self.path, self.target
        around = target.rules.surroundings(target.models.url)
        path.exception = around.exception
        places = [*_explicit(target), *((name, value) for name, value in around.named)]
        given = target.proxy is not None
        path.proxies = [
            ProxyPlace(name, _shown(value, name), used=number == 0 and (given or not around.exception))
            for number, (name, value) in enumerate(places)
        ]
        try:
            self.destination = target.destination()
        except UsageError as exc:
            self.findings.append(
                Finding("proxy_malformed", f"the proxy cannot be used: {exc}", "correct it, or --no-proxy")
            )
            return False
        path.proxy = self.destination.proxy.url if self.destination.proxy else ""
        return True

    # The way there

    def _reach(self) -> bool:
        """Reach the provider; return whether that succeeded."""
        assert self.destination is not None
        reach = self._tried(self.destination, self.target.context)
        path, self._addresses, self.local = self.path, reach.addresses, reach.local
        path.addresses, path.peer = list(dict.fromkeys(address[0] for _, address in reach.addresses)), reach.peer
        path.seconds, path.http_version = reach.seconds, reach.http_version
        certificate = reach.certificate
        if reach.error and reach.error.failure is Failure.CERTIFICATE:
            certificate = self._tried(self.destination, lambda: client_context(False)).certificate
        if certificate:
            self.findings += self._of_certificate(signer_of(certificate), reach.error)
        elif reach.error:
            self.findings.append(unreached(reach.error, self.destination))
        return reach.error is None

    def _tried(self, destination: Destination, context: Callable[[], ssl.SSLContext]) -> Reach:
        """Try to reach a server, and close the connection; return how it went."""
        reach = Reach(destination, context, limit=self.target.connect)
        do(reach.steps())
        reach.close()
        return reach

    def _of_families(self) -> Iterator[Finding]:
        """Yield a finding if addresses of one family are named and do not answer: every connection waits for that."""
        assert self.destination is not None
        names = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
        families = {family for family, _ in self._addresses}
        silent: list[socket.AddressFamily] = []
        if len(families) > 1:
            do(*(_answers([one for one in self._addresses if one[0] is family], silent) for family in families))
        for name in (names[family] for family in silent):
            yield Finding(
                f"{name.lower()}_silent",
                f"{self.destination.first_hop[0]} has an {name} address that does not answer: programs that try it"
                " first wait for it",
                f"have {name} repaired on this network, or turn it off",
            )

    # Who is in between

    def _of_certificate(self, signer: Signer, error: WireError | None) -> Iterator[Finding]:
        by_system = self._error_by_system() if self.target.ca_file else error
        by = signer.intercepting
        self.path.certificate = CertificateReport(str(signer), error is None, by_system is None, by)
        host, proxy = self.path.host, self.path.proxy
        unfit = error if error and not _is_of_unknown_authority(error) else None  # its time or its name
        if who := self._interceptor(signer, unfit or by_system):
            where = f"the proxy at {proxy}" if proxy else "something on the way"
            trust = "" if error is None else ", or trust its authority with --ca-file FILE if it is your organization's"
            yield Finding(
                "tls_intercepted",
                f"TLS to {host} is read on the way: its certificate is signed by {signer} ({who}), so {where} answers"
                " in its name; PING ends there, and what it does with silent answers is its own matter",
                f"have this host exempted from inspection{trust}",
            )
        if error:
            step = _step_of_unfit(unfit) if unfit else NEXT_STEPS["certificate"]
            told = f"no connection to {host}: {error}; it is signed by {signer}"
            yield Finding("certificate", told, step)

    def _interceptor(self, signer: Signer, error: WireError | None) -> str:
        """Return the evidence that the signer is not the server's own authority, ``""`` without any.

        Args:
            signer: the authority.
            error: why this system does not trust it, ``None`` if it does.
        """
        if signer.intercepting:
            return f"{signer.intercepting}, by its name"
        if error is None or not _is_of_unknown_authority(error):
            return ""
        if not is_private(self.path.host):
            return "an authority that this system does not know"
        other = self._direct_signer()
        return f"without the proxy it is {other}" if other and other != signer else ""

    def _direct_signer(self) -> Signer | None:
        """Return who signs the certificate that the server shows without the proxy; ``None`` if that is not known."""
        assert self.destination is not None
        if not self.destination.proxy:
            return None
        certificate = self._tried(self.destination._replace(proxy=None), lambda: client_context(False)).certificate
        return signer_of(certificate) if certificate else None

    def _error_by_system(self) -> WireError | None:
        """Return why this system does not trust the certificate, ``None`` if it does."""
        assert self.destination is not None
        error = self._tried(self.destination, client_context).error
        return error if error and error.failure is Failure.CERTIFICATE else None

    def _of_http_version(self) -> Iterator[Finding]:
        """Yield a finding if the proxy took HTTP/2 away: the provider is reached without it, for a TLS handshake."""
        path, destination = self.path, self.destination
        assert destination is not None
        if not destination.proxy or destination.scheme != "https" or path.http_version == "HTTP/2":
            return
        path.direct_http_version = self._tried(destination._replace(proxy=None), self.target.context).http_version
        if path.direct_http_version == "HTTP/2":
            yield Finding(
                "http2_taken_away",
                f"{path.host} speaks HTTP/2, but not through the proxy at {path.proxy}: without HTTP/2 there is no"
                " PING, and nothing keeps the path busy while a model thinks",
                f"take {path.host} out with NO_PROXY (or --no-proxy), or have the proxy let HTTP/2 pass",
            )


def _is_of_unknown_authority(error: WireError) -> bool:
    """Return whether a certificate is refused for its authority, and not for its time or its name (OpenSSL's words)."""
    words = error.detail.replace("-", " ")
    return "issuer certificate" in words or "self signed" in words


def _step_of_unfit(error: WireError) -> str:
    if "mismatch" in error.detail.lower():
        return "is the URL right? DNS or the proxy may lead to another server"
    return "is this machine's clock right? If it is, the server's owner has to renew the certificate"


def unreached(error: WireError, destination: Destination) -> Finding:
    """Return the finding of a provider that was not reached."""
    code, proxy = error.failure.code, destination.proxy
    if proxy and (error.failure in PROXY_FAILURES or code in PROXY_STEPS):
        step = PROXY_STEPS.get(code, "have a look at its log")
        return Finding(code, str(error), f"{step}{'' if step.endswith('?') else ';'} --no-proxy goes without it")
    return Finding(code, f"{destination.authority} is not reached: {error}", NEXT_STEPS.get(code, ""))


def _explicit(target: Target) -> Iterator[tuple[str, str]]:
    """Yield the proxies that are given in place of the surroundings'."""
    if target.proxy is None:
        return
    for one in [target.proxy] if isinstance(target.proxy, str) else target.proxy:
        yield (one.source if isinstance(one, GivenProxy) else "--proxy" if one else "--no-proxy"), one or DIRECT


def _shown(url: str, source: str) -> str:
    if url == DIRECT:
        return DIRECT
    try:
        return parse_proxy(url, source).url
    except UsageError:
        return ""


def _answers(addresses: list[Address], silent: list[socket.AddressFamily]) -> Steps[None]:
    """Find out whether any of these addresses answers, if only with a refusal, in steps; note their family if not."""
    until = clock() + FAMILY

    def remaining() -> float:
        if clock() > until:
            raise TimeoutError
        return until - clock()

    try:
        sock = yield from connect_to(addresses, remaining)
        sock.close()
    except TimeoutError:
        silent.append(addresses[0][0])
    except OSError:
        pass
