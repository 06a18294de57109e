"""A stand-in for the relay behind its status page: the page's files, and a feed that the test speaks."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from importlib.resources import files
from typing import Any

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = {
    "/_unbroken/": ("index.html", "text/html; charset=utf-8"),
    "/_unbroken/page.css": ("page.css", "text/css; charset=utf-8"),
    "/_unbroken/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

NOW = 1_800_000_000.0
"""The feed's clock, in seconds since the epoch."""


class StandIn(http.server.ThreadingHTTPServer):
    """Serves one page at a time on loopback.

    Attributes:
        greeting: the `hello` that the next connection to the feed gets.
        away: whether the feed is answered with an error instead.
        refused: set when it was.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.greeting = hello()
        self.away = False
        self.refused = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/_unbroken/"
        self._feeds: list[queue.SimpleQueue[bytes | None]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def say(self, event: str, data: dict[str, Any]) -> None:
        """Send an event over the feed that is open."""
        self._feeds[-1].put(_event(event, data))

    def hang_up(self) -> None:
        """Close the feed that is open; the page may open another."""
        for lines in self._feeds:
            lines.put(None)
        self._feeds.clear()

    def close(self) -> None:
        self.hang_up()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def speak(self, write: Any) -> None:
        """One connection of the feed, until :meth:`hang_up`."""
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._feeds.append(lines)
        write(b"retry: 50\n\n" + _event("hello", self.greeting))
        while (line := lines.get()) is not None:
            write(line)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        if self.path == "/_unbroken/feed" and self.server.away:
            self.send_error(503)
            self.server.refused.set()
        elif self.path == "/_unbroken/feed":
            self._head("text/event-stream")
            self.server.speak(self.wfile.write)
        elif self.path in _FILES:
            name, content_type = _FILES[self.path]
            self._head(content_type)
            self.wfile.write(files("unbroken.relay").joinpath("page", name).read_bytes())
        else:
            self.send_error(404)

    def _head(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-security-policy", CSP)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def attempt(number: int = 1, **fields: Any) -> dict[str, Any]:
    """An attempt that waits for its first output, with ``fields`` changed."""
    return {
        "number": number,
        "after": 0.0,
        "phase": "prelude",
        "failure": None,
        "detail": "",
        "status": 200,
        "elapsed": 10.0,
        "headers_after": 1.0,
        "output_after": None,
        "silent": 0.0,
        "http_version": "HTTP/2",
        "route": {"pings_sent": 0, "pings_answered": 0, "kept_busy": False},
        "lowered_ping": None,
        "billed": "unknown",
        **fields,
    }


def cut(number: int = 1, after: float = 0.0, silent: float = 60.0) -> dict[str, Any]:
    """An attempt that was reset after ``silent`` seconds without output."""
    return attempt(number, after=after, elapsed=silent + 1, silent=silent, failure="reset", detail="[Errno 104] reset")


def answer(number: int = 1, after: float = 0.0) -> dict[str, Any]:
    """An attempt that thought for 4 s and then spoke for 5 s."""
    return attempt(number, after=after, phase="complete", elapsed=10.0, output_after=5.0, billed="yes")


def turn(name: str, *attempts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A turn of the attempts; it has been answered if ``fields`` say nothing else."""
    last = attempts[-1]
    first = next((one["after"] + one["output_after"] for one in attempts if one["output_after"] is not None), None)
    return {
        "id": name,
        "started": NOW - 600,
        "elapsed": last["after"] + last["elapsed"],
        "method": "POST",
        "path": "/openai/v1/chat/completions",
        "upstream": "openai",
        "dialect": "openai-chat",
        "streaming": True,
        "status": 200,
        "outcome": "answered",
        "first_output": first,
        "bytes_in": 321,
        "bytes_out": 1234,
        "heartbeats": 0,
        "attempts": list(attempts),
        "retries": 0,
        "replays": len(attempts) - 1,
        "detail": "",
        **fields,
    }


def silences(*seconds: float, pinged: bool = False) -> list[dict[str, Any]]:
    """Cuts after these silences."""
    return [{"at": NOW, "silent": silent, "pinged": pinged, "http_version": "HTTP/2"} for silent in seconds]


def hello(**fields: Any) -> dict[str, Any]:
    """The snapshot of a relay to which nothing has happened, with ``fields`` changed."""
    return {
        "version": "0.1.0",
        "started": NOW - 3600,
        "now": NOW,
        "upstreams": ["openai", "anthropic", "deepseek"],
        "live": [],
        "recent": [],
        "cuts": [],
        "advice": "",
        "totals": {"turns": 0, "answered": 0, "saved": 0, "cut": 0, "passed": 0},
        **fields,
    }
