"""The findings of a relay that runs, as it tells them at ``/_unbroken/findings``. Every failure becomes a finding."""

from __future__ import annotations

import contextlib
from http import HTTPStatus

import msgspec

from unbroken.core.failures import Failure
from unbroken.core.finding import Finding
from unbroken.core.http import Request, redacted
from unbroken.core.next_steps import NEXT_STEPS
from unbroken.core.route import is_private
from unbroken.doctor.fetching import fetch
from unbroken.errors import WireError
from unbroken.journal.findings import PathFindings
from unbroken.wire.http import HttpWire
from unbroken.wire.proxies import ProxySetting

ANSWER = 20.0
"""Seconds that the relay may take for its answer, beyond those for the connection."""

MOST = 1024 * 1024
"""Bytes of an answer; a longer one is none of a relay's."""

UNREACHED, UNADMITTED, NO_RELAY = "relay_unreachable", "relay_token", "no_relay"
"""Codes of findings: nobody answers, the token is missing or wrong, and what answers is no relay."""

_OWN = "/_unbroken"


class RunningRelay(msgspec.Struct, frozen=True, kw_only=True):
    """A relay to read the findings of.

    Attributes:
        url: its URL; also that of its page, or a base URL that leads to it.
        token: its token, ``""`` for none.
        token_source: the variable of the token.
        proxy: the proxy to it, ``None`` for the environment's; to an address of this machine or network, none.
        ca_file: PEM file of authorities, ``None`` for the system's.
        connect: seconds for a connection.
    """

    url: str
    token: str = ""
    token_source: str = "UNBROKEN_RELAY_TOKEN"
    proxy: ProxySetting = None
    ca_file: str | None = None
    connect: float = 10.0

    @property
    def origin(self) -> str:
        """The URL below which its own paths are."""
        url = redacted(self.url).partition(_OWN)[0].rstrip("/")
        return url.removesuffix("/v1")

    def read(self) -> PathFindings:
        """Return what it tells, or why it does not.

        Raises:
            UsageError: the URL, the token or the proxy cannot be used.
        """
        headers = ((b"x-unbroken-token", self.token.encode()),) if self.token else ()
        request = Request("GET", f"{self.origin}{_OWN}/findings", headers)
        try:
            head, body = fetch(self._wire(request), request, connect=self.connect, answer=ANSWER, most=MOST)
        except WireError as exc:
            step = NEXT_STEPS.get(exc.failure.code, "is the URL right?")
            also = " unbroken relay starts one" if exc.failure is Failure.CONNECTION_REFUSED else ""
            return _only(UNREACHED, f"the relay at {self.origin} is not reached: {exc}", f"{step}{also}")
        if head.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            how = "does not take the token of" if self.token else "wants its token, and there is none in"
            return _only(
                UNADMITTED,
                f"the relay at {self.origin} {how} {self.token_source}",
                f"set {self.token_source} to the token that it was started with; --token-env names another variable",
            )
        with contextlib.suppress(msgspec.DecodeError):
            if head.status == HTTPStatus.OK:
                return msgspec.json.decode(body, type=PathFindings)
        return _only(
            NO_RELAY,
            f"what answers at {self.origin} is no relay that tells findings: HTTP {head.status}",
            "give the URL that unbroken relay says at its start; an older relay is to be updated",
        )

    def _wire(self, request: Request) -> HttpWire:
        direct = self.proxy is None and is_private(request.parts.netloc)
        return HttpWire(proxy="" if direct else self.proxy, verify=self.ca_file or True)


def _only(code: str, text: str, step: str) -> PathFindings:
    return PathFindings([Finding(code, text, step)])
