"""The openai SDK under Unbroken's transport, in a process of its own that is forked from one that has imported it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from typing import NamedTuple

import openai

import unbroken
from intermediaries.asking import LIMIT, PROMPT, Seen, Way, collected
from intermediaries.network import inside
from unbroken.core.policy import Policy

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class _Order(NamedTuple):
    namespace: str
    url: str
    proxy: str
    model: str
    ca_file: str
    policy: Policy | None


class ForkedTurn:
    """A process that waits until it is to ask; see :class:`intermediaries.asking.Waiting`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait_until_ready(self) -> None:
        """Wait until it can ask."""
        self._connection.recv()

    def ask(self, limit: float = LIMIT) -> Seen:
        """Let it ask, and wait for its end, so many seconds at most."""
        self._connection.send(PROMPT)
        began = time.monotonic()
        if not self._connection.poll(limit):
            return Seen("waits", seconds=time.monotonic() - began)
        seen: Seen = self._connection.recv()
        return seen


@contextmanager
def forked(way: Way, model: str, namespace: str = "", policy: Policy | None = None) -> Iterator[ForkedTurn]:
    """Start a process, in a namespace, and end it."""
    ours, theirs = _CONTEXT.Pipe()
    order = _Order(namespace, way.url, way.proxy, model, str(way.trust.ca), policy)
    process = _CONTEXT.Process(target=_serve, args=(theirs, order), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ForkedTurn(ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _serve(connection: Connection, order: _Order) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    with inside(order.namespace) if order.namespace else nullcontext():
        transport = unbroken.Transport(
            verify=ssl.create_default_context(cafile=order.ca_file), proxy=order.proxy or None, policy=order.policy
        )
        http = openai.DefaultHttpxClient(transport=transport, trust_env=False)
        with openai.OpenAI(api_key="sk-lab", base_url=order.url, http_client=http) as client:
            connection.send("ready")
            connection.recv()
            said = _Said()
            logging.getLogger("unbroken").addHandler(said)
            seen = collected(client, order.model)
            seen.said = said.lines
            connection.send(seen)


class _Said(logging.Handler):
    """What the library logs, which else a user finds on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
