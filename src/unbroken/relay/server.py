"""Serve a relay with uvicorn: the listening socket, the log of defects, and the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

from unbroken.errors import MissingExtra, UsageError
from unbroken.relay.app import Relay
from unbroken.relay.asgi import Broken
from unbroken.relay.log_writer import LineHandler, LineWriter
from unbroken.relay.settings import Settings
from unbroken.relay.uvicorn_adapter import DrainingServer, LimitedProtocol, check_uvicorn, writes_directly

try:
    import uvicorn
except ImportError as exc:
    raise MissingExtra("the relay needs", "relay", exc) from None

KEEP_ALIVE = 75.0
"""Seconds for which a client's idle connection is kept; longer than clients keep theirs, so that clients close it."""

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens at this address.

    Raises:
        UsageError: the socket cannot listen there, or the installed uvicorn is not the one that the relay works with.
    """
    check_uvicorn()  # before clients connect, and before workers start
    if not 0 <= port <= 65535:  # the system would take another one
        raise UsageError(f"cannot listen on port {port}: there is none beyond 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as exc:
        hint = "; --port 0 takes a free one" if exc.errno == errno.EADDRINUSE else ""
        raise UsageError(f"cannot listen on {host} port {port}: {exc.strerror}{hint}") from None
    sock.setblocking(False)
    return sock


def origin_of(sock: socket.socket) -> str:
    """Return the URL at which a listening socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(relay: Relay, settings: Settings, sock: socket.socket, lines: LineWriter) -> None:
    """Serve until a signal; then let running turns finish, for up to the grace period of the settings.

    Args:
        relay: the application.
        settings: its settings.
        sock: a listening socket; closed at the end.
        lines: writes what is logged of defects; closed at the end.
    """
    try:
        make_server(relay, settings, lines).run(sockets=[sock])
    finally:
        lines.close()


def make_server(
    relay: Relay, settings: Settings, lines: LineWriter | None = None, orphaned: int | None = None
) -> DrainingServer:
    """Return the server that :func:`serve` runs; set its ``should_exit`` to stop it from another thread.

    Args:
        relay: the application.
        settings: its settings.
        lines: writes what is logged of defects; ``None`` for stderr.
        orphaned: a file descriptor that becomes readable when the process that supervises this one is gone.

    Raises:
        UsageError: the installed uvicorn is not the one that the relay works with.
    """
    check_uvicorn()
    _log_defects_alone(lines or LineWriter(2))
    direct = not settings.plain_asgi and writes_directly()
    config = uvicorn.Config(
        relay,
        http=lambda **given: LimitedProtocol(settings, relay.refused, direct=direct, **given),  # type: ignore[arg-type]  # called like a class
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(KEEP_ALIVE),
        backlog=_BACKLOG,
    )
    return DrainingServer(config, relay, settings.grace, orphaned)


def _log_defects_alone(lines: LineWriter) -> None:
    """Silence the logs of uvicorn and the driver, which the access log replaces, except for defects."""
    logging.getLogger("unbroken").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a client that has just left
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.ERROR)
    logger.addFilter(_is_defect)
    logger.handlers = [*(one for one in logger.handlers if not isinstance(one, LineHandler)), LineHandler(lines)]
    logging.getLogger("uvicorn.access").disabled = True


def _is_defect(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is not None and not isinstance(error, (Broken, asyncio.CancelledError))
