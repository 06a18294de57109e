"""A program that blocks in the wire: one exchange a line of standard input, until it is interrupted or gets through."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unbroken.core.actions import Limits
from unbroken.core.http import Request
from unbroken.wire.http import HttpWire

LIMITS = Limits(5, 5, None, 0, 5)
STREAM = b'{"stream": true}'

resolve = socket.getaddrinfo
answered = threading.Event()


def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
    """A resolver that is slow for one name."""
    if host == "slow.test":
        answered.wait()
    return resolve(host, *args, **options)


def get_stuck(url: str, size: int, proxy: str, authority: str, reads: str | None) -> None:
    Path(CA).write_text(authority)
    wire = HttpWire(proxy=proxy, verify=CA)
    exchange = wire.exchange(Request("POST", url, (), bytes(size) if size > 100 else STREAM))
    if reads is not None:
        exchange.send(LIMITS)
        body = b""
        while reads.encode() not in body:
            body += exchange.read(LIMITS)
    tell("stuck soon")
    while True:
        exchange.send(LIMITS) if reads is None else exchange.read(LIMITS)


def tell(words: str) -> None:
    print(words, flush=True)  # noqa: T201


def sockets() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and "socket:" in str(link.readlink()):
            yield link.name


socket.getaddrinfo = getaddrinfo
CA = sys.argv[1]
for line in sys.stdin:
    try:
        get_stuck(**json.loads(line))
    except BaseException as exc:  # noqa: BLE001
        names = ", ".join(sorted({thread.name for thread in threading.enumerate()}))
        tell(f"{type(exc).__name__}, {len(list(sockets()))} sockets, threads: {names}")
        answered.set()
        answered = threading.Event()
