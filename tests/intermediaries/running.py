"""What runs around a turn: certificates, an origin that thinks at one place, and intermediaries before it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trustme

from intermediaries.kinds import TIMER, Intermediary, Site, Version
from ports import free_port
from unbroken.lab import Fault, ScriptedAnswer, Upstream
from unbroken.lab.chat import CHAT

Place = Literal["before headers", "after headers", "after three tokens"]
PLACES: tuple[Place, ...] = ("before headers", "after headers", "after three tokens")

TEXT = "The tide goes out and the tide comes in."
TOKENS_BEFORE = 3
REQUESTS = 99
"""How many requests of an origin think."""

START = 60.0
"""Seconds that a program may take until it listens."""


@dataclass(frozen=True)
class Trust:
    """The certificates of one run.

    Attributes:
        ca: PEM file of the authority.
        authority: the same with its key.
        pem: certificate, chain and key of the servers.
    """

    ca: Path
    authority: Path
    pem: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


def make_trust(folder: Path, *addresses: str) -> Trust:
    """Make an authority and a certificate for these addresses."""
    made, authority = Trust(folder / "ca.pem", folder / "authority.pem", folder / "server.pem"), trustme.CA()
    authority.cert_pem.write_to_path(made.ca)
    made.authority.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    authority.issue_cert(*addresses).private_key_and_cert_chain_pem.write_to_path(made.pem)
    for path in (made.ca, made.authority, made.pem):
        path.chmod(0o644)  # for programs that give up root's rights
    return made


def origin(
    place: Place, version: Version, think: float, trust: Trust, host: str = "127.0.0.1", port: int = 0
) -> Upstream:
    """Return an origin whose every answer is silent for so many seconds at this place."""
    spoken = ScriptedAnswer(text=TEXT)
    served = {"ssl_context": trust.server(), "http2": version == "HTTP/2", "host": host, "port": port}
    if place != "after three tokens":
        at: Literal["before_headers", "after_headers"] = (
            "before_headers" if place == "before headers" else "after_headers"
        )
        return Upstream(answer=ScriptedAnswer(text=TEXT, think=think, think_at=at), **served)
    faults = [
        Fault("pause", "after_bytes", seconds=think, offset=bytes_before(spoken, number))
        for number in range(1, REQUESTS + 1)
    ]
    return Upstream(answer=spoken, faults=faults, **served)


def bytes_before(answer: ScriptedAnswer, number: int) -> int:
    """Return the length of what an answer begins with, up to the third token; its id contains its number."""
    pieces = CHAT.pieces(answer, number)
    return len(pieces.prelude) + sum(map(len, pieces.told[:TOKENS_BEFORE]))


def requests_of(upstream: Upstream, model: str) -> int:
    """Return how many requests named this model; each program that asks has a name of its own."""
    return sum(json.loads(request.body or b"{}").get("model") == model for request in list(upstream.requests))


@contextmanager
def running(
    intermediary: Intermediary, origin_port: int, trust: Trust, folder: Path, timer: int = TIMER
) -> Iterator[int]:
    """Run an intermediary, with a timer of so many seconds; yield its port.

    Raises:
        RuntimeError: it does not start.
    """
    folder.mkdir(parents=True)
    site = Site(folder, [free_port(), free_port()], origin_port, trust.pem, trust.authority, timer)
    ports = list(reversed(site.ports))
    commands = intermediary.commands(site)
    with ExitStack() as stack:
        for command, port in zip(commands, ports[-len(commands) :], strict=True):
            stack.enter_context(listening(command, port, folder))
        yield site.port


@contextmanager
def listening(command: Sequence[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until it listens, and end it behind the block."""
    log = folder / f"{Path(command[0]).name}.out"
    with log.open("wb") as output:
        # A session of its own, so that it can be killed with its workers.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START
            while not connects(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start: {log.read_text(errors='replace')[-1000:]}")
                time.sleep(0.02)
            yield process
        finally:
            end(process)


def connects(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that we started: at once if it does not follow a signal."""
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
