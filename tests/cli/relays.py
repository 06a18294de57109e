"""``unbroken relay`` as a program, and what is asked of it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cli.programs import PATIENCE, Program

CHAT = "chat/completions"


@dataclass(frozen=True)
class Answered:
    """A response, with the names of its headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """What the model said, of a stream of chat completions."""
        events = [json.loads(data) for data in re.findall(rb"^data: (\{.*)$", self.body, re.MULTILINE)]
        return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A relay that runs.

    Attributes:
        origin: its URL.
        program: the program.
    """

    origin: str
    program: Program
    _open: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = urlsplit(self.origin).port
        assert port
        return port

    def ask(self, path: str, body: Any = None, *, host: str = "127.0.0.1", **headers: str) -> Answered:
        """GET, or POST a JSON document; the whole response. ``_`` in names of headers is ``-``."""
        connection, response = self.begin(path, body, host=host, **headers)
        with connection:
            return Answered(response.status, dict(response.headers), response.read())

    def chat(self, path: str = "/v1", **headers: str) -> Answered:
        """Ask for a stream of chat completions."""
        return self.ask(f"{path}/{CHAT}", CHATTED, **headers)

    def begin(
        self, path: str, body: Any = None, *, host: str = "127.0.0.1", **headers: str
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        """Send a request, and wait for status and headers."""
        connection = _Connection(host, self.port, timeout=PATIENCE)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, {"content-type": "application/json", **given})
        return connection, connection.getresponse()


class _Connection(http.client.HTTPConnection):
    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


CHATTED = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]}


@contextmanager
def running(*args: str, env: Mapping[str, str], port: str = "0") -> Iterator[Running]:
    """A relay on a free port."""
    with Program("relay", "--port", port, *args, env=env) as program:
        first = program.err.wait_for("\n").splitlines()[0]
        assert first.startswith("listening on http://"), first
        yield Running(first.removeprefix("listening on "), program)
