"""The relays that are compared: how each is started, and what it needs."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from bench.load import KEY
from bench.measure import LITELLM, environment, first_line, free_port, open_files, process, wait_for_port

UNBROKEN = "unbroken relay"
NGINX = "nginx"
HAPROXY = "haproxy"
ASGI = "ASGI + httpx2"
LITELLM_PROXY = "LiteLLM proxy"

NGINX_CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections {files}; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""

HAPROXY_CONFIGURATION = """
global
  nbthread 1
  maxconn {streams}
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{port} backlog 4096
  default_backend out
backend out
  server bench 127.0.0.1:{upstream}
"""

LITELLM_CONFIGURATION = """
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-bench}}
litellm_settings: {{telemetry: false, num_retries: 0}}
general_settings: {{master_key: {key}}}
"""


class Relay(NamedTuple):
    """A relay that runs.

    Attributes:
        name: what it is called in the tables.
        port: where it listens.
        pid: the process that does the work.
    """

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def unbroken_relay(upstream: int, *options: str) -> Iterator[Relay]:
    command = [sys.executable, "-m", "unbroken", "relay", "--port", "0", "--log-format", "none", "--no-proxy"]
    command += ["--max-turns", "20000", "--upstream", f"bench=http://127.0.0.1:{upstream}/v1", "--default", "bench"]
    with process(*command, *options, stderr=-1) as running:
        yield Relay(UNBROKEN, int(first_line(running.stderr).rpartition(":")[2]), running.pid)


@contextlib.contextmanager
def plain_relay(upstream: int) -> Iterator[Relay]:
    with process(sys.executable, "-m", "bench.plain_relay", str(upstream), stdout=-1) as running:
        yield Relay(ASGI, int(first_line(running.stdout)), running.pid)


@contextlib.contextmanager
def nginx(upstream: int) -> Iterator[Relay]:
    port = free_port()
    with (
        configured(NGINX_CONFIGURATION, upstream, port) as file,
        process(program("nginx"), "-c", file, "-p", file.parent) as master,
    ):
        wait_for_port(port)
        workers = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        yield Relay(NGINX, port, int(workers[0]))


@contextlib.contextmanager
def haproxy(upstream: int) -> Iterator[Relay]:
    port = free_port()
    with (
        configured(HAPROXY_CONFIGURATION, upstream, port) as file,
        process(program("haproxy"), "-db", "-q", "-f", file) as running,
    ):
        wait_for_port(port)
        yield Relay(HAPROXY, port, running.pid)


@contextlib.contextmanager
def litellm_proxy(upstream: int) -> Iterator[Relay]:
    port = free_port()
    quiet = environment(LITELLM_LOG="ERROR", LITELLM_LOCAL_MODEL_COST_MAP="True", PYTHONPATH="")
    with (
        configured(LITELLM_CONFIGURATION, upstream, port) as file,
        process(
            LITELLM, "--config", file, "--host", "127.0.0.1", "--port", str(port), env=quiet, stdout=-3, stderr=-3
        ) as running,
    ):
        wait_for_port(port)
        time.sleep(2)  # it goes on starting behind its open port
        yield Relay(LITELLM_PROXY, port, running.pid)


@contextlib.contextmanager
def configured(text: str, upstream: int, port: int) -> Iterator[Path]:
    """Write a configuration into a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)  # nginx's worker is another user
        file = Path(folder, "relay.yaml")
        sizes = {"files": open_files(), "streams": most_streams() + 500}
        file.write_text(text.format(folder=folder, upstream=upstream, port=port, key=KEY, **sizes))
        yield file


def most_streams() -> int:
    """Return how many streams a relay can have open here, in thousands: each takes two sockets."""
    return (open_files() - 1000) // 2000 * 1000


def program(name: str) -> str:
    """Find a program that may stand where only root looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


RELAYS: dict[str, Callable[[int], AbstractContextManager[Relay]]] = {
    UNBROKEN: unbroken_relay,
    NGINX: nginx,
    HAPROXY: haproxy,
    ASGI: plain_relay,
    LITELLM_PROXY: litellm_proxy,
}


def missing() -> dict[str, str]:
    """Return the relays that cannot be started here, and how to get them."""
    found = {name: f"apt-get install {name}" for name in (NGINX, HAPROXY) if not program(name)}
    if not LITELLM.exists():
        found[LITELLM_PROXY] = "make .venv-litellm"
    return found


class Ports(NamedTuple):
    """The server's ports, the certificate authority of the second, and its process."""

    http: int
    https: int
    ca_file: str
    pid: int


def told(ports: Ports, path: str) -> Any:
    """Ask the server what it has seen."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.http}/{path}") as response:
        return json.loads(response.read())


@contextlib.contextmanager
def server() -> Iterator[Ports]:
    """Run the upstream."""
    open_files()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        process(sys.executable, "-m", "bench.server", folder, stdout=-1) as running,
    ):
        yield Ports(**json.loads(first_line(running.stdout)), ca_file=f"{folder}/ca.pem", pid=running.pid)
