"""The bench: an upstream on script, a relay before it, and a process of the second virtual environment that asks."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from differential.streams import CASE, WAYS, Case, Found, Read, Stream
from real.parts import missing
from relay.serving import Served, settings_to
from sdks import matrix
from unbroken.core.policy import Policy
from wire.servers import RawServer, read_head

ASK = Path(__file__).with_name("ask.py")
POLICY = Policy(replays=1, retries=1, backoff_initial=0.0, settle_timeout=0.2)


class ScriptedUpstream:
    """Answers each request by the case that its header names.

    Attributes:
        requests: how many came, by case and way.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self._answers: dict[str, tuple[Stream, Stream]] = {}
        self.server = RawServer(self._answer)

    def script(self, key: str, first: Stream, again: Stream) -> None:
        """Answer the first request of a case, in each way, and any later one."""
        self._answers[key] = (first, again)

    def forget(self, key: str) -> None:
        del self._answers[key]

    def _answer(self, sock: socket.socket) -> None:
        asked = _read_request(sock)
        self.requests[asked] += 1
        stream = self._answers[asked.partition(" ")[0]][self.requests[asked] > 1]
        fields = {**stream.headers, "transfer-encoding": "chunked", "connection": "close"}
        head = "".join(["HTTP/1.1 200 OK\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items()), "\r\n"])
        data = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in stream.pieces if piece]
        data += [b"0\r\n\r\n"] if stream.ending == "clean" else []
        sock.sendall(head.encode("latin-1") + b"".join(data))
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass


class Bench:
    """Asks about cases. Use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        if not matrix.python().exists():
            missing("the SDKs are missing; `make .venv-sdks` installs them")
        self._upstream = ScriptedUpstream()
        self._stack.enter_context(self._upstream.server)
        self._relay = self._stack.enter_context(Served(settings_to(self._upstream.server.url, policy=POLICY)))
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        command = [matrix.python(), ASK]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        self._stack.enter_context(self._process)
        self._stack.callback(self._process.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def ask(self, cases: Sequence[Case]) -> list[Found]:
        """What each way reads in each case."""
        keys = [str(next(self._numbers)) for _ in cases]
        for key, case in zip(keys, cases, strict=True):
            self._upstream.script(key, case.stream, case.again)
        asked = [self._described(case, key) for key, case in zip(keys, cases, strict=True)]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that asks has ended"
        for key in keys:
            self._upstream.forget(key)
        return [self._found(key, outcomes) for key, outcomes in zip(keys, json.loads(line), strict=True)]

    def _described(self, case: Case, key: str) -> dict[str, object]:
        return {
            "dialect": case.dialect,
            "request": dict(case.request),
            "key": key,
            "upstream": self._upstream.server.url,
            "relay": f"{self._relay.origin}/lab",
            "ways": WAYS,
        }

    def _found(self, key: str, outcomes: dict[str, dict[str, object]]) -> Found:
        def read(way: str) -> Read:
            outcome = outcomes[way]
            return Read(tuple(outcome["objects"]), outcome["error"], self._upstream.requests[f"{key} {way}"])

        return Found(*map(read, WAYS))


def _read_request(sock: socket.socket) -> str:
    """Read a whole request; return the case that it is for."""
    data = read_head(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    fields = {name.lower(): value for name, value in fields.items()}
    missing_bytes = int(fields.get("content-length", 0)) - len(body)
    while missing_bytes > 0 and (piece := sock.recv(65536)):
        missing_bytes -= len(piece)
    return fields[CASE]
