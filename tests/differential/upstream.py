"""An upstream on script: it answers a request by the case that its header names."""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from collections.abc import Sequence

from differential.streams import CASE, Stream
from wire.servers import RawServer, read_head


class ScriptedUpstream:
    """Answers the first request of a case, of each that asks, with one stream, and any later one with another.

    Attributes:
        server: the server; it is a context manager.
        requests: the bodies of the requests, by case and who asks: the words of the header.
    """

    def __init__(self) -> None:
        self.requests: defaultdict[str, list[bytes]] = defaultdict(list)
        self.server = RawServer(self._answer)
        self._answers: dict[str, Sequence[Stream]] = {}

    def script(self, key: str, *streams: Stream) -> None:
        """Answer the requests of a case, in order; the last stream is also for all that follow."""
        self._answers[key] = streams

    def forget(self, key: str) -> None:
        del self._answers[key]

    def _answer(self, sock: socket.socket) -> None:
        asked, body = _read_request(sock)
        self.requests[asked].append(body)
        streams = self._answers[asked.partition(" ")[0]]
        send(sock, streams[min(len(self.requests[asked]), len(streams)) - 1])


def send(sock: socket.socket, stream: Stream) -> None:
    """Send a response, and wait until the client has left."""
    fields = {**stream.headers, "transfer-encoding": "chunked", "connection": "close"}
    head = [f"HTTP/1.1 {stream.status} X\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items()), "\r\n"]
    data = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in stream.pieces if piece]
    data += [b"0\r\n\r\n"] if stream.ending == "clean" else []
    sock.sendall("".join(head).encode("latin-1") + b"".join(data))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def _read_request(sock: socket.socket) -> tuple[str, bytes]:
    """Read a whole request; return the case that it is for, and its body."""
    head, _, body = read_head(sock).partition(b"\r\n\r\n")
    lines = (line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    fields = {name.lower(): value for name, value in lines}
    while len(body) < int(fields.get("content-length", 0)) and (piece := sock.recv(65536)):
        body += piece
    return fields[CASE], body
