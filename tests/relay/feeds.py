"""The status page's feed, as the page reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from relay.serving import PATIENCE, Caller, Fields


class Told(NamedTuple):
    """An event of the feed; a comment has no name."""

    name: str
    data: Any


class Feed:
    """A watcher, connected.

    Args:
        caller: a connection of its own.
        headers: further fields of the request.

    Attributes:
        heard: everything that was told so far.
        raw: the same as it came.
    """

    def __init__(self, caller: Caller, headers: Fields = ()) -> None:
        self.heard: list[Told] = []
        self.raw = b""
        self._caller = caller
        self._rest = b""
        caller.begin("GET", "/_unbroken/feed", headers)
        self.head = caller.head()
        assert self.head.status == 200, self.head

    def next(self, name: str, matches: Callable[[Any], object] = lambda _: True) -> Any:
        """Read on until such an event is told; return its data."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, f"no such {name}, but {self.heard[-3:]}"
            told = self._read()
            if told.name == name and matches(told.data):
                return told.data

    def named(self, name: str) -> list[Any]:
        """The data of every such event so far."""
        return [told.data for told in self.heard if told.name == name]

    def ended(self) -> bool:
        """Read on until the connection ends; whether the feed was ended in due form before."""
        return self._caller.rest().endswith(b"0\r\n\r\n")

    def _read(self) -> Told:
        while b"\n\n" not in self._rest:
            size = int(self._caller.until(b"\r\n"), 16)
            assert size, f"the feed ended after {self.heard}"
            data = self._caller.take(size)
            self._caller.take(2)
            self.raw += data
            self._rest += data
        block, _, self._rest = self._rest.partition(b"\n\n")
        lines = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        told = Told(lines["event"], json.loads(lines["data"])) if "event" in lines else Told("", lines[""])
        self.heard.append(told)
        return told
