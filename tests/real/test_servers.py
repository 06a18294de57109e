"""The wire against HTTP/2 servers that are deployed: nginx and haproxy before the lab's upstream, and node."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from ports import free_port
from real.parts import missing
from unbroken.core.http import Request
from unbroken.lab import ScriptedAnswer, Upstream
from waiting import poll
from wire.sides import SIDES, Side, chat, limits, open_side

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real servers")]

ANSWER = ScriptedAnswer(text=["word "] * 40, gap=0.05)
LARGE = 8_000_000
QUICK_PINGS = limits(ping=0.2)

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; worker_shutdown_timeout 20s;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; client_max_body_size 9m;
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_buffering off;
      proxy_request_buffering off; }}
  }}
}}
"""

HAPROXY = """
global
  hard-stop-after 20s
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port} ssl crt {pem} alpn h2,http/1.1
  http-request return status 413 content-type text/plain string refused if {{ path /v1/refused }}
  default_backend back
backend back
  server lab 127.0.0.1:{upstream}
"""


@pytest.fixture(scope="module", params=SIDES)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with open_side(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(answer=ANSWER) as started:
        yield started


@pytest.fixture(scope="module")
def pem(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


class Front:
    """A running server.

    Attributes:
        url: its base URL.
        process: its process.
    """

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url = f"https://127.0.0.1:{port}/v1"
        self.process = process


@contextmanager
def running(name: str, port: int, *command: str) -> Iterator[Front]:
    """Run a server until it listens, and to the end."""

    def listening() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    if shutil.which(name) is None:
        missing(f"{name} is not installed")
    process = subprocess.Popen([name, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        poll(listening, every=0.02)
        yield Front(port, process)
    finally:
        process.terminate()
        process.wait()


def write(folder: Path, template: str, **values: object) -> str:
    path = folder / "server.conf"
    path.write_text(template.format(folder=folder, **values))
    return str(path)


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def front(
    request: pytest.FixtureRequest, upstream: Upstream, pem: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    port, folder = free_port(), tmp_path_factory.mktemp(request.param)
    template = NGINX if request.param == "nginx" else HAPROXY
    conf = write(folder, template, port=port, pem=pem, upstream=upstream.port)
    arguments = ("-p", str(folder), "-c", conf) if request.param == "nginx" else ("-f", conf)
    with running(request.param, port, *arguments) as started:
        yield started


@pytest.fixture(scope="module")
def node(pem: Path) -> Iterator[Front]:
    port = free_port()
    with running("node", port, str(Path(__file__).with_name("front_server.mjs")), str(pem), str(port)) as started:
        yield started


def test_a_turn_streams_and_the_connection_serves_again(
    side: Side, front: Front, upstream: Upstream, client_tls: ssl.SSLContext
) -> None:
    with side.wire(verify=client_tls) as exchange:
        for _ in range(2):
            talk = exchange(chat(front.url))
            assert talk.send(QUICK_PINGS).http_version == "HTTP/2"
            assert talk.read_all(QUICK_PINGS) == upstream.requests[-1].sent


def test_an_upload_is_larger_than_the_window(
    side: Side, front: Front, upstream: Upstream, client_tls: ssl.SSLContext
) -> None:
    with side.wire(verify=client_tls) as exchange:
        talk = exchange(chat(front.url, b'{"stream": true, "x": "%b"}' % bytes(LARGE).replace(b"\0", b"x")))
        assert talk.send().status == 200
        assert len(upstream.requests[-1].body) > LARGE
        talk.close()


def test_an_upload_is_refused_early(side: Side, front: Front, client_tls: ssl.SSLContext) -> None:
    with side.wire(verify=client_tls) as exchange:
        talk = exchange(Request("POST", f"{front.url}/refused", (), bytes(20_000_000)))
        assert talk.send().status == 413
        assert talk.read_all()


def test_a_running_turn_survives_a_graceful_stop(
    side: Side, upstream: Upstream, pem: Path, tmp_path: Path, client_tls: ssl.SSLContext
) -> None:
    port = free_port()
    conf = write(tmp_path, NGINX, port=port, pem=pem, upstream=upstream.port)
    with (
        running("nginx", port, "-p", str(tmp_path), "-c", conf) as front,
        side.wire(verify=client_tls) as exchange,
    ):
        talk = exchange(chat(front.url))
        talk.send(QUICK_PINGS)
        begun = talk.read_until(b"word", QUICK_PINGS)
        front.process.send_signal(signal.SIGQUIT)
        assert begun + talk.read_all(QUICK_PINGS) == upstream.requests[-1].sent


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        ("stream", b"", 200, b"".join(b"data: %d\n\n" % left for left in range(20, 0, -1))),
        ("upload", bytes(LARGE), 200, str(LARGE).encode()),
        ("refused", bytes(LARGE), 413, b"too large"),
        ("large", b"", 200, b"x" * 20_000_000),
        ("think", b"", 200, b"thought"),
    ],
    ids=["stream", "upload", "refused", "large", "think"],
)
def test_node(
    side: Side, node: Front, path: str, body: bytes, status: int, answer: bytes, client_tls: ssl.SSLContext
) -> None:
    """1xx, trailers and a GOAWAY in the middle; uploads; an early answer; a large one; PING while nothing comes."""
    with side.wire(verify=client_tls) as exchange:
        for _ in range(2):
            talk = exchange(Request("POST", f"{node.url}/{path}", (), body))
            assert talk.send(QUICK_PINGS).status == status
            assert talk.read_all(QUICK_PINGS) == answer
    if path == "think":
        assert talk.path.round_trip is not None
