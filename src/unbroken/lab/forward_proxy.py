"""The client's side of an HTTP proxy: a tunnel by CONNECT (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from unbroken.core.http import check_url
from unbroken.errors import UsageError
from unbroken.lab.dial import connect

_MAX_HEAD = 65_536
_OK = range(200, 300)


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """A proxy on the way to a real upstream.

    Attributes:
        host: its name or address.
        port: its port.
        authorization: the value of ``Proxy-Authorization``; empty without one.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a socket that leads to a target through the proxy.

        Raises:
            OSError: the proxy cannot be reached, or refuses; the message says which.
        """
        sock = await connect(self.host, self.port, allow_remote=True)
        try:
            await asyncio.get_running_loop().sock_sendall(sock, self._question(host, port))
            head = await _read_head(sock)
        except BaseException:
            sock.close()
            raise
        status = head.split(b" ", 2)[1:2]
        if not status or not status[0].isdigit() or int(status[0]) not in _OK:
            sock.close()
            raise ConnectionError(f"the proxy answers {head.splitlines()[0].decode('latin-1')!r}")
        return sock

    def _question(self, host: str, port: int) -> bytes:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
        lines += [f"proxy-authorization: {self.authorization}"] if self.authorization else []
        return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _read_head(sock: socket.socket) -> bytes:
    """Read the head of the answer, and nothing behind it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await asyncio.get_running_loop().sock_recv(sock, 1)
        if not byte or len(head) > _MAX_HEAD:
            raise ConnectionError("the proxy gives no answer")
        head += byte
    return head


def parse_proxy(url: str) -> ForwardProxy:
    """Read the URL of an HTTP proxy.

    Raises:
        UsageError: it is no such URL. The message quotes no credentials.
    """
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise UsageError("the proxy is not an http:// URL; the lab goes through HTTP proxies only")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    authorization = "Basic " + base64.b64encode(user.encode()).decode() if parts.username is not None else ""
    return ForwardProxy(parts.hostname or "", parts.port or 80, authorization)
