"""The lab of a soak, in a process of its own: upstreams that break at random, for as long as stdin stays open.

python -m soak.lab SEED REQUESTS CA_FILE      writes the origins as one line of JSON
"""

from __future__ import annotations

import contextlib
import json
import random
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme

from chaos.driver import fault_of
from chaos.faces import ANSWER, VERSIONS
from unbroken.lab import Fault, Upstream

SOUND = 0.5
"""How many requests of all are answered without a fault."""

TRIM = 1.0
"""Seconds after which what is recorded of requests is forgotten."""

TORN = ("malformed", "error_event")
"""Kinds that may tear an event, so that the text says nothing."""


def faults(seed: str, requests: int) -> Iterator[Fault | None]:
    """Draw what goes wrong of so many requests."""
    chance = random.Random(seed)
    for _ in range(requests):
        fault = None if chance.random() < SOUND else fault_of(chance, seed.rpartition(" ")[2])
        if fault and fault.kind in TORN:
            fault = Fault("error_event", "after_events", offset=chance.randrange(20))
        yield fault


def main() -> None:
    """Serve until stdin ends."""
    seed, requests, ca_file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.cert_pem.write_to_path(ca_file)
    contexts = dict(zip(VERSIONS, (None, server_tls), strict=True))
    with contextlib.ExitStack() as stack:
        upstreams = {
            version: stack.enter_context(
                Upstream(answer=ANSWER, ssl_context=context, faults=list(faults(f"{seed} {version}", requests)))
            )
            for version, context in contexts.items()
        }
        print(json.dumps({version: upstream.origin for version, upstream in upstreams.items()}), flush=True)  # noqa: T201
        over = threading.Event()
        threading.Thread(target=_wait, args=(over,), daemon=True).start()
        while not over.wait(TRIM):
            for upstream in upstreams.values():
                upstream.requests.clear()


def _wait(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main()
