"""The next step of a user whose server or proxy could not be reached, by the code of the failure."""

from __future__ import annotations

from collections.abc import Mapping

NEXT_STEPS: Mapping[str, str] = {
    "connection_refused": "is the server running, and the URL right?",
    "connect_timeout": "is the URL right? --connect SECONDS waits longer",
    "no_route": "is the network up?",
    "not_connected": "is there a firewall or a sandbox, or are all file descriptors in use?",
    "no_such_host": "check the spelling of the URL",
    "dns_temporary": "is the network up?",
    "certificate": "if the authority is one of your own, name its file with --ca-file; a captive portal has one, too",
    "tls_mismatch": "does the server speak https at all? If not, write http://",
}
"""What to do about a server to which no connection could be made, by the code of the failure."""

_SCHEMES = "is its scheme right (http, https, socks5, socks5h)?"

PROXY_STEPS: Mapping[str, str] = {
    "proxy_unreachable": "is the proxy running?",
    "proxy_cannot_reach": "the proxy runs; its log says why it cannot reach the server",
    "proxy_closed": f"{_SCHEMES} If it is, its log says why it cannot reach the server",
    "proxy_auth": "give user and password in the proxy's URL",
    "proxy_refused": "the proxy's rules do not allow this server",
    "proxy_protocol": _SCHEMES,
    "captive_portal": "open a page in a browser and log in to the network",
    "connect_timeout": f"{_SCHEMES} --connect SECONDS waits longer",
    "no_route": "is the network up?",
    "no_such_host": "check the spelling of the proxy's URL",
    "dns_temporary": "is the network up?",
}
"""What to do about a proxy on the way, by the code of the failure."""

STATUSES_OF_PROXIES = frozenset({403, 500, 502, 503, 504, 511})
"""Statuses with which proxies say that they cannot, or may not, reach a server."""
